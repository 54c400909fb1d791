"""Warnings of a plan: each appears when it should, says what to do, and no warning appears for a sound job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.planning.warnings import MANY_FILES, warnings_of
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
    assert re.search(r"1,000 files of [45]\d bytes on average", sentence)
    assert "join them" in sentence


def test_a_store_that_would_not_fit_on_its_disk_is_refused_no_start_but_said(models: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))
    huge = replace(estimate(plan), bytes_out=10**18)
    (sentence,) = warnings_of(plan, huge)
    assert "1,000,000.0 TB" in sentence
    assert f"{tmp_path} has" in sentence
    parts_there = replace(plan, committed={0: 10**18})
    assert warnings_of(parts_there, huge) == ()


def test_more_workers_than_units_are_pointed_out(models: Path, tmp_path: Path) -> None:
    (sentence,) = warned(make_plan(make_job(models, models / "c.jsonl", tmp_path / "store", workers={"max": 8})))
    assert "workers.max is 8, but there are only 3 units" in sentence


def test_a_bundle_that_does_not_fit_into_the_memory_of_the_device_is_said(models: Path, tmp_path: Path) -> None:
    rates = tmp_path / "rates.yaml"
    rates.write_text(
        "hardware:\n"
        "  tiny: {device: gpu, gflop_per_second: 9, per_hour: 1, memory_gb: 1.6}\n"
        "  room: {device: gpu, gflop_per_second: 9, per_hour: 1, memory_gb: 24}\n",
        encoding="utf-8",
    )

    def on(kind: str, **workers: float) -> tuple[str, ...]:
        job = make_job(models, models / "c.jsonl", tmp_path / "store", workers=workers, model={"dtype": None})
        job = job if workers else job.model_copy(update={"workers": job.workers.model_copy(update={"gpus": None})})
        plan = make_plan(job, device="cuda")
        big = replace(plan, bundle=replace(plan.bundle, path=whale))
        return warnings_of(big, estimate(plan, hardware=kind, rates_file=str(rates)))

    whale = tmp_path / "whale"
    whale.mkdir()
    plan = make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))
    for name in plan.bundle.files:  # 3 GB that take no room on the disk
        with (whale / name).open("wb") as file:
            file.truncate(3_000_000_000 // len(plan.bundle.files))
    (sentence,) = on("tiny")
    assert re.search(r"the bundle is 3\.0 GB and one tiny has 1\.6 GB of memory, so it does not fit", sentence)
    assert on("room") == ()
    (sentence,) = on("room", gpus=0.125)
    assert "one room has 24.0 GB of memory, of which a worker gets 0.125 (workers.gpus)" in sentence


def test_a_bundle_larger_than_this_machines_memory_is_said(models: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))
    for name in plan.bundle.files:
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**43)
    (sentence,) = warnings_of(replace(plan, bundle=replace(plan.bundle, path=tmp_path)), estimate(plan))
    assert "TB and this machine has" in sentence
