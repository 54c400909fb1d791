"""Calibrating runs the real engine on the job's own sample in processes of its own, and what it found is remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.errors import CorpusError
from ray_jobs.planning.calibrate import calibrate
from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.job_plan import make_plan
from tests.ray_jobs.jobs import make_job, write_corpus, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield write_models(directory)


@pytest.mark.slow
def test_the_measured_rate_is_remembered_and_prices_the_plan(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 40)
    plan = make_plan(make_job(models, corpus, tmp_path / "store"))
    before = dict(os.environ)
    lines: list[str] = []
    measured = calibrate(plan, lines.append)
    assert dict(os.environ) == before
    assert measured.workers == 1
    assert measured.documents >= 32
    assert measured.tokens_per_second > 0
    assert "1 x 1 threads on 40 sampled documents" in lines[0]
    figures = estimate(plan)
    assert figures.tokens_per_second == measured.tokens_per_second
    assert figures.worker_hours is not None
    assert not (tmp_path / "store").exists()


def test_a_corpus_without_text_cannot_be_measured_with(models: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"id": "a", "text": " ", "label": 0}\n', encoding="utf-8")
    with pytest.raises(CorpusError, match="no document with text"):
        calibrate(make_plan(make_job(models, corpus, tmp_path / "store")))


@pytest.mark.slow
def test_what_a_worker_cannot_open_is_raised_and_nobody_waits(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 40)
    plan = make_plan(make_job(models, corpus, tmp_path / "store", workers={"max": 2}))
    weights = plan.bundle.path / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:1000])
        with pytest.raises(Exception, match=r"(?i)header|safetensor|incomplete"):
            calibrate(plan)
    finally:
        weights.write_bytes(whole)
