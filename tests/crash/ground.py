"""A job on disk, the command as real processes, and what tests of crashes ask of both."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from featurestore import FeatureStore
from featurestore.base.fault_points import VARIABLE
from featurestore.format.provenance import bundle_sources
from ray_jobs.planning.job_plan import expected_store
from tests.featurestore.models.handmade import linear_model
from tests.ray_jobs.jobs import job_mapping, make_job, parts_of
from training.output.models import save_model

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

    @property
    def marker(self) -> Path:
        """There once the fault that was asked for has happened."""
        return self.job.with_name("fault-happened")


def mapping(models: Path, store: Path) -> dict[str, object]:
    return job_mapping(models, models / "c.jsonl", store, units={"documents": DOCUMENTS}, workers={"max": 2, "cpus": 1})


def start(job: Path, *options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`sparsemill extract` as a process group of its own, as a terminal would start it."""
    return start_command("extract", str(job), *options, cwd=job.parent, env=env)


def start_command(*argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Any command of ours in the same way."""
    return subprocess.Popen(
        [sys.executable, "-m", "sparsemill", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def write_model(models: Path, corpus: Path) -> Path:
    """A trained model of twelve features of the tiny SAE, for documents of this corpus."""
    plan = expected_store(make_job(models, corpus, corpus.with_name("store")))
    coef = np.random.default_rng(0).normal(size=(1, 12))
    model = linear_model(list(range(0, 96, 8)), coef, {"tiny": 96}, identity=plan.identity, bundle=bundle_sources(plan))
    save_model(model, str(corpus.with_name("m")))
    return corpus.with_name("m.json")


def run(job: Path, *options: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The same, waited for."""
    process = start(job, *options, env=env)
    out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def fault(ground: Ground, what: str) -> dict[str, str]:
    """The environment in which a fault happens once, e.g. "write.middle:part-=kill"."""
    return {VARIABLE: f"{what}@{ground.marker}"}


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
    return [pid for pid, command in descendants(driver.pid).items() if command.startswith("ray::WorkerActor.run")]


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
