"""The index says what the matrix says, and an index that is stale, foreign or wrong is never believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import StoreError
from featurestore.index import feature_index as index
from featurestore.index.feature_index import Strongest, build_index, entry_of, index_path, keep_index, read_entry
from featurestore.index.lookup import feature_view
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, finish_store, write_part
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    write_store(tmp_path / "store", (20, 11, 20))
    return FeatureStore.open(str(tmp_path / "store"))


def column(store: FeatureStore, feature: int, pool: str = "max") -> np.ndarray:
    return np.asarray(store.matrix("l12_64", pool).X[:, [feature]].toarray()[:, 0])


@pytest.mark.parametrize("pool", ["max", "last", "mean"])
def test_every_feature_of_the_index_is_that_of_the_matrix(store: FeatureStore, pool: str) -> None:
    keep_index(store, "l12_64", pool, build_index(store, "l12_64", pool))
    for feature in range(64):
        entry, values = read_entry(store, "l12_64", pool, feature), column(store, feature, pool)
        assert entry is not None
        order = np.argsort(-values, kind="stable")[: np.count_nonzero(values)]
        assert entry.row.tolist() == order.tolist() and entry.value.tolist() == values[order].tolist()
        assert entry.document_frequency == np.count_nonzero(values) and entry.maximum == values.max()
        np.testing.assert_allclose(entry.mean, values.mean(dtype=float), rtol=1e-13)
        np.testing.assert_allclose(entry.second_moment, (values.astype(float) ** 2).mean(), rtol=1e-13)


@settings(max_examples=60)
@given(data=st.data())
def test_the_strongest_are_the_first_of_a_stable_sort(data: st.DataObject) -> None:
    n, d, k = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    X = np.array(data.draw(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=n * d, max_size=n * d)), np.float32)
    X = X.reshape(n, d)
    strongest, merge_often = Strongest(d, k), data.draw(st.booleans())
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        rows, columns = np.nonzero(X[start:stop])
        indptr = np.searchsorted(rows, np.arange(stop - start + 1))
        strongest.add(indptr, columns.astype(np.int32), X[start:stop][rows, columns], start)
        if merge_often:
            strongest.result()
    offsets, row, value = strongest.result()
    for feature in range(d):
        order = np.argsort(-X[:, feature], kind="stable")[: min(k, np.count_nonzero(X[:, feature]))]
        span = slice(offsets[feature], offsets[feature + 1])
        assert row[span].tolist() == order.tolist() and value[span].tolist() == X[order, feature].tolist()


def test_the_first_question_builds_the_index_and_the_second_reads_it(store: FeatureStore, cache: Path) -> None:
    told: list[int] = []
    first = feature_view(store, 7, 3, "l12_64", before_indexing=lambda: told.append(1))
    second = feature_view(store, 8, 3, "l12_64", before_indexing=lambda: told.append(2))
    assert (first.source, second.source, told) == ("new index", "index", [1])
    assert [path.name for path in (cache / "index").iterdir()] == [index_path(store, "l12_64", "max").name]
    assert second.top == feature_view(store, 8, 3, "l12_64").top


def test_nothing_is_written_into_the_store(store: FeatureStore) -> None:
    before = sorted(Path(store.uri).rglob("*"))
    feature_view(store, 7, 3, "l12_64")
    assert sorted(Path(store.uri).rglob("*")) == before and store.verify().ok


def test_a_store_that_changed_finds_no_index(store: FeatureStore, tmp_path: Path) -> None:
    feature_view(store, 7, 3, "l12_64")
    other = tmp_path / "other"
    plan = plan_of((20, 11, 20), SCHEMA)
    create_store(str(other), plan)  # the same job, and so the same fingerprint, with other values
    parts = [random_rows(SCHEMA, size, 90 + unit, f"u{unit}") for unit, size in enumerate((20, 11, 20))]
    finish_store(str(other), [write_part(str(other), plan, unit, rows) for unit, rows in enumerate(parts)])
    changed = FeatureStore.open(str(other))
    assert changed.fingerprint == store.fingerprint and changed.contents_key() != store.contents_key()
    assert feature_view(changed, 7, 3, "l12_64").source == "new index"


def replace_index(store: FeatureStore, table: pa.Table, **metadata: str) -> None:
    path = index_path(store, "l12_64", "max")
    named = {"sparsemill.index_version": "1", "sparsemill.contents": store.contents_key()} | metadata
    pq.write_table(table.replace_schema_metadata(named), path, row_group_size=1024)


@pytest.mark.parametrize("spoil", ["truncated", "empty", "version", "contents", "columns", "rows", "of_another_store"])
def test_an_index_that_cannot_be_right_is_built_anew(store: FeatureStore, tmp_path: Path, spoil: str) -> None:
    expected = feature_view(store, 7, 3, "l12_64")
    path = index_path(store, "l12_64", "max")
    table = pq.read_table(path)
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "version":
        replace_index(store, table, **{"sparsemill.index_version": "0"})
    elif spoil == "contents":
        replace_index(store, table, **{"sparsemill.contents": "0" * 64})
    elif spoil == "columns":
        replace_index(store, table.drop_columns(["maximum"]))
    elif spoil == "rows":
        replace_index(store, table.slice(0, 63))
    else:
        write_store(tmp_path / "other", (50,))
        other = FeatureStore.open(str(tmp_path / "other"))
        replace_index(store, build_index(other, "l12_64", "max"))
    again = feature_view(store, 7, 3, "l12_64")
    assert again.source == "new index" and again.top == expected.top
    assert feature_view(store, 7, 3, "l12_64").source == "index"


@pytest.mark.parametrize(
    "spoilt",
    [
        {"row": [51, 3]},  # no such row
        {"row": [-1, 3]},
        {"row": [3, 3]},
        {"row": [3]},
        {"value": [1.0, 2.0], "maximum": 1.0},  # not falling
        {"value": [float("inf"), 2.0], "maximum": float("inf")},
        {"value": [float("nan"), 2.0]},
        {"maximum": 9.0},
        {"document_frequency": 1},
        {"document_frequency": 52},
    ],
)
def test_an_entry_that_makes_no_sense_is_none(spoilt: dict) -> None:
    sound = {
        "document_frequency": 2,
        "mean": 0.1,
        "second_moment": 0.3,
        "maximum": 2.0,
        "row": [4, 3],
        "value": [2.0, 1.0],
    }
    table = [pa.Table.from_pylist([row], schema=index._SCHEMA) for row in (sound, sound | spoilt)]
    assert entry_of(table[0], 0, 51) is not None and entry_of(table[1], 0, 51) is None


def test_an_index_that_disagrees_with_the_part_is_built_anew(store: FeatureStore) -> None:
    expected = feature_view(store, 7, 3, "l12_64")
    rows = pq.read_table(index_path(store, "l12_64", "max")).to_pylist()
    rows[7]["value"] = [value * 2 for value in rows[7]["value"]]
    rows[7]["maximum"] *= 2
    replace_index(store, pa.Table.from_pylist(rows, schema=index._SCHEMA))
    assert read_entry(store, "l12_64", "max", 7) is not None  # nothing in the file itself gives it away
    again = feature_view(store, 7, 3, "l12_64")
    assert again.source == "new index" and again.top == expected.top


def test_more_documents_than_the_index_holds_are_found_by_a_scan(store: FeatureStore) -> None:
    view = feature_view(store, 7, 101, "l12_64", "sum")
    values = column(store, 7, "sum")
    order = np.argsort(-values, kind="stable")[: np.count_nonzero(values)]
    assert view.source == "scan" and [document["row"] for document in view.top] == order.tolist()
    assert view.n_documents == len(order) and view.maximum == values.max()
    np.testing.assert_allclose(view.mean, values.mean(dtype=float), rtol=1e-13)


def test_an_incomplete_store_is_scanned_and_gets_no_index(store: FeatureStore, cache: Path) -> None:
    (Path(store.uri) / "manifest.json").unlink()
    partial = FeatureStore.open(store.uri, partial=True)
    assert feature_view(partial, 7, 3, "l12_64").source == "scan" and not cache.exists()
    with pytest.raises(StoreError, match="its contents are not settled"):
        partial.contents_key()


def test_a_cache_that_cannot_be_written_only_costs_time(store: FeatureStore, cache: Path) -> None:
    cache.write_text("in the way")
    expected = feature_view(store, 7, 3, "l12_64")
    assert expected.source == "new index" and feature_view(store, 7, 3, "l12_64") == expected


def test_a_feature_that_never_fires_has_no_documents(tmp_path: Path) -> None:
    write_store(tmp_path / "one", (1,))
    store = FeatureStore.open(str(tmp_path / "one"))
    silent = int(np.flatnonzero(store.statistics("l12_64").document_frequency == 0)[0])
    for source in ("new index", "index"):
        view = feature_view(store, silent, 3, "l12_64")
        assert (view.source, view.n_documents, view.mean, view.maximum, view.top) == (source, 0, 0.0, 0.0, [])


def test_documents_carry_their_metadata(store: FeatureStore) -> None:
    document = feature_view(store, 7, 1, "l12_64").top[0]
    row = store.documents().collect().row(document["row"], named=True)
    assert document["doc_id"] == row.pop("doc_id") and document["metadata"] == row


@pytest.mark.parametrize(("d_sae", "kept"), [(16_384, 100), (131_072, 100), (2**20, 16), (2**31 - 1, 10)])
def test_a_wide_sae_has_fewer_documents_a_feature_in_the_index(d_sae: int, kept: int) -> None:
    assert index.documents_kept(d_sae) == kept
