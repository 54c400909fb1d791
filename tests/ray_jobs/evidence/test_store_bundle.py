"""The bundle that a store names: found, built again, or missed by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import BundleError
from ray_jobs.evidence.store_bundle import store_bundle
from tests.ray_jobs.evidence.stores import extracted
from tests.ray_jobs.jobs import write_corpus, write_models
from tests.tiny import tiny_gemma2


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A store whose models and cache are the test's own."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    corpus = write_corpus(tmp_path / "c.jsonl", 12)
    return extracted(write_models(tmp_path / "models"), corpus, tmp_path / "store")


def test_the_bundle_in_the_cache_is_found_without_its_model(own: FeatureStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "models")
    assert store_bundle(own.plan, own.uri).sha256 == own.plan.identity["bundle"]


def test_a_bundle_that_is_gone_is_built_again(own: FeatureStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")
    said: list[str] = []
    assert store_bundle(own.plan, own.uri, said.append).sha256 == own.plan.identity["bundle"]
    assert any("loading SAE" in line for line in said)


def test_what_is_missing_to_build_it_is_named(own: FeatureStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(BundleError, match=r"is no longer on this machine and cannot be built again: .*tiny-gemma2"):
        store_bundle(own.plan, own.uri)


def test_another_model_in_the_same_place_is_not_taken_for_it(own: FeatureStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")
    tiny_gemma2(tmp_path / "models", seed=7)
    with pytest.raises(BundleError, match=r"its model and SAEs give another one now \(sha256"):
        store_bundle(own.plan, own.uri)
