"""What workers count, and that it comes out where Prometheus looks, from a real cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest

from featurestore.status import standing
from featurestore.writer import PartRecord
from ray_jobs.metrics import KINDS_KEPT, OTHER, RunMeter, UnitDetail, UnitMeter
from tests.clusters import head_node
from tests.featurestore.test_runs import record
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[2]
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
def test_prometheus_finds_what_the_store_says(tmp_path: Path) -> None:
    models = write_models(tmp_path)
    corpus = write_corpus(tmp_path / "c.jsonl", 200, faults=True)
    job = write_job(tmp_path / "job.yaml", job_mapping(models, corpus, tmp_path / "store"))
    environment = {
        "SPARSEMILL_CACHE": str(tmp_path / "cache"),
        "RAY_metrics_report_interval_ms": "500",
        "RAY_AUTH_TOKEN": "ab" * 32,
    }
    with head_node(environment) as cluster:
        command = [sys.executable, str(ROOT / "sparsemill.py"), "extract", str(job), "--address", cluster.address]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + 60
        now = standing(str(tmp_path / "store"))
        found: dict[str, float] = {}
        while found.get("documents_total") != now.rows and time.monotonic() < deadline:
            time.sleep(1)
            found = scrape(cluster.metrics)
    assert (found["documents_total"], found["tokens_total"]) == (now.rows, now.tokens)
    assert (found["errors_total"], found["bytes_total"], found["units_total"]) == (now.errors, now.bytes, now.units)
    assert found["unit_seconds_count"] == now.units
    assert found["phase_seconds_total"] > 0
    assert found["run_units"] >= 0


def scrape(address: str) -> dict[str, float]:
    """Sum of each of our metrics over its labels."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as page:
        text = page.read().decode()
    sums: dict[str, float] = defaultdict(float)
    for name, value in re.findall(r"^ray_sparsemill_(\w+)\{[^\n]*\} (\S+)$", text, re.M):
        sums[name] += float(value)
    return sums
