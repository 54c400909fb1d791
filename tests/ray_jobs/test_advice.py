"""Warnings of a plan: each appears when it should, says what to do, and no warning appears for a sound job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs.advice import MANY_FILES, warnings_of
from ray_jobs.plan import JobPlan, make_plan
from ray_jobs.pricing import estimate
from tests.ray_jobs.jobs import make_job, write_corpus, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        write_corpus(directory / "c.jsonl", 60, max_words=8)
        yield write_models(directory)


def warned(plan: JobPlan) -> tuple[str, ...]:
    return warnings_of(plan, estimate(plan))


def test_a_sound_job_gets_no_warning(models: Path, tmp_path: Path) -> None:
    assert warned(make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))) == ()


def test_documents_that_will_be_cut_are_counted(models: Path, tmp_path: Path) -> None:
    (sentence,) = warned(make_plan(make_job(models, models / "c.jsonl", tmp_path / "store", model={"max_tokens": 8})))
    assert "of the sample exceeds 8 and is cut" in sentence
    assert "long_documents: windows" in sentence


def test_a_corpus_of_very_many_tiny_files_is_named(models: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for n in range(MANY_FILES):
        line = json.dumps({"id": f"f{n}", "text": "river bread", "label": 0})
        (tmp_path / "corpus" / f"{n}.jsonl").write_text(f"{line}\n", encoding="utf-8")
    job = make_job(models, tmp_path / "corpus", tmp_path / "store", units={"documents": 500})
    (sentence,) = warned(make_plan(job))
    assert "1,000 files of 0.0 kB" in sentence or "1,000 files of 0.1 kB" in sentence
    assert "join them" in sentence


def test_a_store_that_would_not_fit_on_its_disk_is_refused_no_start_but_said(models: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))
    huge = replace(estimate(plan), bytes_out=10**18)
    (sentence,) = warnings_of(plan, huge)
    assert "1,000,000,000.0 GB" in sentence
    assert f"{tmp_path} has" in sentence
    parts_there = replace(plan, committed={0: 10**18})
    assert warnings_of(parts_there, huge) == ()


def test_more_workers_than_units_are_pointed_out(models: Path, tmp_path: Path) -> None:
    (sentence,) = warned(make_plan(make_job(models, models / "c.jsonl", tmp_path / "store", workers={"max": 8})))
    assert "workers.max is 8, but there are only 3 units" in sentence
