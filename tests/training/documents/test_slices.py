"""Slices: values of a column, and ranges of length, with no document lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore import FeatureStore
from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.documents.labels import load_documents
from training.documents.slices import MOST, Slices, make_slices
from training.spec import LengthSlices


def sliced(by: Any, n_tokens: Sequence[int], **columns: list) -> dict[str, Slices]:
    frame = {"n_tokens": pl.Series(n_tokens), **{name: pl.Series(values) for name, values in columns.items()}}
    return make_slices(by, frame, np.arange(len(n_tokens)))


def test_each_value_is_a_slice_and_a_missing_one_has_its_own() -> None:
    (found,) = sliced(["lang"], [1] * 5, lang=["sw", "en", None, "en", ""]).values()
    assert found.names == ("en", "sw", "(no value)")
    assert found.code.tolist() == [1, 0, 2, 0, 2]


def test_numbers_are_in_their_order() -> None:
    (found,) = sliced(["year"], [1] * 3, year=[2020, 900, 2020]).values()
    assert found.names == ("900", "2020")


def test_lengths_make_ranges_of_about_as_many_documents() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()
    (found,) = sliced(["length"], lengths).values()
    assert found.names == ("1-25 tokens", "26-50 tokens", "51-75 tokens", "76+ tokens")
    assert np.bincount(found.code).tolist() == [25] * 4
    assert [found.code[lengths.index(n)] for n in (25, 26, 100)] == [0, 1, 3]


def test_lengths_can_be_given_and_empty_ranges_are_left_out() -> None:
    (found,) = sliced([LengthSlices(length=(2, 3, 10, 50))], [1, 2, 2, 60]).values()
    assert found.names == ("1 token", "2 tokens", "50+ tokens")
    assert found.code.tolist() == [0, 1, 1, 2]


def test_documents_of_one_length_are_one_slice() -> None:
    (found,) = sliced(["length"], [7, 7, 7]).values()
    assert found.names == ("7+ tokens",)
    assert found.code.tolist() == [0, 0, 0]


def test_a_study_loses_no_document_to_a_slice_and_follows_those_it_keeps(tmp_path: Path) -> None:
    documents = make_documents(60, classes=("a", "b", "c"))
    documents.extra["lang"] = [None if i % 3 == 0 else "en" if i % 2 else "de" for i in range(60)]
    documents.n_tokens = list(range(10, 70))
    store = FeatureStore.open(build_store(tmp_path / "store", documents))
    spec = make_spec(store.uri, tmp_path, by=["lang", "length"], split={"exclude_classes": ["b"]})
    data = load_documents(store, spec)
    assert len(data.y) == 40
    lang, length = data.slices["lang"], data.slices["length"]
    for i, doc_id in enumerate(data.doc_id):
        row = documents.ids.index(doc_id)
        assert lang.names[lang.code[i]] == (documents.extra["lang"][row] or "(no value)")
    assert np.bincount(length.code).tolist() == [10] * 4


def test_a_column_that_is_not_there_is_named(tmp_path: Path, store: str) -> None:
    spec = make_spec(store, tmp_path, by=["langs"])
    with pytest.raises(StudyError, match="keeps no column 'langs'"):
        load_documents(FeatureStore.open(store), spec)


def test_a_column_of_more_values_than_anyone_reads_is_refused() -> None:
    (found,) = sliced(["author"], [1] * MOST, author=[f"a{n}" for n in range(MOST)]).values()
    assert len(found.names) == MOST
    with pytest.raises(
        StudyError, match=rf"^by: column 'author' holds {MOST + 1} values, and scores .* by at most 300"
    ):
        sliced(["author"], [1] * (MOST + 1), author=[None, *(f"a{n}" for n in range(MOST))])
