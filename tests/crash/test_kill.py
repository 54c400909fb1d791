"""Real processes, real SIGKILL: whatever dies, the same command finishes with the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from featurestore import FeatureStore
from featurestore.plan import create_store
from ray_jobs.plan import make_plan
from ray_jobs.spec import load_job
from ray_jobs.worker import Worker, WorkerTask
from tests.ray_jobs.jobs import job_mapping, parts_of, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
UNITS, DOCUMENTS = 10, 250  # a unit takes some tenths of a second: long enough to be killed in
ORPHAN_SECONDS = 30.0  # workers notice within three that their raylet is gone; a slow machine may take longer
PATIENCE = 240.0  # seconds for anything to happen; a healthy machine needs a tenth of it


@dataclass(frozen=True)
class Ground:
    """A job on disk, and the parts that an undisturbed run of it gives."""

    job: Path
    store: Path
    expected: dict[str, bytes]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        patch.delenv("RAY_ADDRESS", raising=False)
        write_corpus(directory / "c.jsonl", UNITS * DOCUMENTS, max_words=60, faults=True)
        yield write_models(directory)


@pytest.fixture(scope="module")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The parts as a worker makes them in this process, without Ray."""
    directory = tmp_path_factory.mktemp("undisturbed")
    plan = make_plan(load_job(write_job(directory / "job.yaml", mapping(models, directory / "store"))))
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    for unit in plan.units:
        worker.run(unit)
    return parts_of(directory / "store")


@pytest.fixture
def ground(models: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> Ground:
    job = write_job(tmp_path / "job.yaml", mapping(models, tmp_path / "store"))
    return Ground(job, tmp_path / "store", undisturbed)


def mapping(models: Path, store: Path) -> dict[str, object]:
    return job_mapping(models, models / "c.jsonl", store, units={"documents": DOCUMENTS}, workers={"max": 2, "cpus": 1})


def start(job: Path, *options: str) -> subprocess.Popen[str]:
    """`sparsemill extract` as a process group of its own, as a terminal would start it."""
    command = [sys.executable, str(ROOT / "sparsemill.py"), "extract", str(job), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=job.parent
    )


def eventually(what: Callable[[], T], driver: subprocess.Popen[str] | None = None) -> T:
    """Wait until `what` is true, and return it; fail if it never is, or if the driver ends first."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "waited too long"
        if driver is not None and driver.poll() is not None:
            raise AssertionError(f"the driver ended first: {driver.communicate()}")
        time.sleep(0.02)
    return found


def descendants(pid: int) -> dict[int, str]:
    """Process id -> command line of all that a process started, directly or not."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                commands[int(entry.name)] = (entry / "cmdline").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            state, parent = status.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        above = todo.pop()
        for child in [child for child, parent in parents.items() if parent == above and child not in found]:
            found[child] = commands[child].replace("\0", " ").strip()
            todo.append(child)
    return found


def alive(pids: set[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            state = (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            )
        except OSError:
            continue
        if state != "Z":
            found.add(pid)
    return found


def working(pids: set[int]) -> set[int]:
    """Those that are alive and hold anything. Ray's two idle agents take a minute to notice that they are alone."""
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    found = set()
    for pid in alive(pids):
        with contextlib.suppress(OSError):
            if not Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").startswith(agents):
                found.add(pid)
    return found


def computing(driver: subprocess.Popen[str]) -> list[int]:
    """Workers that have a unit in hand: Ray puts the running method into the name of the process."""
    return [pid for pid, command in descendants(driver.pid).items() if command.startswith("ray::Worker.run")]


def listening_beyond_loopback(pids: set[int]) -> list[str]:
    """Addresses, as in /proc/net, on which one of these processes listens for others than this machine."""
    inodes = set()
    for pid in pids:
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    open_to_all = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes and fields[1].split(":")[0] not in loopback:
                open_to_all.append(fields[1])
    return open_to_all


def assert_whole(ground: Ground) -> None:
    assert parts_of(ground.store) == ground.expected
    store = FeatureStore.open(str(ground.store))
    assert len(store) == UNITS * DOCUMENTS
    report = store.verify()
    assert report.ok, report.problems


def test_a_worker_killed_in_a_unit_is_replaced_and_nothing_is_lost(ground: Ground) -> None:
    driver = start(ground.job, "--json")
    victims = eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    os.kill(victims[0], signal.SIGKILL)
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    assert "a worker died" in err
    assert json.loads(out)["units_run"] == UNITS
    assert_whole(ground)


def test_a_killed_driver_leaves_no_process_and_the_same_command_finishes(ground: Ground) -> None:
    driver = start(ground.job)
    eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    family = set(descendants(driver.pid))
    assert listening_beyond_loopback(family) == []
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    killed_at = time.monotonic()
    eventually(lambda: not working(family))
    assert time.monotonic() - killed_at < ORPHAN_SECONDS
    survived = parts_of(ground.store)
    assert 0 < len(survived) < UNITS, "the driver was killed too late to prove anything"
    assert not (ground.store / "manifest.json").exists()
    assert all(ground.expected[name] == data for name, data in survived.items())

    again = start(ground.job, "--json")
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert json.loads(out)["units_run"] == UNITS - len(survived)
    assert_whole(ground)


@pytest.mark.parametrize(
    "stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=lambda stop: stop.name
)
def test_control_c_and_sigterm_stop_cleanly_and_say_how_to_go_on(ground: Ground, stop: signal.Signals) -> None:
    driver = start(ground.job)
    eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    family = set(descendants(driver.pid))
    if stop == signal.SIGINT:
        os.killpg(driver.pid, stop)  # as a terminal does: the driver and all its children get it
    else:
        driver.send_signal(stop)  # as a scheduler does
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 128 + stop
    assert out == ""
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    eventually(lambda: not working(family))
    assert all(ground.expected[name] == data for name, data in parts_of(ground.store).items())


@pytest.mark.slow
def test_a_unit_that_kills_three_workers_fails_the_job_by_name(ground: Ground) -> None:
    driver = start(ground.job, "--workers", "1")
    eventually(lambda: computing(driver), driver)
    while driver.poll() is None:
        for pid in computing(driver):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    _, err = driver.communicate()
    assert driver.returncode == 1
    assert "its worker died 3 times" in err.splitlines()[-1]
    assert "the same command does the rest" in err.splitlines()[-1]
    again = start(ground.job)
    assert again.wait(PATIENCE) == 0
    assert_whole(ground)
