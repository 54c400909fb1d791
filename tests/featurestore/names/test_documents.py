"""Names are made from documents in which their feature fires, and from the same others for all features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore.names.documents import OTHERS, RANDOM, STRONGEST, name_documents
from featurestore.reader import FeatureStore
from tests.featurestore.stores import write_store

SAE = "l12_64"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root: Path = tmp_path_factory.mktemp("documents")
    write_store(root, (400, 600))
    return FeatureStore.open(str(root))


def test_a_feature_has_its_own_documents_and_the_others(store: FeatureStore) -> None:
    firing, told = name_documents(store, SAE, [5, 6])
    fires = store.matrix(SAE, features=[5, 6]).X.toarray() > 0
    n_tokens = store.documents().collect()["n_tokens"].to_numpy()
    for at, feature in enumerate((5, 6)):
        rows = [row for row, about in told.items() if feature in about]
        own = {*firing[feature].strongest.tolist(), *firing[feature].random.tolist()}
        assert len(own) == STRONGEST + RANDOM and fires[list(own), at].all()
        assert own <= set(rows) and len(rows) <= STRONGEST + RANDOM + OTHERS
    assert sum(about == [5, 6] for about in told.values()) >= OTHERS
    assert list(told) == sorted(told) and (n_tokens[list(told)] > 0).all()


def test_the_documents_of_a_feature_do_not_depend_on_its_company(store: FeatureStore) -> None:
    alone = set(name_documents(store, SAE, [5])[1])
    assert alone == {row for row, about in name_documents(store, SAE, [1, 5, 9])[1].items() if 5 in about}


def test_only_documents_that_count_are_chosen(store: FeatureStore) -> None:
    rows = np.arange(len(store)) % 2 == 0
    assert all(row % 2 == 0 for row in name_documents(store, SAE, [5, 6], rows)[1])
