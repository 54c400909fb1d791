"""Row i of every aligned store is the same document, whatever the order, units and gaps of the stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from featurestore.aligned import align
from featurestore.errors import StoreError
from featurestore.format.rows import PartRows
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, finish_store, write_part
from tests.featurestore.stores import plan_of, random_rows

SMALL = StoreSchema((), (SaeColumns("l12_16", 16, ("max", "sum")),), (DenseColumn("small__hidden_mean", 2),))
LARGE = StoreSchema((), (SaeColumns("l20_32", 32, ("max",)),), (DenseColumn("large__hidden_mean", 4),))


def store_of(
    root: Path, schema: StoreSchema, ids: list[str], sizes: list[int], seed: int, **identity: object
) -> FeatureStore:
    """A store of random rows whose documents have these ids."""
    plan = plan_of(sizes, schema, **identity)
    create_store(str(root), plan)
    records, first = [], 0
    for unit, size in enumerate(sizes):
        rows: PartRows = replace(random_rows(schema, size, seed + unit), doc_id=ids[first : first + size])
        records.append(write_part(str(root), plan, unit, rows))
        first += size
    finish_store(str(root), records)
    return FeatureStore.open(str(root))


IDS = [f"d{i}" for i in range(9)]
SHUFFLED = [IDS[i] for i in (4, 0, 8, 1, 7, 2, 3, 6, 5)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return store_of(tmp_path_factory.mktemp("small"), SMALL, IDS, [4, 5], 0)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return store_of(tmp_path_factory.mktemp("large"), LARGE, SHUFFLED, [2, 3, 4], 50)


def by_id(store: FeatureStore, sae: str, pool: str = "max") -> dict[str, np.ndarray]:
    X, doc_id = store.matrix(sae, pool)
    return dict(zip(doc_id.tolist(), X.toarray(), strict=True))


def test_rows_of_two_stores_are_the_same_documents(small: FeatureStore, large: FeatureStore) -> None:
    both = align({"2b": small, "9b": large})
    assert both.doc_id.tolist() == IDS and both.reports["9b"].same
    for name, sae, pool in (("2b", None, "sum"), ("9b", "l20_32", "max")):
        X, doc_id = both.matrix(name, sae, pool)
        rows = by_id(both.stores[name], sae or "l12_16", pool)
        assert doc_id.tolist() == IDS and np.array_equal(X.toarray(), [rows[key] for key in IDS])


def test_features_of_two_stores_stand_side_by_side(small: FeatureStore, large: FeatureStore) -> None:
    both = align({"2b": small, "9b": large})
    joined = both.concatenated([("2b", None, "max"), ("9b", None, "max"), ("2b", None, "mean")])
    assert joined.start.tolist() == [0, 16, 48, 64] and joined.X.shape == (9, 64) and sp.issparse(joined.X)
    first, second = by_id(small, "l12_16"), by_id(large, "l20_32")
    third = by_id(small, "l12_16", "mean")
    expected = [np.concatenate([first[key], second[key], third[key]]) for key in IDS]
    assert np.array_equal(joined.X.toarray(), expected)
    assert joined.X.has_sorted_indices


def test_dense_vectors_are_aligned_too(small: FeatureStore, large: FeatureStore) -> None:
    both = align({"2b": small, "9b": large})
    vectors = dict(zip(SHUFFLED, large.dense("large__hidden_mean"), strict=True))
    expected = np.array([vectors[key] for key in IDS])
    assert np.array_equal(both.dense("9b", "large__hidden_mean"), expected, equal_nan=True)


def test_options_of_matrix_hold_for_aligned_stores(small: FeatureStore, large: FeatureStore) -> None:
    both = align({"2b": small, "9b": large})
    X = both.matrix("9b", binarize=1.0, features=[30, 2], dtype=bool).X
    assert np.array_equal(X.toarray(), both.matrix("9b").X.toarray()[:, [30, 2]] > 1)


def test_missing_and_extra_ids_are_reported_and_refused(small: FeatureStore, tmp_path: Path) -> None:
    other = store_of(tmp_path, LARGE, ["d8", "new", "d1", "d3"], [4], 7)
    with pytest.raises(
        StoreError, match=r"has 6 missing \('d0', \.\.\.\) and 1 extra \('new'\); align with common=True"
    ):
        align({"2b": small, "9b": other})
    both = align({"2b": small, "9b": other}, common=True)
    assert both.doc_id.tolist() == ["d1", "d3", "d8"]
    assert both.reports["9b"].missing.tolist() == ["d0", "d2", "d4", "d5", "d6", "d7"]
    assert both.reports["9b"].extra.tolist() == ["new"] and both.reports["2b"].same
    for name, sae in (("2b", "l12_16"), ("9b", "l20_32")):
        rows = by_id(both.stores[name], sae)
        assert np.array_equal(both.matrix(name).X.toarray(), [rows[key] for key in both.doc_id])
    assert both.concatenated([("2b", None, "max"), ("9b", None, "max")]).X.shape == (3, 48)


def test_a_partial_store_aligns_with_what_it_has(small: FeatureStore, tmp_path: Path) -> None:
    store_of(tmp_path, LARGE, SHUFFLED, [2, 3, 4], 50)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "parts/part-000000.parquet").unlink()
    both = align({"2b": small, "9b": FeatureStore.open(str(tmp_path), partial=True)}, common=True)
    assert both.reports["9b"].missing.tolist() == ["d0", "d4"] and len(both.doc_id) == 7


def test_stores_without_a_common_document_are_refused(small: FeatureStore, tmp_path: Path) -> None:
    other = store_of(tmp_path, LARGE, ["x", "y"], [2], 7)
    with pytest.raises(StoreError, match="have no document in common"):
        align({"2b": small, "9b": other}, common=True)


def test_a_store_that_was_not_given_is_named(small: FeatureStore) -> None:
    with pytest.raises(StoreError, match="no store is called '9b' here; there are: 2b"):
        align({"2b": small}).matrix("9b")
    with pytest.raises(StoreError, match="give at least one store"):
        align({})


def test_encoders_are_the_same_by_their_hash_and_not_by_their_name(tmp_path: Path) -> None:
    def saying(name: str, **saes: object) -> FeatureStore:
        return store_of(tmp_path / name, SMALL, IDS, [9], 0, saes={key: {"sha256": sha} for key, sha in saes.items()})

    aligned = align({"a": saying("a", l12_16="aa"), "b": saying("b", l12_16="aa"), "c": saying("c", l12_16="cc"),
                     "old": saying("old")})  # fmt: skip
    assert aligned.stores["a"].encoders == {"l12_16": "aa"}
    assert aligned.same_encoder(("a", "l12_16"), ("b", "l12_16")) is True
    assert aligned.same_encoder(("a", "l12_16"), ("c", "l12_16")) is False
    assert aligned.same_encoder(("a", "l12_16"), ("old", "l12_16")) is None
    with pytest.raises(StoreError):
        aligned.same_encoder(("a", "nope"), ("b", "l12_16"))
