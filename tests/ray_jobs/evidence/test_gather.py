"""All evidence of a study: computed once, kept beside it, and there again without model or corpus."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.evidence.cache import EvidenceCache
from ray_jobs.evidence.gather import gather_evidence
from tests.ray_jobs.evidence.stores import extracted
from tests.ray_jobs.jobs import write_corpus, write_models

WANTED = {"d3": [("tiny", 1), ("tiny", 40)], "d1": [("tiny", 40)]}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A store whose models and cache are the test's own."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    corpus = write_corpus(tmp_path / "c.jsonl", 12)
    return extracted(write_models(tmp_path / "models"), corpus, tmp_path / "store")


def remove_sources(tmp_path: Path) -> None:
    for name in ("cache", "models"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "c.jsonl").unlink()


def test_what_was_gathered_is_there_again_without_model_or_corpus(own: FeatureStore, tmp_path: Path) -> None:
    first = gather_evidence(own.uri, WANTED, EvidenceCache(tmp_path / "evidence"))
    assert list(first) == ["d3", "d1"]
    assert all(document.problem is None for document in first.values())
    assert [(one.sae, one.feature) for one in first["d3"].features] == WANTED["d3"]
    remove_sources(tmp_path)
    again = EvidenceCache(tmp_path / "evidence")
    assert gather_evidence(own.uri, WANTED, again) == first
    found = again.find("d3", "tiny", 40)
    assert found is not None and found.tokens == first["d3"].tokens


def test_only_what_is_missing_is_computed(own: FeatureStore, tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path / "evidence")
    first = gather_evidence(own.uri, WANTED, cache)
    remove_sources(tmp_path)
    more = gather_evidence(own.uri, {**WANTED, "d5": [("tiny", 1)], "d1": [("tiny", 2)]}, cache)
    assert more["d3"] == first["d3"]
    for doc_id in ("d5", "d1"):
        assert more[doc_id].tokens == ()
        assert "cannot be shown" in str(more[doc_id].problem) and "c.jsonl" in str(more[doc_id].problem)


def test_a_bundle_that_is_gone_is_a_problem_of_each_document(own: FeatureStore, tmp_path: Path) -> None:
    for name in ("cache", "models"):
        shutil.rmtree(tmp_path / name)
    found = gather_evidence(own.uri, WANTED, EvidenceCache(tmp_path / "evidence"))
    assert all("cannot be built again" in str(document.problem) for document in found.values())
    assert not (tmp_path / "evidence").exists()


def test_a_private_study_gets_evidence_and_keeps_none(own: FeatureStore, tmp_path: Path) -> None:
    found = gather_evidence(own.uri, WANTED, EvidenceCache(tmp_path / "evidence", private=True))
    assert all(document.tokens for document in found.values())
    assert not (tmp_path / "evidence").exists()


def test_gathering_again_gives_the_same_bytes(own: FeatureStore, tmp_path: Path) -> None:
    for place in ("a", "b"):
        gather_evidence(own.uri, WANTED, EvidenceCache(tmp_path / place))
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / place).iterdir()} for place in ("a", "b"))
    assert one == other and len(one) == 2
