"""Values that a study names are found among those of the store, whatever type the column has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore.errors import StudyError
from featurestore.reader import FeatureStore
from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.documents.labels import load_documents
from training.documents.named_values import named_values
from training.documents.split import make_splits
from training.documents.transfer import transfer_levels


@pytest.mark.parametrize(
    ("values", "kind", "named"),
    [
        ([0, 1, 1], "int64", [0]),
        ([0, 1, 1], "int64", ["0"]),
        ([0.0, 1.0, 1.0], "float64", [0]),
        ([True, False, False], "bool", [True]),
        ([True, False, False], "bool", ["True"]),
        (["0", "1", "1"], "string", [0]),
        (["test", "train", "train"], "string", "test"),
        (["010", "10", "8"], "string", ["010"]),
    ],
)
def test_a_given_split_holds_out_the_values_that_the_study_names(
    tmp_path: Path, values: list[Any], kind: str, named: Any
) -> None:
    documents = make_documents(90)
    documents.extra["part"] = [values[i // 2 % 3] for i in range(90)]
    documents.extra_types["part"] = kind
    store = build_store(tmp_path / "s", documents)
    changes = {"seeds": 1, "folds": 3, "column": {"name": "part", "test": named}, "duplicates": "ignore"}
    spec = make_spec(store, tmp_path / "out", split=changes)
    data = load_documents(FeatureStore.open(store), spec)
    (split,) = make_splits(data, spec.split)
    held_out = {data.doc_id[i] for i in split.test}
    assert held_out == {
        id_ for id_, part in zip(documents.ids, documents.extra["part"], strict=True) if part == values[0]
    }


def test_transfer_trains_on_the_years_that_the_study_names(tmp_path: Path) -> None:
    documents = make_documents(90)
    documents.extra["year"] = [2020 + i // 2 % 3 for i in range(90)]
    documents.extra_types["year"] = "int64"
    store = build_store(tmp_path / "s", documents)
    spec = make_spec(store, tmp_path / "out", transfer={"by": "year", "train": [2022, 2020]})
    assert transfer_levels(load_documents(FeatureStore.open(store), spec), spec) == ["2022", "2020"]


def test_a_text_stands_for_a_number_only_where_nothing_is_written_just_so() -> None:
    assert named_values(["1", "2"], ["1.0"], "test", "c") == ["1"]
    assert named_values(["1", "1.0"], ["1.0"], "test", "c") == ["1.0"]
    assert named_values(["1", "2"], ["01"], "test", "c") == []
    with pytest.raises(StudyError, match=r"column 'c': ids '1' and '1\.0' would both be 1"):
        named_values(["1", "1.0"], ["1.00"], "test", "c")


def test_a_value_that_is_not_there_is_refused_beside_one_that_is() -> None:
    held = np.array(["dev", "test", "train"], dtype=object)
    with pytest.raises(
        StudyError, match=r"test: column 'part' holds no 'tset'; it holds: dev, test, train; did you mean"
    ):
        named_values(held, ["test", "tset"], "test", "part")


def test_classes_that_are_left_out_may_be_numbers_and_truth_values(tmp_path: Path) -> None:
    documents = make_documents(90, classes=("0", "1", "2"))
    documents.label, documents.label_type = [int(label) for label in documents.label], "int64"
    store = build_store(tmp_path / "s", documents)
    for named in ([2], ["2"], [2.0]):
        spec = make_spec(store, tmp_path / "out", split={"seeds": 1, "folds": 3, "exclude_classes": named})
        assert load_documents(FeatureStore.open(store), spec).classes == ("0", "1")
