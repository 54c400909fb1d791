"""Ending a run from outside: through the store, wherever that is, and only the run that holds it now."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import JobFailed, JobStopped
from featurestore.format.store_plan import open_root
from ray_jobs.run import stop as stopping
from ray_jobs.run import store_lease
from ray_jobs.run.stop import stop
from ray_jobs.run.store_lease import LEASE_JSON, ask_to_stop, current_holder, hold_store
from tests.featurestore.conftest import Place, gcs_host, place, s3_place, s3_server
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models

__all__ = ["gcs_host", "place", "s3_place", "s3_server"]
ROOT = Path(__file__).parents[3]
PATIENCE = 240.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same protocol at a pace for tests."""
    monkeypatch.setattr(store_lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(store_lease, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.05)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-u", "-m", "sparsemill", *map(str, arguments)]


def eventually(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def run_on(uri: str, ended: list[str], begun: threading.Event) -> None:
    """A run as the driver is one: it holds the store and looks every second."""
    try:
        with hold_store(uri) as mine:
            begun.set()
            while True:
                mine.check()
                time.sleep(0.05)
    except JobFailed as error:
        ended.append(f"{type(error).__name__}: {error}")


@pytest.mark.usefixtures("quick")
def test_a_run_is_asked_through_its_store_and_ends(place: Place) -> None:
    ended: list[str] = []
    begun = threading.Event()
    thread = threading.Thread(target=run_on, args=(place.uri, ended, begun))
    thread.start()
    begun.wait()
    said: list[str] = []
    assert "process" in stop(place.uri, None, said.append)[0]
    thread.join()
    assert ended[0].startswith("JobStopped: stopped from ")
    assert "to stop; it looks every ten seconds" in said[0]
    fs, root = open_root(place.uri)
    left = fs.get_file_info([f"{root}/{LEASE_JSON}"])
    assert current_holder(place.uri) is None and left[0].size is None
    with pytest.raises(JobFailed, match="nothing runs on"):
        stop(place.uri, None, said.append)


@pytest.mark.usefixtures("quick")
def test_a_request_meant_for_an_earlier_run_stops_no_later_one(tmp_path: Path) -> None:
    with hold_store(str(tmp_path)):
        there = current_holder(str(tmp_path))
    assert there is not None
    ask_to_stop(str(tmp_path), there[1])
    with hold_store(str(tmp_path)) as later:
        time.sleep(0.3)
        later.check()


@pytest.mark.usefixtures("quick")
def test_a_run_elsewhere_that_is_not_heard_of_does_not_run(tmp_path: Path) -> None:
    with hold_store(str(tmp_path)):
        fields = json.loads((tmp_path / LEASE_JSON).read_text())
    (tmp_path / LEASE_JSON).write_text(json.dumps({**fields, "machine": "another", "host": "node-7"}))
    with pytest.raises(JobFailed, match=r"nothing runs on .* on node-7 .* not been heard of"):
        stop(str(tmp_path), None, print)
    assert [path.name for path in tmp_path.iterdir()] == [LEASE_JSON]


def test_stop_says_that_nothing_runs_with_exit_code_one(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", job_mapping(tmp_path, tmp_path / "c.jsonl", tmp_path / "store"))
    done = subprocess.run(command("stop", job, "--json"), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "version": 1,
        "error": f"nothing runs on {tmp_path / 'store'}",
        "exit_code": 1,
    }
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_stop_ends_a_local_run_which_goes_on_when_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    models = write_models(tmp_path)
    corpus = write_corpus(tmp_path / "c.jsonl", 6_000, max_words=60)
    store = tmp_path / "store"
    job = write_job(tmp_path / "job.yaml", job_mapping(models, corpus, store, units={"documents": 100}))
    run = subprocess.Popen(command("extract", job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: list((store / "parts").glob("*.parquet")))
    begun = time.monotonic()
    done = subprocess.run(command("stop", job), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert f"{store}: stopped process {run.pid} on " in done.stdout
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - begun < 60
    assert run.returncode == JobStopped.exit_code
    assert "stopped from" in err.splitlines()[-1] and "Traceback" not in err
    assert not [path.name for path in store.iterdir() if path.name.startswith((".lease", ".stop"))]
    said = subprocess.run(command("status", store), capture_output=True, text=True, timeout=PATIENCE).stdout
    assert "was stopped" in said
    assert 0 < len(list((store / "parts").glob("*.parquet"))) < 60
    assert not FeatureStore.open(str(store), partial=True).complete
