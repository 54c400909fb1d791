"""What workers count, and that it comes out where Prometheus looks, from a real cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from featurestore.base.fault_points import VARIABLE
from featurestore.status import run_status
from featurestore.writing.writer import PartRecord
from ray_jobs.reporting import prometheus as metrics
from ray_jobs.reporting.prometheus import (
    COUNTERS,
    KINDS_KEPT,
    OTHER,
    SECONDS_BOUNDARIES,
    RunMeter,
    UnitDetail,
    UnitMeter,
)
from tests.clusters import head_node
from tests.crash.ground import PATIENCE, eventually
from tests.featurestore.checks.test_run_files import record
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[3]
PART = PartRecord(unit=0, rows=4, errors=2, tokens=10, bytes=100, sha256="")


def test_phases_are_timed_and_the_device_is_idle_between_two_units() -> None:
    meter = UnitMeter("store")
    for _ in range(2):
        meter.begin()
        with meter.phase("read"):
            pass
        with meter.phase("compute"):
            time.sleep(0.02)
        with meter.phase("write"):
            time.sleep(0.02)
        detail = meter.end(PART, ["a", "b", "c", "d"], [None, "x 1", None, "x 2"])
    assert detail.phases["compute"] >= 0.02
    assert detail.phases["write"] >= 0.02
    assert detail.phases["idle"] >= 0.02  # the first unit's write and the second's read
    assert detail.kinds == {"x N": (2, "b", "x 1")}
    assert {"finished_at", "read_seconds", "idle_seconds", "kinds"} <= set(detail.to_json())


def test_what_the_device_idled_within_computing_is_idle_and_not_computing() -> None:
    meter = UnitMeter("store")
    meter.begin()
    with meter.phase("compute"):
        time.sleep(0.03)
    meter.was_idle(0.02)
    phases = meter.end(PART, [], []).phases
    assert phases["idle"] == 0.02
    assert phases["compute"] >= 0.01


def test_a_units_seconds_are_those_from_its_beginning_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    observed: dict[str, list[float]] = defaultdict(list)

    class Kept:
        def __init__(self, name: str) -> None:
            self.name = name

        def inc(self, value: float, tags: object = None) -> None:
            pass

        def observe(self, value: float) -> None:
            observed[self.name].append(value)

    names = (*COUNTERS, "phase", "unit_seconds")
    monkeypatch.setattr(metrics, "_under_ray", lambda: True)
    monkeypatch.setattr(metrics, "_worker_metrics", lambda store: {name: Kept(name) for name in names})
    meter = UnitMeter("store")
    meter.begin()
    for phase in ("compute", "write"):
        with meter.phase(phase):
            time.sleep(0.02)
    meter.end(PART, [], [])
    assert observed.keys() == {"unit_seconds"}
    assert sum(observed["unit_seconds"]) >= 0.04


def test_a_phase_that_fails_is_timed_too() -> None:
    meter = UnitMeter("store")
    meter.begin()
    with pytest.raises(OSError), meter.phase("write"):
        raise OSError
    assert meter.end(PART, [], []).phases["write"] >= 0


def test_a_unit_with_very_many_kinds_of_errors_keeps_a_page_of_them() -> None:
    names = [chr(ord("a") + i) * 3 for i in range(26)]
    meter = UnitMeter("store")
    meter.begin()
    kinds = meter.end(PART, names, names).kinds
    assert len(kinds) == KINDS_KEPT + 1
    assert kinds[OTHER][0] == 26 - KINDS_KEPT


def test_without_ray_nothing_is_exported_and_an_unmeasured_unit_says_nothing() -> None:
    RunMeter("store").show(record())
    assert UnitDetail().to_json() == {}


@pytest.mark.slow
def test_prometheus_finds_what_the_store_and_the_driver_say(tmp_path: Path) -> None:
    """A run is stopped within its first unit, loses its worker there, and goes on to the end."""
    models = write_models(tmp_path)
    corpus = write_corpus(tmp_path / "c.jsonl", 200, faults=True)
    mapping = job_mapping(models, corpus, tmp_path / "store", units={"documents": 20}, workers={"max": 1, "cpus": 1})
    job, marker = write_job(tmp_path / "job.yaml", mapping), tmp_path / "waiting"
    environment = {
        "SPARSEMILL_CACHE": str(tmp_path / "cache"),
        "RAY_AUTH_TOKEN": "ab" * 32,
        VARIABLE: f"worker.before_write=wait@{marker}",
    }
    with head_node(environment) as cluster:
        command = [sys.executable, "-m", "sparsemill", "extract", str(job), "--address", cluster.address]
        run = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
        eventually(marker.exists, run)
        during = {
            "run_units": {"waiting": 9, "under_way": 1, "done": 0, "failed": 0},
            "workers": {"ready": 1, "wanted": 1},
        }
        for name, values in during.items():
            assert exported(cluster.metrics, name, values) == values
        (worker,) = cluster.workers()
        os.kill(worker, signal.SIGKILL)
        _, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, err
        now = run_status(str(tmp_path / "store"))
        afterwards = {
            "documents_total": {"": now.rows},
            "tokens_total": {"": now.tokens},
            "errors_total": {"": now.errors},
            "bytes_total": {"": now.bytes},
            "units_total": {"": now.units},
            "unit_seconds_count": {"": now.units},
            "retries_total": {"lost": 1},
            "run_units": {"waiting": 0, "under_way": 0, "done": now.units, "failed": 0},
        }
        assert (now.rows, now.units) == (200, 10)
        for name, values in afterwards.items():
            assert exported(cluster.metrics, name, values) == values
        phases = scrape(cluster.metrics)["phase_seconds_total"]
        journal = [json.loads(line.rstrip(",")) for line in _journal_lines(tmp_path / "store")]
        histograms = {name.removesuffix("_sum") for name in scrape(cluster.metrics) if name.endswith("_sum")}
        assert histograms == {"unit_seconds"}  # a further one needs a sum to compare with
        # Ray's agents take every observation for the middle of its bucket
        middles = [(low + high) / 2 for low, high in pairwise([0, *SECONDS_BOUNDARIES])]
        sums = [middles[bisect_left(SECONDS_BOUNDARIES, line["seconds"])] for line in journal]
        assert scrape(cluster.metrics)["unit_seconds_sum"][""] == pytest.approx(sum(sums))
        for phase in ("read", "compute", "write", "idle"):
            assert phases[phase] == pytest.approx(sum(line.get(f"{phase}_seconds", 0) for line in journal), abs=0.02)


def exported(address: str, name: str, expected: dict[str, float]) -> dict[str, float]:
    """The values of a metric, once they are those that are expected or half a minute has passed."""
    deadline = time.monotonic() + 30
    while (found := dict(scrape(address)[name])) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _journal_lines(store: Path) -> list[str]:
    lines = [line for file in (store / ".journal").iterdir() for line in file.read_text().splitlines()]
    return [line for line in lines if line.startswith("{")]


def scrape(address: str) -> dict[str, dict[str, float]]:
    """Each of our metrics -> its values by the label that tells them apart ("" where there is none)."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as page:
        text = page.read().decode()
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, labels, value in re.findall(r"^ray_sparsemill_(\w+)\{([^\n]*)\} (\S+)$", text, re.M):
        told_apart = re.search(r'\b(?:state|phase|kind)="([^"]*)"', labels)
        sums[name][told_apart[1] if told_apart else ""] += float(value)
    return sums
