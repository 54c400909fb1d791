"""The same promises on an object store: a server that speaks S3, in front of it one that fails now and then."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.base.fault_points import POINTS
from featurestore.writing.writer import PartRecord, committed_units
from ray_jobs.run.journal import Journal, earlier_records
from ray_jobs.workers.worker import Report
from tests.crash.ground import (
    DOCUMENTS,
    PATIENCE,
    UNITS,
    Ground,
    alive,
    descendants,
    eventually,
    fault,
    run,
    start,
)
from tests.crash.s3 import BUCKET, Proxy, proxied, s3_server, stored_parts
from tests.ray_jobs.jobs import job_mapping, write_job

pytest.importorskip("moto", reason="the S3 server of these tests")
pytestmark = pytest.mark.slow
IN_WORKER = (
    "worker.opening",
    "worker.computing",
    "worker.before_write",
    "write.before:part-",
    "write.middle:part-",
    "write.after:part-",
    "worker.after_commit",
)
IN_DRIVER = (
    "driver.before_store",
    *(f"write.{point}:store.json" for point in ("before", "middle", "after")),
    "driver.after_commit",
    "write.middle:.journal",
    "write.middle:.lease.json",
    "driver.before_manifest",
    *(f"write.{point}:manifest.json" for point in ("before", "middle", "after")),
    "driver.after_manifest",
)
numbers = itertools.count()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with s3_server() as started:
        yield started


@pytest.fixture
def proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(port) as started:
        _use(started, monkeypatch)
        yield started


@pytest.fixture
def flaky(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Every tenth call is answered with 503, after five seconds, or not at all."""
    with proxied(port, every=10) as started:
        _use(started, monkeypatch)
        yield started


def _use(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in proxy.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def uri(ground: Ground, models: Path) -> str:
    """A new store on the server; the job writes there."""
    store = f"s3://{BUCKET}/store-{next(numbers)}"
    mapping = job_mapping(models, models / "c.jsonl", Path("unused"), units={"documents": DOCUMENTS})
    write_job(ground.job, {**mapping, "store": store, "workers": {"max": 2, "cpus": 1, "gpus": 0}})
    return store


def assert_whole(uri: str, expected: Mapping[str, bytes]) -> None:
    assert stored_parts(uri) == expected
    store = FeatureStore.open(uri)
    assert len(store) == UNITS * DOCUMENTS
    report = store.verify()
    assert report.ok, report.problems


def test_storage_that_fails_or_is_slow_every_tenth_time_does_not_stop_a_run(
    ground: Ground, uri: str, flaky: Proxy
) -> None:
    done = run(ground.job, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["units_run"] == UNITS
    assert min(flaky.calls[fault] for fault in ("error", "slow", "dropped")) >= 1, flaky.calls
    assert_whole(uri, ground.expected)


@pytest.mark.parametrize("point", IN_WORKER)
def test_a_worker_killed_at_any_point_changes_nothing(ground: Ground, uri: str, proxy: Proxy, point: str) -> None:
    done = run(ground.job, env=fault(ground, f"{point}=kill"))
    assert ground.marker.exists(), f"the fault did not happen: {done.returncode}, {done.stderr}"
    assert done.returncode == 0, done.stderr
    assert_whole(uri, ground.expected)


@pytest.mark.parametrize("point", IN_DRIVER)
def test_a_driver_killed_at_any_point_leaves_what_the_same_command_completes(
    ground: Ground, uri: str, proxy: Proxy, point: str
) -> None:
    done = run(ground.job, env=fault(ground, f"{point}=kill"))
    assert ground.marker.exists(), f"the fault did not happen: {done.returncode}, {done.stderr}"
    assert done.returncode == -9, done.stderr
    survived = stored_parts(uri)
    assert all(ground.expected[name] == data for name, data in survived.items())
    again = run(ground.job, "--json")
    assert again.returncode == 0, again.stderr
    assert_whole(uri, ground.expected)


@pytest.mark.parametrize("point", IN_WORKER)
def test_a_run_whose_only_raylet_is_killed_finishes_or_ends_in_one_sentence(
    ground: Ground, uri: str, proxy: Proxy, point: str
) -> None:
    process = start(ground.job, env=fault(ground, f"{point}=raylet"))
    eventually(ground.marker.exists, process)
    family = set(descendants(process.pid))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 1)  # a short run is over before anybody misses its raylet
    assert "Traceback" not in err
    eventually(lambda: not alive(family))
    assert all(ground.expected[name] == data for name, data in stored_parts(uri).items())
    again = run(ground.job)
    assert again.returncode == 0, again.stderr
    assert_whole(uri, ground.expected)


def test_every_point_that_an_object_store_has_is_in_the_matrix() -> None:
    there = {point.partition(":")[0] for point in (*IN_WORKER, *IN_DRIVER)}
    assert there == set(POINTS) - {"write.before_rename"}  # an upload has no temporary name


def test_resuming_lists_parts_a_thousand_at_a_time_and_reads_none(proxy: Proxy) -> None:
    n_parts = 2_500
    store = f"s3://{BUCKET}/many"
    journal = Journal(store)
    behind = http.client.HTTPConnection("127.0.0.1", proxy.behind)
    for unit in range(n_parts):
        behind.request("PUT", f"/{BUCKET}/many/parts/part-{unit:06d}.parquet", b"x" * 100)
        behind.getresponse().read()
        journal.add(Report(PartRecord(unit, 1, 0, 1, 100, "ab"), 1.0), "host")
    behind.close()
    journal.close()
    before = proxy.calls.copy()
    known = earlier_records(store, committed_units(store))
    calls = proxy.calls - before
    assert len(known) == n_parts
    assert calls["LIST"] <= n_parts / 1000 + 4, calls
    assert calls["GET"] + calls["HEAD"] <= 3 * (n_parts / 1000 + 2), calls
