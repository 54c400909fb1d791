"""Strongest and random firing documents are those that the matrix says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.index.firing import firing_documents
from featurestore.reader import FeatureStore
from tests.featurestore.stores import write_store

SAE = "l12_64"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root: Path = tmp_path_factory.mktemp("firing")
    write_store(root, (70, 50, 90))
    return FeatureStore.open(str(root))


def test_the_strongest_are_the_largest_and_the_random_are_others_that_fire(store: FeatureStore) -> None:
    X = store.matrix(SAE, "max").X.toarray()
    found = firing_documents(store, SAE, [5, 63, 0], strongest=4, random=6)
    assert list(found) == [5, 63, 0]
    for feature, firing in found.items():
        column = X[:, feature]
        assert firing.strongest.tolist() == np.argsort(-column, kind="stable")[:4].tolist()
        assert firing.n_documents == int((column > 0).sum())
        assert len(firing.random) == min(6, firing.n_documents - 4) == len(set(firing.random.tolist()))
        assert (column[firing.random] > 0).all() and not set(firing.random) & set(firing.strongest)


def test_only_documents_that_count_are_found(store: FeatureStore) -> None:
    rows = np.arange(len(store)) % 3 == 1
    column = np.where(rows, store.matrix(SAE, "max").X.toarray()[:, 7], 0)
    firing = firing_documents(store, SAE, [7], 3, 100, rows)[7]
    assert firing.strongest.tolist() == np.argsort(-column, kind="stable")[:3].tolist()
    assert sorted([*firing.strongest, *firing.random]) == np.flatnonzero(column).tolist()


def test_the_draw_is_the_same_again_and_for_any_company(store: FeatureStore) -> None:
    alone = firing_documents(store, SAE, [9], 2, 5)[9].random.tolist()
    assert firing_documents(store, SAE, [1, 9, 30], 2, 5)[9].random.tolist() == alone
    assert firing_documents(store, SAE, [9], 2, 5, seed=1)[9].random.tolist() != alone


def test_every_firing_document_is_as_likely_as_another(store: FeatureStore) -> None:
    feature, draws = 9, 150
    n = firing_documents(store, SAE, [feature], 1, 1)[feature].n_documents - 1  # without the strongest
    times = np.zeros(len(store), np.int64)
    for seed in range(draws):
        times[firing_documents(store, SAE, [feature], 1, 5, seed=seed)[feature].random] += 1
    hit, expected = times[times > 0], draws * 5 / n
    assert len(hit) == n
    # Chi-squared with n - 1 degrees of freedom: its mean and five standard deviations.
    assert ((hit - expected) ** 2 / expected).sum() < n - 1 + 5 * np.sqrt(2 * (n - 1))


def test_a_feature_that_never_fires_has_no_documents(store: FeatureStore) -> None:
    nothing = firing_documents(store, SAE, [3], 4, 4, np.zeros(len(store), dtype=bool))[3]
    assert (nothing.strongest.tolist(), nothing.random.tolist(), nothing.n_documents) == ([], [], 0)


def test_a_feature_that_there_is_not_is_named(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="64"):
        firing_documents(store, SAE, [64], 1, 1)
