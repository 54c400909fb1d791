"""The benchmarks of reading: the synthetic store is a store, and every step reads what is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import big_store
from benchmarks.read_stages import measure
from benchmarks.synthetic_store import SAE, make_store
from featurestore import FeatureStore


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "store"
    make_store(folder, documents=90, features=600, d_sae=6_000, unit=40)
    return folder


def test_the_synthetic_store_keeps_every_promise_of_the_format(root: Path) -> None:
    store = FeatureStore.open(str(root))
    assert store.verify().problems == () and len(store) == 90 and len(store.units) == 3
    X = store.matrix().X
    assert 500 < X.nnz / 90 < 700
    often = np.sort((X > 0).mean(axis=0).A1)
    assert often[-60:].mean() > 0.8 and np.median(often) < 0.1  # a few fire nearly everywhere, most rarely


def test_the_same_arguments_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "again", documents=90, features=600, d_sae=6_000, unit=40, processes=1)
    for part in (root / "parts").iterdir():
        assert part.read_bytes() == (tmp_path / "again" / "parts" / part.name).read_bytes()


def test_every_step_counts_the_same(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    store = FeatureStore.open(str(root))
    nnz = store.matrix().X.nnz
    found = {name: step(store) for name, step in big_store.STEPS.items()}
    assert all(found[name]["nnz"] == nnz for name in ("batches", "matrix_one_core", "statistics_with_classes"))
    assert found["matrix_5000_features_of_a_tenth"]["rows"] == 9 and found["take_20_ids"]["rows"] == 20
    assert found["statistics_with_classes"]["classes"] == 4 and found["index"]["index_bytes"] > 0
    assert big_store._show(root, 0) > 0  # answers from the index of this cache, or raises


def test_every_stage_of_reading_is_measured(root: Path) -> None:
    stages = measure(str(root))
    assert stages["the whole, through FeatureStore.matrix"] > 0 and len(stages) == 14
    assert FeatureStore.open(str(root)).schema.saes[0].name == SAE
