"""Warnings of a plan: each appears when it should, says what to do, and no warning appears for a sound job."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.planning.memory import devices_of, memory_of, sentence_of
from ray_jobs.planning.warnings import MANY_FILES, warnings_of
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.jobs import job_mapping, make_job, write_corpus, write_models


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


def test_conversations_without_a_turn_that_counts_are_said(models: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": f"c{n}", "chat": [{"role": "user", "content": f"river {n}"}], "label": 0}) for n in range(20)
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = {}
    for role in ("user", "wizard"):
        model = {"chat": True, "turns": [role]}
        mapping = job_mapping(models, tmp_path / "c.jsonl", tmp_path / "store", model=model)
        mapping["corpus"] = {"path": str(tmp_path / "c.jsonl"), "messages": "chat", "id": "id"}
        found[role] = warned(make_plan(job_from_mapping(mapping, tmp_path)))
    assert found["user"] == ()
    (sentence,) = found["wizard"]
    assert "none of 20 sampled conversations has a token of a turn of 'wizard'" in sentence
    assert sentence.endswith("check model.turns")


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


def whale_of(plan: JobPlan, directory: Path, layer_bytes: int) -> JobPlan:
    """The plan with a bundle whose weights say that each layer has so many bytes; they take no room on the disk."""
    directory.mkdir()
    for name in plan.bundle.files:
        (directory / name).write_bytes((plan.bundle.path / name).read_bytes())
    header, end = {}, 0
    for name in ("embed_tokens.weight", *(f"layers.{layer}.mlp.up_proj.weight" for layer in range(3))):
        start, end = end, end + (layer_bytes if "layers" in name else 8)
        header[name] = {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return replace(plan, bundle=replace(plan.bundle, path=directory))


@pytest.mark.parametrize(
    ("memory_gb", "gpus", "dtype", "said"),
    [
        (24.0, 1, "bfloat16", None),
        (3.51, 1, "bfloat16", "it does with workers.batch_tokens: 8192"),
        (3.5, 1, "float32", "it does with model.dtype: bfloat16"),
        (2.7, 1, "bfloat16", "it does with workers.gpus: 2"),
        (0.6, 1, "bfloat16", "run it on hardware with more"),
        (24.0, 0.125, "bfloat16", "it does with workers.gpus: 0.1667"),
        (24.0, 0.125, "bfloat16", "28.1 GB of it for 8 workers at once"),
    ],
)
def test_what_fits_is_said_where_a_worker_does_not(
    models: Path, tmp_path: Path, memory_gb: float, gpus: float, dtype: str, said: str | None
) -> None:
    """A worker of 3 x 1 GB of layers, half a GB of CUDA and a batch of 16,384 tokens."""
    rates = tmp_path / "rates.yaml"
    card = f"{{device: gpu, gflop_per_second: 9, per_hour: 1, memory_gb: {memory_gb}}}"
    rates.write_text(f"hardware:\n  card: {card}\n", encoding="utf-8")
    job = make_job(models, models / "c.jsonl", tmp_path / "store", workers={"gpus": gpus}, model={"dtype": dtype})
    plan = whale_of(make_plan(job), tmp_path / "whale", 10**9)
    found = warnings_of(plan, estimate(plan, hardware="card", rates_file=str(rates)))
    assert len(found) == (said is not None)
    for sentence in found:
        assert str(said) in sentence
        assert "so it does not fit" in sentence


def test_a_bundle_larger_than_this_machines_memory_is_said(models: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))
    whale = whale_of(plan, tmp_path / "whale", 2**43)
    (sentence,) = warnings_of(whale, estimate(plan))
    assert re.search(r"^this machine has .* and the job needs about 26.* TB of it", sentence)


def test_memory_goes_to_people_and_machines_alike(models: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, models / "c.jsonl", tmp_path / "store"))
    memory = memory_of(plan, estimate(plan))
    (one,) = memory.devices
    assert one.total == one.programs + one.weights + one.encoders + one.batches
    assert memory.fits and sentence_of(memory).startswith("about ")
    two = replace(plan, job=plan.job.model_copy(update={"workers": plan.job.workers.model_copy(update={"gpus": 2.0})}))
    first, second = devices_of(replace(two, compute=replace(two.compute, device="cuda")))
    assert (first.device, second.device) == ("cuda:0", "cuda:1")
    assert first.layers is not None and second.layers is not None and second.layers[1] == plan.bundle.last_layer
