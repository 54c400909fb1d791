"""Random SIGKILLs for as long as one likes: `make soak MINUTES=15`.

    python -m tests.crash.soak [--minutes 15] [--every SECONDS] [--seed 0] [--s3] [--predict DOCUMENTS] [--keep DIR]

Round after round, a store is made by the command while a killer strikes its family at random times: a worker, or while
there is none whoever is there; now and then the driver, the raylet or another of Ray's servers. Whenever the command
ends before its time it is run again, until it finishes; then every part must be, byte for byte, that of an undisturbed
run, and the store must verify. When the time is over the last round is finished in peace. Prints what was survived;
exit code 1 at the first difference, with the store kept. With `--s3` the stores are on an S3 server of this machine, of
whose answers every tenth is an error, five seconds late, or missing.
"""

from __future__ import annotations

import argparse
import contextlib
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
from featurestore.format.store_plan import create_store
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.spec import load_job
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.crash.ground import descendants, start, start_command, write_model
from tests.crash.s3 import BUCKET, proxied, s3_server, stored_parts
from tests.ray_jobs.jobs import job_mapping, parts_of, write_corpus, write_job, write_models

UNITS, DOCUMENTS = 60, 150
EVERY_SECONDS = 5.0  # on average: 180 kills in a quarter of an hour
DRIVER_SHARE = 0.06  # of the kills
SERVER_SHARE = 0.12  # without any of which Ray hardly ever lives on; with more, few attempts get past opening the model
WORKER = "worker"
ATTEMPT_SECONDS = 600.0  # an attempt that takes longer hangs: with kills stopped it would need twenty


class Killer(threading.Thread):
    """Kills a random process of a family now and then."""

    def __init__(self, pid: int, every: float, dice: random.Random, until: float) -> None:
        super().__init__(daemon=True)
        self.killed: Counter[str] = Counter()
        self._pid = pid
        self._every = every
        self._dice = dice
        self._until = until
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._dice.expovariate(1 / self._every)) and time.monotonic() < self._until:
            victim, what = self._choose()
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed[what] += 1

    def _choose(self) -> tuple[int, str]:
        """Whom to kill; while there are no workers yet, one of those that are there."""
        family = {pid: _role(command) for pid, command in sorted(descendants(self._pid).items())}
        workers = [pid for pid, role in family.items() if role == WORKER]
        servers = [pid for pid, role in family.items() if role != WORKER]
        fate = self._dice.random()
        if fate < DRIVER_SHARE or not family:
            return self._pid, "driver"
        if servers and fate < DRIVER_SHARE + SERVER_SHARE:
            victim = self._dice.choice(servers)
        else:
            victim = self._dice.choice(workers or servers)
        return victim, family[victim]

    def stop(self) -> None:
        self._over.set()
        self.join()


def _role(command: str) -> str:
    if command.startswith("ray::Worker"):
        return WORKER
    for name in ("raylet/raylet", "gcs_server", "ray::IDLE", "DashboardAgent", "RuntimeEnvAgent"):
        if name in command:
            return name.rpartition("/")[2]
    return "other"


def main(argv: Sequence[str] | None = None) -> int:
    """Soak, and say what was survived."""
    parser = argparse.ArgumentParser(prog="tests.crash.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--every", type=float, default=EVERY_SECONDS, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="stores on an S3 server that fails now and then")
    parser.add_argument("--predict", type=int, metavar="DOCUMENTS", help="score so many documents a round")
    parser.add_argument("--keep", help="directory to work in, kept")
    args = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        directory = Path(args.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsemill-soak-")))
        directory.mkdir(parents=True, exist_ok=True)
        places = str(directory)
        if args.s3:
            os.environ.update(stack.enter_context(proxied(stack.enter_context(s3_server()), every=10)).environment())
            places = f"s3://{BUCKET}"
        return soak(directory, places, args)


def soak(directory: Path, places: str, args: argparse.Namespace) -> int:
    """Rounds until the time is over; stores are made below `places`, everything else in `directory`."""
    os.environ["SPARSEMILL_CACHE"] = str(directory / "cache")
    os.environ.pop("RAY_ADDRESS", None)
    write_models(directory)
    work = _Scoring(directory, args.predict) if args.predict else _Extraction(directory)
    expected = work.expected
    dice = random.Random(args.seed)
    killed: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    rounds = 0
    begun = time.monotonic()
    until = begun + args.minutes * 60
    print(f"{len(expected)} units a round in {places}, a kill every {args.every:.1f} s, seed {args.seed}", flush=True)
    while time.monotonic() < until:
        store = f"{places}/store-{rounds}"
        attempts = 0
        while True:
            attempts += 1
            code, err, kills = attempt(work.start(store), args.every, dice, until)
            killed += kills
            ends[_ending(code, err)] += 1
            if "Traceback" in err:
                print(f"an attempt ended in a traceback, see {store}:\n{err}")
                return 1
            if code == 0:
                break
        if stored_parts(store) != expected:
            print(f"round {rounds}: the parts differ from an undisturbed run's; see {store}")
            return 1
        if not (report := FeatureStore.open(store).verify()).ok or report.rows != work.documents:
            print(f"round {rounds}: {report.problems or report.rows}; see {store}")
            return 1
        rounds += 1
        print(f"round {rounds}: whole after {attempts} attempts; {killed.total()} kills so far", flush=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"survived {killed.total()} kills in {minutes:.1f} minutes: {_listed(killed)}")
    print(f"{rounds} stores, each byte for byte that of an undisturbed run, {work.documents:,} rows, verified")
    print(f"{ends.total()} attempts: {_listed(ends)}")
    return 0


class _Extraction:
    """`extract` over a corpus."""

    documents = UNITS * DOCUMENTS

    def __init__(self, directory: Path) -> None:
        corpus = write_corpus(directory / "c.jsonl", self.documents, max_words=60, faults=True)
        settings = {"units": {"documents": DOCUMENTS}, "workers": {"max": 2, "cpus": 1}}
        self._directory = directory
        self._mapping = job_mapping(directory, corpus, directory / "expected", **settings)
        self.expected = undisturbed(directory, self._mapping)

    def start(self, store: str) -> subprocess.Popen[str]:
        name = f"{store.rpartition('/')[2]}.yaml"
        return start(write_job(self._directory / name, {**self._mapping, "store": store}))


class _Scoring:
    """`predict` over a corpus, with a model of twelve features."""

    def __init__(self, directory: Path, documents: int) -> None:
        self.documents = documents
        self._corpus = write_corpus(directory / "c.jsonl", documents, max_words=40, faults=True)
        self._model = write_model(directory, self._corpus)
        whole = self.start(str(directory / "expected"))
        _, err = whole.communicate()
        if whole.returncode:
            raise RuntimeError(err)
        self.expected = parts_of(directory / "expected")

    def start(self, store: str) -> subprocess.Popen[str]:
        options = ["--input", str(self._corpus), "--id-column", "id", "--workers", "2", "--json", "--out", store]
        return start_command("predict", str(self._model), *options)


def attempt(
    process: subprocess.Popen[str], every: float, dice: random.Random, until: float
) -> tuple[int, str, Counter[str]]:
    """Wait for the command, under fire until then: its exit code, what it said, and who was killed."""
    killer = Killer(process.pid, every, dice, until)
    killer.start()
    try:
        _, err = process.communicate(timeout=ATTEMPT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        killer.stop()
    return process.returncode, err, killer.killed


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
