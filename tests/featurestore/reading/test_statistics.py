"""Streamed statistics are those of the whole matrix in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import StoreError
from featurestore.format import part
from featurestore.reader import FeatureStore
from featurestore.reading.statistics import Accumulator
from tests.featurestore.stores import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root: Path = tmp_path_factory.mktemp("statistics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "ROW_GROUP_BYTES", 1000)
        write_store(root, (20, 11, 20))
    return FeatureStore.open(str(root))


@pytest.mark.parametrize("pool", ["max", "count", "last", "mean"])
def test_statistics_are_those_of_the_matrix(store: FeatureStore, pool: str) -> None:
    X = store.matrix("l12_64", pool).X.toarray().astype(np.float64)
    found = store.statistics("l12_64", pool)
    assert found.n_documents == 51 and found.classes == ()
    assert np.array_equal(found.document_frequency, (X > 0).sum(axis=0))
    assert np.array_equal(found.maximum, X.max(axis=0))
    # the same float64 sums in another order: a few units in the last place
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.second_moment, (X**2).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.variance, X.var(axis=0), rtol=1e-9, atol=1e-12)


def test_classes_have_their_own_sums_and_null_is_no_class(store: FeatureStore) -> None:
    X = store.matrix("l12_64", "sum").X.toarray().astype(np.float64)
    label = store.documents().collect()["label"].to_numpy()
    found = store.statistics("l12_64", "sum", labels="label")
    assert found.classes == ("größe 0", "größe 1", "größe 2")
    for c, name in enumerate(found.classes):
        rows = X[label == name]
        assert found.class_documents[c] == len(rows)
        assert np.array_equal(found.class_frequency[c], (rows > 0).sum(axis=0))
        np.testing.assert_allclose(found.class_total[c], rows.sum(axis=0), rtol=1e-13)
        np.testing.assert_allclose(found.class_mean[c], rows.mean(axis=0), rtol=1e-13)
    assert found.class_documents.sum() < 51 == found.n_documents


def test_labels_may_be_an_array_and_rows_a_selection(store: FeatureStore) -> None:
    y = np.arange(51) % 2
    rows = pl.col("n_tokens") > 10
    found = store.statistics("l12_64", rows=rows, labels=y)
    X, mask = store.matrix("l12_64").X.toarray(), store.mask(rows)
    assert found.classes == ("0", "1") and found.n_documents == mask.sum()
    for c in (0, 1):
        np.testing.assert_allclose(found.class_total[c], X[mask & (y == c)].sum(axis=0, dtype=float), rtol=1e-13)


def test_nan_is_no_class(store: FeatureStore) -> None:
    y = np.where(np.arange(51) < 30, 1.0, np.nan)
    assert store.statistics("l12_64", labels=y).class_documents.tolist() == [30]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("lang", "labels: .* has no column 'lang'; it has: doc_id, label"),
        (np.arange(3), "labels must be 51 classes, one for each document of "),
        (np.ones((51, 2)), "labels must be 51 classes"),
    ],
)
def test_labels_that_are_not_there_or_do_not_fit_are_refused(store: FeatureStore, labels, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        store.statistics("l12_64", labels=labels)


def test_a_column_of_ids_is_no_column_of_classes(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.reading.statistics._MOST_CLASSES", 50)
    with pytest.raises(StoreError, match="51 different values are no classes; at most 50 are"):
        store.statistics("l12_64", labels="doc_id")


def test_statistics_that_would_not_fit_in_memory_are_refused(store: FeatureStore, monkeypatch) -> None:
    monkeypatch.setattr("featurestore.reading.statistics.MOST_FEATURES", 63)
    with pytest.raises(StoreError, match="statistics of the 64 features of SAE 'l12_64' would not fit in memory"):
        store.statistics("l12_64")


def test_no_selected_document_has_no_mean(store: FeatureStore) -> None:
    found = store.statistics("l12_64", rows=np.zeros(51, dtype=bool))
    assert found.n_documents == 0 and np.isnan(found.mean).all() and not found.document_frequency.any()


@settings(max_examples=40)
@given(data=st.data())
def test_any_cut_into_batches_gives_the_same(data: st.DataObject) -> None:
    n, d = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    cells = data.draw(st.lists(st.sampled_from([0, 0, 0.5, 1, 3]), min_size=n * d, max_size=n * d))
    X = np.array(cells, dtype=np.float32).reshape(n, d)
    y = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    seen = Accumulator(d, ("a", "b", "c"))
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        seen.add(sp.csr_matrix(X[start:stop]), y[start:stop])
    found = seen.result()  # halves and small whole numbers: sums are exact
    assert np.array_equal(found.total, X.sum(axis=0)) and np.array_equal(found.squares, (X**2).sum(axis=0))
    assert np.array_equal(found.maximum, X.max(axis=0))
    assert np.array_equal(found.document_frequency, (X > 0).sum(axis=0))
    assert np.array_equal(found.class_total, [X[y == c].sum(axis=0) for c in range(3)])
    assert np.array_equal(found.class_frequency, [(X[y == c] > 0).sum(axis=0) for c in range(3)])
