"""What decides a value is in the identity, what does not is not, and what a job leaves open is settled once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import JobFailed
from ray_jobs.backbone.bundle import Bundle, ModelInfo, SaeInfo, TokenizerInfo
from ray_jobs.engine.extractor import ExtractSettings
from ray_jobs.planning.identity import check_software, deciding_software, identity, provenance
from ray_jobs.prepare.compute_settings import Compute, extract_settings, settle
from ray_jobs.spec import JobSpec
from tests.ray_jobs.jobs import make_job

FILES = [{"name": "c.jsonl", "size": 10, "sha256": "ab", "rows": 3}]
SOFTWARE = {"torch": "2", "transformers": "5", "tokenizers": "0"}
COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=2048, attn="eager")


def job_with(**changes: Any) -> JobSpec:
    return make_job(Path("/models"), Path("/c.jsonl"), Path("/store"), **changes)


def bundle_with(**changes: Any) -> Bundle:
    model = ModelInfo("tiny", "/models/tiny", None, "gemma2", 4, 32, 400, 2.0)
    sae = SaeInfo("tiny", 2, "resid_post", 32, 96, "jumprelu", False, {"path": "/sae"}, (), ())
    values: dict[str, Any] = {
        "path": Path("/bundle"),
        "sha256": "cd" * 32,
        "dtype": "float32",
        "model": model,
        "saes": (sae,),
        "tokenizer": TokenizerInfo((1,), 0, None, None),
        "files": {},
    }
    return Bundle(**{**values, **changes})


def identity_of(job: JobSpec, compute: Compute = COMPUTE, bundle: Bundle | None = None) -> dict[str, Any]:
    return identity(job, bundle or bundle_with(), compute, FILES, SOFTWARE)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"pool": ["max"]}, "pool"),
        ({"hidden": []}, "hidden"),
        ({"value_bits": 24}, "value_bits"),
        ({"model": {"max_tokens": 32}}, "model"),
        ({"model": {"tokens": "all"}}, "model"),
        ({"model": {"chat": True}}, "model"),
        ({"model": {"long_documents": "windows", "stride": 4}}, "model"),
        ({"corpus": {"text": "body"}}, "corpus"),
        ({"corpus": {"keep": []}}, "corpus"),
    ],
)
def test_a_setting_that_decides_a_value_changes_the_identity(change: dict[str, Any], key: str) -> None:
    before, after = identity_of(job_with()), identity_of(job_with(**change))
    assert {name for name in before if before[name] != after[name]} == {key}


@pytest.mark.parametrize("change", [{"workers": {"max": 64}}, {"store": "/elsewhere"}])
def test_how_many_work_and_where_it_goes_do_not_change_the_identity(change: dict[str, Any]) -> None:
    assert identity_of(job_with(**change)) == identity_of(job_with())


def test_the_bundle_decides_and_where_it_lies_does_not() -> None:
    assert identity_of(job_with(), bundle=bundle_with(sha256="ef" * 32)) != identity_of(job_with())
    assert identity_of(job_with(), bundle=bundle_with(path=Path("/moved"))) == identity_of(job_with())


def test_an_identity_is_plain_json() -> None:
    described = identity_of(job_with())
    assert json.loads(json.dumps(described)) == described


def test_every_setting_of_the_engine_comes_from_the_job() -> None:
    settings = extract_settings(job_with(), COMPUTE)
    assert set(settings) == set(ExtractSettings.__dataclass_fields__)


def test_what_a_job_leaves_open_is_chosen_from_the_hardware() -> None:
    settled = settle(job_with(model={"dtype": None}, workers={"gpus": None}), None)
    assert settled.device in ("cpu", "cuda")
    assert settled.dtype in ("bfloat16", "float32")
    assert settled.threads >= 1
    assert settled.batch_tokens >= 1024


def test_the_number_of_workers_changes_no_setting_of_a_worker() -> None:
    assert settle(job_with(workers={"max": 1}), None) == settle(job_with(workers={"max": 31}), None)


def test_a_begun_store_decides_what_the_job_leaves_open() -> None:
    begun = identity_of(job_with(), Compute("cpu", "float32", 7, 512, "eager"))
    settled = settle(job_with(model={"dtype": None}, workers={"gpus": None}), begun)
    assert settled == Compute("cpu", "float32", 7, 512, "eager")


def test_the_job_decides_what_it_says_even_against_a_begun_store() -> None:
    begun = identity_of(job_with(), Compute("cpu", "bfloat16", 7, 512, "eager"))
    assert settle(job_with(workers={"cpus": 3}), begun).threads == 3
    assert settle(job_with(), begun).dtype == "float32"


def test_a_store_begun_on_a_gpu_says_nothing_about_a_cpu() -> None:
    begun = identity_of(job_with(), Compute("cuda", "bfloat16", 7, 65536, "eager"))
    settled = settle(job_with(workers={"gpus": 0}), begun)
    assert (settled.device, settled.threads) == ("cpu", settle(job_with(), None).threads)
    assert settled.batch_tokens < 65536


def test_a_worker_with_other_software_is_refused() -> None:
    check_software(deciding_software())
    with pytest.raises(JobFailed, match=r"torch .* instead of 1\.0; install the same versions on every node"):
        check_software({**deciding_software(), "torch": "1.0"})


def test_provenance_names_versions_and_host_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    recorded = provenance()
    assert {"python", "torch", "ray", "numpy", "pyarrow"} <= set(recorded["versions"])
    assert recorded["host"]["machine"]
    assert "hunter2" not in json.dumps(recorded)
