"""Looking at one document or one feature gives what the matrix says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.index.lookup import document_view, feature_view
from featurestore.reader import FeatureStore
from tests.featurestore.stores import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root: Path = tmp_path_factory.mktemp("views")
    write_store(root, (7, 5, 9))
    return FeatureStore.open(str(root))


def test_a_documents_features_come_strongest_first(store: FeatureStore) -> None:
    X, doc_id = store.matrix("l12_64", "max")
    row = int(np.argmax(np.diff(X.indptr)))
    view = document_view(store, doc_id[row], top=3, sae="l12_64")
    expected = X[row].toarray()[0]
    assert view.metadata["doc_id"] == doc_id[row]
    assert view.n_features == {"l12_64": X[row].nnz}
    assert [f.feature for f in view.top["l12_64"]] == np.argsort(-expected, kind="stable")[:3].tolist()
    assert [f.values["max"] for f in view.top["l12_64"]] == np.sort(expected)[::-1][:3].tolist()
    assert set(view.top["l12_64"][0].values) == {"max", "sum", "count", "last", "top2"}


def test_a_document_of_a_later_part_shows_all_saes(store: FeatureStore) -> None:
    assert set(document_view(store, "u2-3", top=1).top) == {"l12_64", "l9_8"}


def test_an_unknown_document_is_named(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="no document 'nobody'"):
        document_view(store, "nobody", top=1)


@pytest.mark.parametrize("pool", [None, "sum", "mean"])
def test_a_features_documents_come_largest_first(store: FeatureStore, pool: str | None) -> None:
    X, doc_id = store.matrix("l12_64", pool or "max")
    feature = int(np.argmax(np.asarray((X > 0).sum(axis=0))))
    column = X[:, feature].toarray()[:, 0]
    order = np.argsort(-column, kind="stable")[:4]
    view = feature_view(store, feature, top=4, sae="l12_64", pool=pool)
    assert view.n_documents == np.count_nonzero(column)
    assert [document["doc_id"] for document in view.top] == doc_id[order].tolist()
    assert [document["value"] for document in view.top] == column[order].tolist()


@pytest.mark.parametrize("feature", [-1, 64])
def test_a_feature_that_the_sae_does_not_have_is_refused(store: FeatureStore, feature: int) -> None:
    with pytest.raises(StoreError, match=r"'l12_64' has no feature .* 0 to 63"):
        feature_view(store, feature, top=1, sae="l12_64")
