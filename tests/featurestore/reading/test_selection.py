"""Some of the rows, some of the features, in another form: always what slicing the whole matrix gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import StoreError
from featurestore.format import part
from featurestore.format.schema import SaeColumns
from featurestore.reader import FeatureStore
from featurestore.reading import parts
from featurestore.reading.selection import Selection, runs
from tests.featurestore.stores import POOLS, SCHEMA, write_store

N = 51


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Three parts of several row groups each."""
    root: Path = tmp_path_factory.mktemp("selection")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "ROW_GROUP_BYTES", 1000)
        write_store(root, (20, 11, 20))
    return FeatureStore.open(str(root))


@pytest.fixture
def groups_read(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First rows of the row groups (or pieces of them) of which more than metadata was decoded."""
    read: list[int] = []
    groups = store._parts.groups

    def watched(columns: list[str], *args: Any, **named: Any) -> Any:
        for unit, first, batch in groups(columns, *args, **named):
            if not set(columns) <= set(store.metadata_columns):
                read.append(first)
            yield unit, first, batch

    monkeypatch.setattr(store._parts, "groups", watched)
    return read


def dense(store: FeatureStore, pool: str = "max", binarize: float | None = None) -> np.ndarray:
    X = store.matrix("l12_64", pool, binarize).X
    return np.asarray(X.toarray())


@pytest.mark.parametrize(
    "rows",
    [
        pl.col("label") == "größe 1",
        (pl.col("n_tokens") > 20) & pl.col("error").is_null(),
        pl.col("score") > 1,  # null for every fourth document: no
        pl.col("doc_id").str.starts_with("u1"),
        pl.lit(True),
        pl.lit(False),
    ],
    ids=str,
)
def test_a_polars_expression_selects_rows_as_filter_does(store: FeatureStore, rows: pl.Expr) -> None:
    X, doc_id = store.matrix("l12_64", rows=rows)
    numbered = store.documents().with_row_index("i").filter(rows).collect()
    assert np.array_equal(X.toarray(), dense(store)[numbered["i"].to_numpy()])
    assert doc_id.tolist() == numbered["doc_id"].to_list()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection_is_a_slice_of_the_whole(store: FeatureStore, data: st.DataObject) -> None:
    rows = data.draw(st.none() | st.lists(st.booleans(), min_size=N, max_size=N).map(np.array))
    features = data.draw(st.none() | st.lists(st.integers(0, 63), unique=True))
    pool = data.draw(st.sampled_from([*POOLS, "mean"]))
    binarize = data.draw(st.none() | st.floats(0, 6))
    dtype = data.draw(st.sampled_from(["float32", "float64"] if binarize is None else ["float32", "bool", "int8"]))
    X, doc_id = store.matrix("l12_64", pool, binarize, rows=rows, features=features, dtype=dtype)
    expected = dense(store, pool, binarize)
    expected = expected if rows is None else expected[rows]
    expected = expected if features is None else expected[:, features]
    assert X.dtype == dtype and X.shape == expected.shape
    assert np.array_equal(X.toarray(), expected.astype(dtype))
    assert X.nnz == np.count_nonzero(expected) and len(doc_id) == X.shape[0]
    assert X.has_canonical_format and X.indices.dtype == X.indptr.dtype == np.int32
    assert sp.csr_matrix((X.data, X.indices, X.indptr), X.shape).has_canonical_format  # scipy's own look


@settings(max_examples=40)
@given(features=st.lists(st.integers(0, 63), unique=True), indices=st.lists(st.integers(0, 63)))
def test_a_wide_sae_is_searched_as_a_narrow_one_is_looked_up(features: list[int], indices: list[int]) -> None:
    narrow = Selection.of(SCHEMA.sae("l12_64"), "max", None, np.float32, features, None)
    wide = Selection.of(SaeColumns("wide", 2**30, ("max",)), "max", None, np.float32, features, None)
    asked = np.array(indices, dtype=np.int32)
    assert wide.columns(asked).tolist() == narrow.columns(asked).tolist()
    assert narrow.columns(asked).tolist() == [features.index(i) + 1 if i in features else 0 for i in indices]


def test_batches_take_the_same_selections(store: FeatureStore) -> None:
    rows, features = pl.col("n_tokens") > 10, [9, 3, 40]
    X, doc_id = store.matrix("l12_64", "sum", 2.0, rows=rows, features=features, dtype=bool)
    batches = list(store.batches("l12_64", "sum", 2.0, rows=rows, features=features, dtype=bool))
    assert len(batches) > 3 and all(batch.X.shape[0] for batch in batches)
    assert np.array_equal(np.concatenate([batch.X.toarray() for batch in batches]), X.toarray())
    assert np.concatenate([batch.doc_id for batch in batches]).tolist() == doc_id.tolist()


@pytest.mark.parametrize("entries", [1, 30, 10**9])
def test_row_groups_come_in_pieces_of_about_so_many_entries(
    store: FeatureStore, groups_read: list[int], monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    whole = list(store.groups(["l12_64__max"]))
    groups_read.clear()
    monkeypatch.setattr(parts, "BATCH_ENTRIES", entries)
    X, doc_id = store.matrix("l12_64", rows=pl.col("n_tokens") > 10, features=[5, 3, 40])
    mask = store.mask(pl.col("n_tokens") > 10)
    assert len(groups_read) > len(whole) or entries == 10**9
    monkeypatch.undo()
    assert np.array_equal(X.toarray(), dense(store)[mask][:, [5, 3, 40]])
    assert doc_id.tolist() == store.documents().collect()["doc_id"].to_numpy()[mask].tolist()


def test_saes_of_a_store_can_be_read_in_step(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BATCH_ENTRIES", 10)
    rows = pl.col("n_tokens") > 10
    wide, narrow = (list(store.batches(sae, "sum", rows=rows)) for sae in ("l12_64", "l9_8"))
    assert len(wide) > 9
    assert [batch.doc_id.tolist() for batch in wide] == [batch.doc_id.tolist() for batch in narrow]


def test_row_groups_without_a_selected_row_are_not_read(store: FeatureStore, groups_read: list[int]) -> None:
    rows = np.zeros(N, dtype=bool)
    rows[[0, 50]] = True
    assert store.matrix("l12_64", rows=rows).X.shape[0] == 2
    assert len(groups_read) == 2 and groups_read[0] == 0


def test_dense_vectors_take_the_same_row_selections(store: FeatureStore, groups_read: list[int]) -> None:
    name, rows = "resid_post_9__hidden_mean", pl.col("doc_id").str.ends_with("-3")
    found = store.dense(name, rows)
    assert len(groups_read) == 3 and len(found) == 3
    assert np.array_equal(found, store.dense(name)[store.mask(rows)], equal_nan=True)


def test_documents_are_taken_by_id_in_any_order(store: FeatureStore, groups_read: list[int]) -> None:
    ids = ["u2-19", "u0-3", "u2-19", "u1-0"]
    X, doc_id = store.take(ids, "l12_64", "sum")
    assert doc_id.tolist() == ids
    assert groups_read == [0, 20, 49]
    assert np.array_equal(X.toarray(), dense(store, "sum")[[50, 3, 50, 20]])


def test_many_documents_of_a_row_group_are_taken_by_reading_it_once(
    store: FeatureStore, groups_read: list[int]
) -> None:
    starts = {first for _, first, _ in store.groups(["l12_64__max"])}
    groups_read.clear()
    X, doc_id = store.take([f"u1-{i}" for i in [10, *range(10), 3, 3]], "l12_64")
    assert groups_read == sorted(starts & set(range(20, 31)))
    assert np.array_equal(X.toarray(), dense(store)[[30, *range(20, 30), 23, 23]])
    assert doc_id.tolist()[-3:] == ["u1-9", "u1-3", "u1-3"]


def test_what_lies_behind_the_last_selected_row_is_not_decoded(
    store: FeatureStore, groups_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "BATCH_ENTRIES", 1)
    store.matrix("l12_64", rows=np.arange(N) == 1)
    assert groups_read == [0, 1]


def test_an_id_that_is_not_there_is_named(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match=r"no document 'nobody' \(nor 1 more of these ids\) in "):
        store.take(["u0-0", "nobody", "no one"], "l12_64")


def test_no_ids_are_no_rows(store: FeatureStore) -> None:
    assert store.take([], "l12_64").X.shape == (0, 64)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"rows": pl.col("lang") == "de"},
            "rows cannot be selected in .*lang.*; its columns are: doc_id, label, score",
        ),
        ({"rows": pl.col("label").str.len_chars()}, "rows cannot be selected in "),
        ({"rows": np.ones(3, bool)}, r"rows must be a polars expression or 51 booleans, .* not bool of shape \(3,\)"),
        ({"rows": np.arange(N)}, r"51 booleans, .* not int64 of shape \(51,\)"),
        ({"rows": "label == 'a'"}, "rows must be a polars expression or booleans, not str"),
        ({"features": [3, 64]}, "SAE 'l12_64' has no feature 64; it has features 0 to 63"),
        ({"features": [-1]}, "has no feature -1"),
        ({"features": [3, 3]}, "features names a feature twice"),
        ({"features": [1.5]}, "features must be a flat list of whole numbers"),
        ({"features": [[1]]}, "features must be a flat list of whole numbers"),
        ({"dtype": "int8"}, r"dtype int8 cannot hold these values; use one of float32, float64 \(others only with bin"),
        ({"dtype": "complex64", "binarize": 1.0}, "dtype complex64 cannot hold these values"),
        ({"dtype": "float31"}, "dtype 'float31' is unknown"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused_before_anything_is_read(
    store: FeatureStore, groups_read: list[int], options: dict[str, Any], said: str
) -> None:
    for read in (store.matrix, store.batches):
        with pytest.raises(StoreError, match=said):
            read("l12_64", **options)
    assert not groups_read


def test_counts_are_exact_in_float64(store: FeatureStore) -> None:
    X = store.matrix("l12_64", "count", dtype=np.float64).X
    assert X.dtype == np.float64 and np.array_equal(X.toarray(), dense(store, "count"))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([], []), ([False], []), ([True], [(0, 1)]), ([1, 1, 0, 1, 0, 1], [(0, 2), (3, 4), (5, 6)])],
)
def test_runs_are_where_a_mask_is_true(mask: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(runs(np.array(mask, dtype=bool))) == expected
