"""Random SIGKILLs for as long as one likes: `make soak MINUTES=15`.

    python -m tests.crash.soak [--minutes 15] [--every SECONDS] [--seed 0] [--keep DIR]

Round after round, a store is made by the command while a killer picks one process of its family at random (workers,
driver, raylet, Ray's other servers), on average four times in the time that an undisturbed run takes on this machine.
Whenever the command ends before its time it is run again, until it finishes; then every part must be, byte for byte,
that of an undisturbed run, and the store must verify. Prints what was survived; exit code 1 at the first difference,
with the store kept.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from featurestore import FeatureStore
from featurestore.plan import create_store
from ray_jobs.plan import make_plan
from ray_jobs.spec import load_job
from ray_jobs.worker import Worker, WorkerTask
from tests.crash.ground import descendants, start
from tests.ray_jobs.jobs import job_mapping, parts_of, write_corpus, write_job, write_models

UNITS, DOCUMENTS = 60, 150
KILLS_A_RUN = 4.0  # in the time of an undisturbed one: with more, hardly any attempt gets past opening the model
DRIVER_SHARE = 0.08  # of the kills; every process else is as likely as its neighbour
ATTEMPT_SECONDS = 600.0  # an attempt that takes longer hangs: with kills stopped it would need twenty


class Killer(threading.Thread):
    """Kills a random process of a family now and then."""

    def __init__(self, pid: int, every: float, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.killed: Counter[str] = Counter()
        self._pid = pid
        self._every = every
        self._dice = dice
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._dice.expovariate(1 / self._every)):
            family = descendants(self._pid)
            if not family or self._dice.random() < DRIVER_SHARE:
                victim, what = self._pid, "driver"
            else:
                victim = self._dice.choice(sorted(family))
                what = _role(family[victim])
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed[what] += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def _role(command: str) -> str:
    if command.startswith("ray::Worker"):
        return "worker"
    for name in ("raylet/raylet", "gcs_server", "ray::IDLE", "DashboardAgent", "RuntimeEnvAgent"):
        if name in command:
            return name.rpartition("/")[2]
    return "other"


def main(argv: Sequence[str] | None = None) -> int:
    """Soak, and say what was survived."""
    parser = argparse.ArgumentParser(prog="tests.crash.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--every", type=float, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="directory to work in, kept")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="sparsemill-soak-") as temporary:
        return soak(Path(args.keep or temporary), args)


def soak(directory: Path, args: argparse.Namespace) -> int:
    """Rounds until the time is over."""
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["SPARSEMILL_CACHE"] = str(directory / "cache")
    os.environ.pop("RAY_ADDRESS", None)
    write_models(directory)
    corpus = write_corpus(directory / "c.jsonl", UNITS * DOCUMENTS, max_words=60, faults=True)
    settings = {"units": {"documents": DOCUMENTS}, "workers": {"max": 2, "cpus": 1}}
    expected = undisturbed(directory, job_mapping(directory, corpus, directory / "expected", **settings))
    timed = write_job(directory / "timed.yaml", job_mapping(directory, corpus, directory / "timed", **settings))
    every = args.every or _seconds(timed) / KILLS_A_RUN
    dice = random.Random(args.seed)
    killed: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    rounds = 0
    begun = time.monotonic()
    print(f"{UNITS} units a round, a kill every {every:.1f} s, seed {args.seed}", flush=True)
    while time.monotonic() - begun < args.minutes * 60:
        store = directory / f"store-{rounds}"
        job = write_job(directory / f"job-{rounds}.yaml", job_mapping(directory, corpus, store, **settings))
        attempts = 0
        while True:
            attempts += 1
            code, err, kills = attempt(job, every, dice)
            killed += kills
            ends[_ending(code, err)] += 1
            if "Traceback" in err:
                print(f"an attempt ended in a traceback, see {store}:\n{err}")
                return 1
            if code == 0:
                break
        if parts_of(store) != expected:
            print(f"round {rounds}: the parts differ from an undisturbed run's; see {store}")
            return 1
        if not (report := FeatureStore.open(str(store)).verify()).ok or report.rows != UNITS * DOCUMENTS:
            print(f"round {rounds}: {report.problems or report.rows}; see {store}")
            return 1
        rounds += 1
        print(f"round {rounds}: whole after {attempts} attempts; {killed.total()} kills so far", flush=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"survived {killed.total()} kills in {minutes:.1f} minutes: {_listed(killed)}")
    print(f"{rounds} stores, each byte for byte that of an undisturbed run, {UNITS * DOCUMENTS} rows, verified")
    print(f"{ends.total()} attempts: {_listed(ends)}")
    return 0


def attempt(job: Path, every: float, dice: random.Random) -> tuple[int, str, Counter[str]]:
    """Run the command once under fire: its exit code, what it said, and who was killed."""
    process = start(job)
    killer = Killer(process.pid, every, dice)
    killer.start()
    try:
        _, err = process.communicate(timeout=ATTEMPT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        killer.stop()
    return process.returncode, err, killer.killed


def _seconds(job: Path) -> float:
    """How long the command takes when nobody disturbs it."""
    begun = time.monotonic()
    process = start(job)
    process.communicate()
    if process.returncode:
        raise SystemExit("the undisturbed run failed")
    return time.monotonic() - begun


def undisturbed(directory: Path, mapping: dict[str, object]) -> dict[str, bytes]:
    """The parts as one worker makes them in this process."""
    plan = make_plan(load_job(write_job(directory / "expected.yaml", mapping)))
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    for unit in plan.units:
        worker.run(unit)
    return parts_of(Path(plan.job.store))


def _ending(code: int, err: str) -> str:
    if code == 0:
        return "finished"
    if code < 0:
        return signal.Signals(-code).name
    return f"exit {code}: {' '.join((err.splitlines() or ['nothing said'])[-1].split()[:9])}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
