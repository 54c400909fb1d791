"""What goes as planned prints no stack trace, neither on the driver's stderr nor in a log of Ray's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featurestore.base.fault_points import VARIABLE
from featurestore.status import run_status
from tests.crash.ground import DOCUMENTS, PATIENCE, ROOT, Ground, assert_whole, eventually, start
from tests.ray_jobs.jobs import job_mapping, parts_of, write_corpus, write_job

SIGNS = ("Traceback", "Unhandled error", '  File "')


@pytest.fixture
def ray_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps its logs; a short path, for it holds sockets."""
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def traces(stderr: str, ray_files: Path) -> list[str]:
    """Lines that look like a trace, of the driver's stderr and of what its workers have printed or logged."""
    logs = [path for path in ray_files.glob("ray/session_2*/logs/*") if path.name.startswith(("worker-", "python-"))]
    assert any(path.name.startswith("worker-") for path in logs), "no worker has left a log"
    texts = {"stderr": stderr, **{path.name: path.read_text(errors="replace") for path in logs}}
    return [
        f"{name}: {line}" for name, text in texts.items() for line in text.splitlines() if any(s in line for s in SIGNS)
    ]


@pytest.mark.slow
def test_a_straggler_that_is_done_a_second_time_leaves_no_trace(ground: Ground, ray_files: Path) -> None:
    """It stops at its next batch, while the driver still listens, as stragglers do that are slow and not hung."""
    driver = start(ground.job, "--json", env={VARIABLE: f"worker.computing=wait@{ground.marker}"})
    straggler = threading.Thread(target=_let_go_when, args=(lambda: len(parts_of(ground.store)) == 10, ground.marker))
    straggler.start()
    out, err = driver.communicate(timeout=PATIENCE)
    straggler.join()
    assert driver.returncode == 0, err
    run = run_status(str(ground.store)).run
    assert run is not None
    assert run.events.get("second run", 0) >= 1, "nothing was done a second time"
    assert json.loads(out)["documents"] == 10 * DOCUMENTS
    assert_whole(ground)
    assert traces(err, ray_files) == []


def _let_go_when(done: Callable[[], bool], marker: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (marker.exists() and done()) and time.monotonic() < deadline:
        time.sleep(0.01)
    marker.unlink()


@pytest.mark.slow
def test_a_fault_that_all_workers_meet_is_one_sentence(models: Path, ground: Ground, ray_files: Path) -> None:
    """The first that says so ends the run, and nobody asks for what the others say."""
    corpus = write_corpus(ground.job.with_name("c.jsonl"), 400)
    settings = {"units": {"documents": 20}, "workers": {"max": 2, "cpus": 1}}
    job = write_job(ground.job, job_mapping(models, corpus, ground.store, **settings))
    driver = start(job, env={VARIABLE: f"driver.before_store=wait@{ground.marker}"})
    eventually(ground.marker.exists, driver)
    write_corpus(corpus, 300)
    ground.marker.unlink()
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 2, err
    assert "changed since the corpus was scanned" in err.splitlines()[-1]
    assert traces(err, ray_files) == []


@pytest.mark.slow
def test_pieces_of_a_study_that_all_fail_on_a_cluster_are_one_error(ray_files: Path) -> None:
    code = """
from sparsemill.stages import on_ray
from featurestore.errors import StoreError
from training.evaluation import SourceTask
tasks = [SourceTask("/nowhere", (), None, (), 1)] * 4
try:
    list(on_ray("local")(tasks))
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert "/nowhere" in done.stdout, done.stderr
    assert traces(done.stderr, ray_files) == []
