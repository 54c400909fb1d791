"""Connecting to Ray and leaving all as it was; tests/crash proves loopback and the end of all processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparsemill
from featurestore.errors import UsageError
from ray_jobs.cluster.session import ray_cluster, worker_environment
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("nonsense", "Invalid address format"),
        ("http://127.0.0.1:8265", "the URL of a dashboard, which `submit`, `stop` and `doctor` take"),
    ],
)
def test_an_address_where_nobody_is_is_refused_and_the_environment_restored(address: str, says: str) -> None:
    before = dict(os.environ)
    with pytest.raises(UsageError, match=says) as refusal, ray_cluster(address, 1, 0):
        pass
    assert "Errno" not in str(refusal.value)
    assert dict(os.environ) == before


def test_workers_get_the_threads_of_the_plan() -> None:
    environment = worker_environment(3)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert all(isinstance(value, str) for value in environment.values())


def test_a_run_with_an_address_says_that_it_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    corpus = write_corpus(tmp_path / "c.jsonl", 60)
    job = write_job(tmp_path / "job.yaml", job_mapping(write_models(tmp_path), corpus, tmp_path / "store"))
    assert sparsemill.main(["extract", str(job), "--address", "127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert "3 units to do" in said and "; connecting to Ray at 127.0.0.1:1\n" in said
    assert "starting Ray" not in said


@pytest.mark.slow
def test_a_run_on_a_cluster_that_is_there_already(tmp_path: Path) -> None:
    models = write_models(tmp_path)
    corpus = write_corpus(tmp_path / "c.jsonl", 60)
    job = write_job(tmp_path / "job.yaml", job_mapping(models, corpus, tmp_path / "store", workers={"max": 2}))
    cluster = f"""
import subprocess, sys
from ray.cluster_utils import Cluster
there = Cluster(initialize_head=True, head_node_args={{"num_cpus": 2, "include_dashboard": False}})
command = [sys.executable, "-m", "sparsemill", "extract", {str(job)!r}, "--json"]
try:
    code = subprocess.run([*command, "--address", there.address]).returncode
finally:
    there.shutdown()
sys.exit(code)
"""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "SPARSEMILL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", cluster], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout[done.stdout.index("{") :])
    assert (result["documents"], result["units_run"], result["workers"]) == (60, 3, 2)
