"""Demand that no node can meet, on real clusters: with an autoscaler and without one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.workers.demand import unmet
from tests.clusters import head_node
from tests.crash.test_nodes import CLOSED, autoscaling_head
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[3]
PATIENCE = 240.0


class Nodes:
    """What `unmet` asks of Ray, for nodes with these resources."""

    def __init__(self, *resources: dict[str, float], alive: bool = True) -> None:
        self._nodes = [{"NodeID": "ab", "Alive": alive, "Resources": each} for each in resources]

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes


@pytest.mark.parametrize(
    ("needs", "nodes", "says"),
    [
        ({"CPU": 2}, [{"CPU": 2.0}], None),
        ({"CPU": 1, "GPU": 0.33}, [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}], None),
        ({"CPU": 1, "GPU": 1}, [{"CPU": 2.0}], "1 CPU and 1 GPU (there are nodes with 2 CPUs and no GPU)"),
        ({"CPU": 8, "GPU": 1}, [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}], "8 CPUs and no GPU; 4 CPUs and 1 GPU)"),
        ({"CPU": 4}, [{"CPU": 2.0}] * 5, "4 CPUs (there are nodes with 2 CPUs)"),
        ({"memory": 8e9}, [{"memory": 2e9}], "8.0 GB of memory (there are nodes with 2.0 GB of memory)"),
        ({"slot": 2, "CPU": 1}, [{"CPU": 1.0}], "2 of 'slot' and 1 CPU (there are nodes with 0 of 'slot' and 1 CPU)"),
    ],
)
def test_what_one_worker_needs_has_to_fit_on_one_node(
    needs: dict[str, float], nodes: list[dict[str, float]], says: str | None
) -> None:
    found = unmet(Nodes(*nodes), "a worker", needs)
    assert (found is None) == (says is None)
    assert found is None or (says is not None and says in found.reason)


def test_a_dead_node_gives_nothing() -> None:
    assert unmet(Nodes({"CPU": 8.0}, alive=False), "a worker", {"CPU": 1}) is not None


def extract(job: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "sparsemill", "extract", str(job), "--address", address]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=job.parent)


def status_until(store: Path, words: str, run: subprocess.Popen[str]) -> float:
    """When `status` says something."""
    deadline = time.monotonic() + PATIENCE
    while True:
        command = [sys.executable, "-m", "sparsemill", "status", str(store)]
        if words in (said := subprocess.run(command, capture_output=True, text=True).stdout):
            return time.monotonic()
        assert run.poll() is None, f"{said}\n{run.communicate()}"
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {**CLOSED, "SPARSEMILL_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    models = write_models(tmp_path)
    corpus = write_corpus(tmp_path / "c.jsonl", 60)
    workers = {"max": 1, "gpus": 0, "cpus": 7}
    return write_job(tmp_path / "job.yaml", job_mapping(models, corpus, tmp_path / "store", workers=workers))


@pytest.mark.slow
def test_without_an_autoscaler_a_run_names_its_unmet_demand_and_ends(job: Path) -> None:
    with head_node({"RAY_AUTH_MODE": "disabled"}) as cluster:
        run = extract(job, cluster.address)
        status_until(job.parent / "store", "waiting    no node of the cluster has what a worker asks for, 7 CPUs", run)
        named = time.monotonic()
        out, err = run.communicate(timeout=PATIENCE)
        assert time.monotonic() - named > 20  # it was named well before the end
    assert run.returncode == 1, out + err
    last = err.splitlines()[-1]
    assert "7 CPUs (there are nodes with 2 CPUs), and there is no autoscaler to add one" in last
    assert "Traceback" not in err


@pytest.mark.slow
def test_with_an_autoscaler_a_run_keeps_waiting_and_says_so(job: Path) -> None:
    with autoscaling_head() as (address, _):
        run = extract(job, address)
        try:
            status_until(job.parent / "store", "waiting for the cluster's autoscaler to add one", run)
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(70)
        finally:
            run.terminate()
            _, err = run.communicate(timeout=PATIENCE)
    assert err.count("waiting for the cluster's autoscaler") == 1
    assert "Traceback" not in err
