"""The rules that every row obeys, each with a row that breaks it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featurestore.format.rows import PartRows, SparseColumn
from featurestore.format.rules import problems, rounding_problems
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from tests.featurestore.stores import SCHEMA, random_rows, with_sparse

ONE = StoreSchema((("label", "string"),), (SaeColumns("s", 8, ("max", "count")),), (DenseColumn("h", 2),))


def rows() -> PartRows:
    """Three documents: features {1, 5}, an error, features {0}."""
    values = {"max": np.float32([2.5, 0.5, 1]), "count": np.uint32([2, 1, 4])}
    return PartRows(
        doc_id=["a", "b", "c"],
        keep={"label": ["x", None, "y"]},
        n_tokens=np.uint32([3, 0, 4]),
        truncated=np.zeros(3, bool),
        error=[None, "broken", None],
        sparse={"s": SparseColumn(np.int64([0, 2, 2, 3]), np.uint32([1, 5, 0]), values)},
        dense={"h": np.ones((3, 2), np.float32)},
    )


def values(**changes: np.ndarray) -> PartRows:
    return with_sparse(rows(), "s", values={**rows().sparse["s"].values, **changes})


def test_valid_rows_have_no_problem() -> None:
    assert list(problems(ONE, rows())) == []
    assert list(problems(SCHEMA, random_rows(SCHEMA, 40))) == []


def test_a_document_may_start_below_where_its_neighbour_ended() -> None:
    assert rows().sparse["s"].indices.tolist() == [1, 5, 0]
    assert list(problems(ONE, rows())) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (with_sparse(rows(), "s", indices=np.uint32([5, 1, 0])), "row 0: 's__indices' is not strictly increasing"),
        (with_sparse(rows(), "s", indices=np.uint32([1, 1, 0])), "row 0: 's__indices' is not strictly increasing"),
        (with_sparse(rows(), "s", indices=np.uint32([1, 5, 8])), "row 2: 's__indices' holds 8, but d_sae is 8"),
        (with_sparse(rows(), "s", indptr=np.int64([0, 2, 3, 3])), "row 1: has no tokens and yet 1 features"),
        (values(max=np.float32([2.5, np.nan, 1])), "row 0: 's__max' holds nan, which is not finite"),
        (values(max=np.float32([2.5, 0.5, np.inf])), "row 2: 's__max' holds inf, which is not finite"),
        (values(max=np.float32([2.5, -0.5, 1])), "row 0: 's__max' holds -0.5, but activations are not negative"),
        (values(max=np.float32([2.5, 0.5, 0])), "row 2: 's__max' is 0 for a feature that is listed"),
        (values(count=np.uint32([2, 0, 1])), "row 0: 's__count' is 0 for a feature that is listed"),
        (values(count=np.uint32([2, 1, 5])), "row 2: 's__count' counts 5 tokens, more than n_tokens"),
        (replace(rows(), n_tokens=np.uint32([3, 2, 4])), "row 1: has an error and yet n_tokens 2"),
        (replace(rows(), dense={"h": np.float32([[1, 1], [1, 1], [1, np.inf]])}), "row 2: 'h' holds a value that is"),
    ],
)
def test_a_broken_rule_is_named_with_its_row_and_column(bad: PartRows, said: str) -> None:
    assert any(said in problem for problem in problems(ONE, bad)), list(problems(ONE, bad))


def test_a_feature_that_is_zero_in_every_pooling_is_a_problem() -> None:
    schema = replace(ONE, saes=(SaeColumns("s", 8, ("last",)),))
    bad = with_sparse(rows(), "s", values={"last": np.float32([1, 0, 1])})
    assert list(problems(schema, bad)) == ["row 0: 's__indices' lists 5, which is 0 in every pooling"]


def test_what_lies_in_a_dense_row_without_tokens_does_not_matter() -> None:
    assert list(problems(ONE, replace(rows(), dense={"h": np.float32([[1, 1], [np.nan, 1], [1, 1]])}))) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (replace(rows(), keep={}), "kept columns are"),
        (replace(rows(), keep={"label": ["x"]}), "'label' has 1 rows and doc_id has 3"),
        (replace(rows(), error=[None]), "'error' has 1 rows and doc_id has 3"),
        (replace(rows(), doc_id=["a", None, "c"]), "row 1: doc_id is no text"),
        (replace(rows(), sparse={}), "SAEs are"),
        (replace(rows(), dense={}), "dense columns are"),
        (replace(rows(), dense={"h": np.ones((3, 3), np.float32)}), r"'h' must be float32 [3, 2]"),
        (replace(rows(), dense={"h": np.ones((3, 2))}), r"'h' must be float32 [3, 2]"),
        (with_sparse(rows(), "s", indptr=np.int64([0, 3, 2, 3])), "does not run from 0 up to its 3 indices"),
        (with_sparse(rows(), "s", indptr=np.int64([0, 2, 2, 2])), "does not run from 0 up to its 3 indices"),
        (with_sparse(rows(), "s", indptr=np.int32([0, 2, 2, 3])), "needs an int64 indptr of length 4"),
        (with_sparse(rows(), "s", indices=np.int64([1, 5, 0])), "they must be uint32"),
        (with_sparse(rows(), "s", values={"max": np.float32([1, 1, 1])}), "poolings of 's' are"),
        (values(max=np.float32([1, 1])), "'s__max' must be float32 parallel to its 3 indices"),
        (values(count=np.float32([1, 1, 1])), "'s__count' must be uint32 parallel to its 3 indices"),
    ],
)
def test_columns_of_the_wrong_shape_are_named(bad: PartRows, said: str) -> None:
    assert any(said in problem for problem in problems(ONE, bad)), list(problems(ONE, bad))


def test_values_with_too_many_bits_are_found() -> None:
    assert list(rounding_problems(ONE, values(max=np.float32([2.5, 0.3, 1])))) == [
        "row 0: 's__max' has more than 8 significant bits"
    ]
