"""Near-copies by encoder rows: found in the weights, kept beside a study, and read again without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from featurestore import FeatureStore
from featurestore.evidence.alike_file import read_alike, write_alike
from featurestore.evidence.cache import source
from ray_jobs.evidence import alike
from ray_jobs.evidence.alike import alike_features, gather_alike
from ray_jobs.evidence.store_bundle import store_bundle


def test_the_features_that_are_named_are_those_with_the_nearest_rows(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = store_bundle(store.plan, store.uri)
    W_FD = load_file(bundle.path / bundle.saes[0].file_name)["W_enc"].float().numpy()
    unit_FD = W_FD / np.linalg.norm(W_FD, axis=1, keepdims=True)
    monkeypatch.setattr(alike, "NEARLY", 0.3)  # rows of a tiny SAE are random
    monkeypatch.setattr(alike, "BLOCK_ROWS", 40)
    found = alike_features(bundle, {"tiny": [3, 41, 95]})["tiny"]
    assert any(found.values())
    for f, near in found.items():
        cosine_F = unit_FD @ unit_FD[f]
        cosine_F[f] = -1
        expected = [int(i) for i in np.argsort(-cosine_F) if cosine_F[i] >= 0.3][: alike.MOST]
        assert [other for other, _ in near] == expected
        assert [c for _, c in near] == pytest.approx(cosine_F[expected], abs=1e-3)


def test_what_was_found_is_kept_and_read_without_a_bundle(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tmp_path / "evidence")
    first = gather_alike(store.uri, {"tiny": [3]}, directory)
    both = gather_alike(store.uri, {"tiny": [3, 41]}, directory)
    assert set(both["tiny"]) == {3, 41} and both["tiny"][3] == first["tiny"][3]
    monkeypatch.setattr("ray_jobs.evidence.store_bundle.store_bundle", None)  # nothing is computed again
    assert gather_alike(store.uri, {"tiny": [41]}, directory) == both


def test_a_damaged_file_and_one_of_another_source_count_as_missing(store: FeatureStore, tmp_path: Path) -> None:
    origin = source(store.plan.identity)
    write_alike(tmp_path, origin, {"tiny": {1: [(2, 0.95)]}})
    assert read_alike(tmp_path, origin) == read_alike(tmp_path, None) == {"tiny": {1: [(2, 0.95)]}}
    assert read_alike(tmp_path, "0" * 64) == {}
    for text in ("", "[]", "{}", '{"format": "sparsemill.alike", "version": 1, "source": null, "saes": 3}'):
        next(tmp_path.glob("alike-*.json")).write_text(text)
        assert read_alike(tmp_path, origin) == read_alike(tmp_path, None) == {}
