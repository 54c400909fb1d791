"""`doctor` says of each thing that a job needs whether it is right here, and what to do where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sparsemill
from ray_jobs import doctor as module
from ray_jobs.backbone.bundle import open_bundle
from ray_jobs.backbone.pipeline import layer_bytes
from ray_jobs.prepare.build import prepare
from ray_jobs.prepare.bundle_size import bundle_size
from ray_jobs.spec import load_job
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models
from tests.ray_jobs.labels.label_jobs import answering_model, label_mapping, questions, write_rows


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, a hub that nobody answers for, and no Ray, which tests of the whole start themselves."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(module, "_ray", lambda *_: module.Finding("ray", "right", "starts here"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def examine(*argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = sparsemill.main(["doctor", *argv, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    return code, {one["what"]: one for one in found["findings"]}


def job_file(models: Path, tmp_path: Path, **changes: Any) -> str:
    corpus = write_corpus(tmp_path / "c.jsonl", 5)
    return str(write_job(tmp_path / "job.yaml", {**job_mapping(models, corpus, tmp_path / "store"), **changes}))


def test_a_job_that_can_run_here_is_told_so(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examine(job_file(models, tmp_path), capsys=capsys)
    assert code == 0, found
    assert found["model"]["said"] == "gemma2, 4 layers, d_model 32"
    assert found["corpus"]["said"].startswith("1 file")
    assert found["hub"]["verdict"] == "note"  # nothing of this job is there
    assert found["memory of a worker"]["verdict"] == "right"
    assert not (tmp_path / "store").exists()
    assert sparsemill.main(["doctor", str(tmp_path / "job.yaml")]) == 0
    assert "nothing would stop the work" in capsys.readouterr().out


def test_a_label_job_is_looked_at_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", questions(3))
    mapping = label_mapping(answering_model(tmp_path / "models"), rows, tmp_path / "out" / "labels.parquet")
    code, found = examine(str(write_job(tmp_path / "label.yaml", mapping)), capsys=capsys)
    assert code == 0, found
    assert found["store"]["said"] == f"{tmp_path}/out/labels.parquet.parts can be written"
    assert found["memory of a worker"]["verdict"] == "right"


@pytest.mark.parametrize(
    ("changes", "what", "said", "do"),
    [
        ({"corpus": {"path": "none-*.jsonl"}}, "corpus", "none-*.jsonl", ""),
        ({"model": {"name": "/no/such/model"}}, "model", "neither a directory", "check it"),
        ({"store": "/proc/store"}, "store", "cannot be written", "choose another"),
        ({"workers": {"gpus": 1}}, "GPU", "the job wants one", "workers.gpus: 0"),
        (
            {"saes": [{"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}]},
            *("hub", "does not answer", "check the network"),
        ),
    ],
)
def test_what_would_stop_the_job_is_named_with_what_to_do(
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    what: str,
    said: str,
    do: str,
) -> None:
    code, found = examine(job_file(models, tmp_path, **changes), capsys=capsys)
    assert code == 1
    assert found[what]["verdict"] == "wrong"
    assert said in found[what]["said"] and do in found[what]["do"]


def test_versions_that_this_was_not_made_for_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.version
    monkeypatch.setattr(module, "version", lambda name: "4.57.1" if name == "transformers" else real(name))
    code, found = examine(capsys=capsys)
    assert code == 1
    assert found["transformers"]["said"].startswith("4.57.1 is there, and this version of Sparsemill was made for ")
    assert found["transformers"]["do"].startswith("pip install 'transformers")


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "file"))
    code, found = examine(capsys=capsys)
    assert code == 1 and found["cache"]["do"] == "set SPARSEMILL_CACHE elsewhere"


def test_a_compiler_for_attention_on_a_gpu_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert module._compiler().verdict == "wrong" and "gcc" in module._compiler().do
    (tmp_path / "clang").write_text("#!/bin/sh\n")
    (tmp_path / "clang").chmod(0o755)
    assert module._compiler() == module.Finding("C compiler", "right", str(tmp_path / "clang"))


def test_a_job_that_cannot_be_read_is_a_mistake_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sparsemill.main(["doctor", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "gpus", "available", "verdict", "do"),
    [
        ("cuda", 1, 1e3, "wrong", "model.dtype: bfloat16, workers.gpus: 2"),
        ("cuda", 2, 1e3, "wrong", "workers.gpus: 4"),
        ("cuda", 1, 1e12, "right", ""),
        ("cpu", 0, 1e3, "note", "read from disk again and again"),
        ("cpu", 0, 0.0, "right", ""),
    ],
)
def test_a_job_that_is_larger_than_its_device_is_told_so_before_anything_is_fetched(
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: int,
    available: float,
    verdict: str,
    do: str,
) -> None:
    monkeypatch.setattr("ray_jobs.planning.memory.device_memory", lambda asked: available * (asked == device))
    _, found = examine(job_file(models, tmp_path, workers={"max": 1, "gpus": gpus}), capsys=capsys)
    one = found["memory of a worker"]
    assert one["verdict"] == verdict and do in one["do"], one


def test_what_a_bundle_will_take_is_what_it_takes(models: Path, tmp_path: Path) -> None:
    job = load_job(job_file(models, tmp_path))
    said = bundle_size(job)
    bundle = open_bundle(prepare(job, tmp_path / "bundles"))
    sizes = layer_bytes(bundle)
    assert said.weights == sizes.embedding + sum(sizes.layers)
    assert said.unknown == ()
    assert said.encoders == sum(sae.d_in * sae.d_sae * 4 for sae in bundle.saes)


def test_of_an_sae_whose_width_only_its_files_say_no_size_is_said(models: Path, tmp_path: Path) -> None:
    unknown = {"release": "somebody/something", "id": "layers.1", "name": "theirs"}
    job = load_job(job_file(models, tmp_path, saes=[unknown]))
    said = bundle_size(job)
    assert said.unknown == ("theirs",) and said.encoders == 0 and said.weights > 0


@pytest.mark.slow
def test_ray_starts_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = module._ray(None)
    assert found.verdict == "right" and found.said.startswith("starts here: 1 node")
    refused = module._ray("127.0.0.1:1")
    assert refused.verdict == "wrong" and refused.do
