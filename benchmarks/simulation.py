"""The driver at a size that no machine here has: the real loop, units, journal and manifest, and simulated workers.

    python -m benchmarks.simulation [--units 240000] [--workers 1024] [--no-second-runs] [--json] [--record]

The dispatcher that runs real jobs runs this one; only its `WorkerPool` is another. Simulated workers take a lognormal
time a unit, and now and then, for reasons of the place and not of the unit, a heavy-tailed many times as long; they are
preempted at random, and their successors take minutes to come. Time is virtual and costs nothing, so all processor
time is the driver's own, and the memory is what it would need.

Reported: units a second of the driver's time, its memory, what became of the workers' time (useful, lost with preempted
workers, wasted by waiting or by doing a unit twice), and what resuming the half-done job costs.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from featurestore.format.schema import SaeColumns, StoreSchema
from featurestore.format.store_plan import StorePlan, create_store
from featurestore.writing.writer import PartRecord, committed_units, finish_store
from ray_jobs.corpus.scanned import CorpusFile, CorpusScan
from ray_jobs.planning.units import Unit, plan_units
from ray_jobs.reporting.rate import JobSize
from ray_jobs.run.dispatcher import Committed, Dispatcher
from ray_jobs.run.journal import Journal, earlier_records
from ray_jobs.run.worker_table import UnitProgress
from ray_jobs.workers.failures import Failure, Kind
from ray_jobs.workers.worker import Report
from ray_jobs.workers.worker_pool import Abandoned, Answer

MEAN_TOKENS = 500.0
DOCUMENTS = 125_000  # a unit: 62.5M tokens; 240,000 of them are 15T
BATCH_SECONDS = 1.0  # within which an abandoned unit stops
HEARTBEAT_SECONDS = 5.0  # until a preempted worker is noticed


@dataclass(frozen=True)
class World:
    """What the simulated workers live in.

    Attributes:
        workers: Slots.
        unit_seconds: Median time of a unit: 62.5M tokens at 104k tokens a second, 9 to 10 minutes.
        spread: Deviation of its logarithm: documents differ.
        slow_share: Units that meet a bad place.
        slow_exponent: Of the Pareto factor that they then take longer.
        slow_most: The largest such factor.
        preempted_an_hour: Share of the workers.
        start_seconds: From the request for a worker to its first unit.
        seed: Of everything random.
    """

    workers: int = 1024
    unit_seconds: float = 600.0
    spread: float = 0.2
    slow_share: float = 0.01
    slow_exponent: float = 1.1
    slow_most: float = 20.0
    preempted_an_hour: float = 0.02
    start_seconds: float = 180.0
    seed: int = 0


@dataclass
class Spent:
    """Worker-seconds, by what came of them: a first commit, nothing because of a preemption, or waste."""

    useful: float = 0.0
    lost: float = 0.0
    total: float = 0.0

    @property
    def waste(self) -> float:
        """Waiting for work, and doing what another had done."""
        return self.total - self.useful - self.lost


@dataclass
class _Worker:
    ready: float | None = None
    queue: list[int] = field(default_factory=list)
    begun: float = 0.0
    ends: float = 0.0
    run: int = 0  # tells a unit's end from that of one abandoned before it


class SimulatedPool:
    """A pool without workers and with a clock of its own.

    Args:
        world: What happens to it.
        rows: Documents of each unit.
    """

    def __init__(self, world: World, rows: Mapping[int, int]) -> None:
        self.spent = Spent()
        self.happened: Counter[str] = Counter()
        self._world = world
        self._rows = rows
        self._random = random.Random(world.seed)
        self._now = 0.0
        self._events: list[tuple[float, int, str, int, int]] = []  # when, order, what, worker, unit or run
        self._order = 0
        self._workers: dict[int, _Worker] = {}
        self._asked: list[int] = []
        self._done: set[int] = set()
        self._let_go: list[float] = []

    def now(self) -> float:
        return self._now

    def room(self) -> int:
        return self._world.workers

    def unmet(self) -> None:
        return None

    def start(self, worker: int) -> None:
        self._workers[worker] = _Worker()
        self._at(self._now + self._random.uniform(0.5, 1.5) * self._world.start_seconds, "ready", worker, 0)

    def run(self, worker: int, unit: int, blamed: Mapping[int, str]) -> None:  # noqa: ARG002 (no unit fails here)
        state = self._workers[worker]
        state.queue.append(unit)
        if len(state.queue) == 1:
            self._begin(worker, state)

    def try_range(self, worker: int, unit: int, start: int, stop: int, blamed: Mapping[int, str]) -> None:
        raise NotImplementedError("no simulated unit fails")

    def ask(self, worker: int) -> None:
        self._asked.append(worker)

    def abandon(self, worker: int, unit: int) -> None:
        state = self._workers[worker]
        if state.queue[0] == unit:
            state.ends = min(state.ends, self._now + BATCH_SECONDS)
            state.run += 1
            self._at(state.ends, "abandoned", worker, state.run)
        else:
            state.queue.remove(unit)
            self._at(self._now, "dropped", worker, unit)

    def stop(self, worker: int) -> None:
        state = self._workers.pop(worker)
        if state.ready is not None:
            self.spent.total += self._now - state.ready
            if not state.queue:
                self._let_go.append(self._now)

    def wait(self, seconds: float) -> list[Answer]:
        until = self._now + max(seconds, 0.0)
        answers = [Answer("live", worker, value=self._progress(worker)) for worker in self._asked]
        self._asked.clear()
        while not answers and self._events and self._events[0][0] <= until:
            self._now, _, what, worker, number = heapq.heappop(self._events)
            if worker in self._workers:
                answers += self._happens(what, worker, number)
        if not answers:
            self._now = until
        return [answer for answer in answers if answer.worker in self._workers]

    def close(self) -> None:
        """The end: whoever is still there is paid until now."""
        for worker in list(self._workers):
            self.stop(worker)

    @property
    def saved(self) -> float:
        """Worker-seconds for which idle workers were let go before the end, and their machines with them."""
        return sum(self._now - when for when in self._let_go)

    def _happens(self, what: str, worker: int, number: int) -> list[Answer]:
        state = self._workers[worker]
        if what == "ready":
            state.ready = self._now
            lifetime = self._random.expovariate(self._world.preempted_an_hour / 3600)
            self._at(self._now + lifetime, "preempted", worker, 0)
            return [Answer("open", worker, value={"host": f"node-{worker}"})]
        if what == "preempted":
            self.happened["preempted"] += 1
            if state.queue:
                self.spent.lost += self._now - state.begun
            return [Answer("live", worker, failure=Failure(Kind.NODE, "preempted"))]
        if what == "dropped":
            return [Answer("run", worker, number, value=Abandoned(number))]
        if number != state.run:
            return []  # it was abandoned
        unit = state.queue.pop(0)
        seconds = self._now - state.begun
        if state.queue:
            self._begin(worker, state)
        if what == "abandoned":
            return [Answer("run", worker, unit, value=Abandoned(unit))]
        if unit not in self._done:
            self._done.add(unit)
            self.spent.useful += seconds
        rows = self._rows[unit]
        record = PartRecord(unit, rows, 0, round(rows * MEAN_TOKENS), 4000 * rows, f"{unit:064x}")
        return [Answer("run", worker, unit, value=Report(record, seconds))]

    def _begin(self, worker: int, state: _Worker) -> None:
        world = self._world
        seconds = world.unit_seconds * self._random.lognormvariate(0, world.spread)
        if self._random.random() < world.slow_share:
            self.happened["slow"] += 1
            seconds *= min(self._random.paretovariate(world.slow_exponent), world.slow_most)
        state.begun, state.ends = self._now, self._now + seconds
        state.run += 1
        self._at(state.ends, "done", worker, state.run)

    def _progress(self, worker: int) -> UnitProgress:
        state = self._workers.get(worker)
        if state is None or not state.queue:
            return (-1, 0, 0, 0)
        share = (self._now - state.begun) / max(state.ends - state.begun, 1e-9)
        return (state.queue[0], int(share * DOCUMENTS), int(share * DOCUMENTS * MEAN_TOKENS), 0)

    def _at(self, when: float, what: str, worker: int, number: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what, worker, number))


def units_of(n: int) -> tuple[Unit, ...]:
    """`n` units over as many Parquet files as such a corpus has: one for every four units."""
    rows = n * DOCUMENTS
    n_files = max(1, n // 4)
    files = tuple(
        CorpusFile(
            root="s3://bucket/corpus",
            path=f"bucket/corpus/{i:06d}.parquet",
            name=f"{i:06d}.parquet",
            format="parquet",
            compression=None,
            size=1 << 30,
            mtime_ns=None,
            sha256=f"{i:064x}",
            rows=rows * (i + 1) // n_files - rows * i // n_files,
        )
        for i in range(n_files)
    )
    scanned = CorpusScan(files=files, rows=rows, keep_types={}, sample=(), sample_times=(), mean_text_bytes=2000.0)
    return plan_units(scanned, DOCUMENTS, MEAN_TOKENS, "cuda")


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, and print or write what was found."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    world = World(workers=args.workers, unit_seconds=args.unit_seconds, seed=args.seed)
    if args.no_second_runs:
        Dispatcher._second_runs = lambda *_: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        result = {**run(world, args.units, Path(directory)), **resume(args.units, Path(directory))}
    document = {"world": asdict(world), "units": args.units, "second_runs": not args.no_second_runs, **result}
    if args.record:
        name = f"simulation-{args.units}-{args.workers}{'-single' if args.no_second_runs else ''}"
        report.record(name, document, described)
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        _print(document)
    return 0


def run(world: World, n_units: int, directory: Path) -> dict[str, Any]:
    """One undisturbed driver over a whole job, and what it took."""
    begun_at = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    units = units_of(n_units)
    schema = StoreSchema(keep=(), saes=(SaeColumns("l12_16k", 16_384, ("max",)),), dense=(), value_bits=8)
    store = StorePlan(schema, {}, {}, [(unit.start, unit.stop) for unit in units], units[-1].stop, {})
    create_store(str(directory), store)
    journal = Journal(str(directory))
    pool = SimulatedPool(world, {unit.index: unit.rows for unit in units})
    dispatcher = Dispatcher(pool, units, JobSize(units[-1].stop, 0, MEAN_TOKENS), most=world.workers)
    begun = time.process_time()
    for event in dispatcher.run():
        if isinstance(event, Committed):
            journal.add(event.report, event.host)
    seconds = time.process_time() - begun
    pool.close()
    journal.close()
    begun = time.process_time()
    finish_store(str(directory), dispatcher.totals.records)
    finishing = time.process_time() - begun
    spent = pool.spent
    return {
        "driver_seconds": seconds,
        "units_per_second": n_units / seconds,
        "manifest_seconds": finishing,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rss_before_bytes": begun_at * 1024,
        "virtual_hours": pool.now() / 3600,
        "worker_hours": spent.total / 3600,
        "useful": spent.useful / spent.total,
        "lost_to_preemption": spent.lost / spent.total,
        "waste": spent.waste / spent.total,
        "waste_if_none_is_let_go": (spent.waste + pool.saved) / (spent.total + pool.saved),
        "events": {**pool.happened, **dispatcher.totals.events},
        "records": len({record.unit for record in dispatcher.totals.records}),
    }


def resume(n_units: int, directory: Path) -> dict[str, Any]:
    """What it costs to find out what a half-done job has done: its parts listed, its records read."""
    (directory / "parts").mkdir(exist_ok=True)
    (directory / "manifest.json").unlink()
    names = [directory / "parts" / f"part-{unit:06d}.parquet" for unit in range(0, n_units, 2)]
    for name in names:  # as large as their records say, and without a byte on the disk
        with name.open("wb") as file:
            file.truncate(4000 * DOCUMENTS)
    begun = time.perf_counter()
    sizes = committed_units(str(directory))
    listed = time.perf_counter() - begun
    begun = time.perf_counter()
    known = earlier_records(str(directory), sizes)
    return {
        "parts_there": len(sizes),
        "listing_seconds": listed,
        "records_known": len(known),
        "records_seconds": time.perf_counter() - begun,
        "journal_files": len(list((directory / ".journal").iterdir())),
    }


def _print(document: Mapping[str, Any]) -> None:
    print(f"units               {document['units']:,} on {document['world']['workers']:,} workers")
    print(f"virtual time        {document['virtual_hours']:,.1f} h, {document['worker_hours']:,.0f} worker-hours")
    rate, seconds = document["units_per_second"], document["driver_seconds"]
    print(f"driver              {rate:,.0f} units/s; its work took {seconds:,.1f} s")
    print(f"memory              {document['peak_rss_bytes'] / 2**20:,.0f} MiB at the most")
    print(f"manifest            {document['manifest_seconds']:,.1f} s")
    for name in ("useful", "lost_to_preemption", "waste", "waste_if_none_is_let_go"):
        print(f"{name.replace('_', ' '):<25} {document[name]:.2%} of worker time")
    print(f"happened            {', '.join(f'{count:,} {what}' for what, count in document['events'].items())}")
    print(
        f"resuming            {document['parts_there']:,} parts listed in {document['listing_seconds']:.1f} s, "
        f"{document['records_known']:,} records from {document['journal_files']:,} files "
        f"in {document['records_seconds']:.1f} s"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.simulation", description=__doc__)
    parser.add_argument("--units", type=int, default=240_000)
    parser.add_argument("--workers", type=int, default=1024)
    parser.add_argument("--unit-seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-second-runs", action="store_true", help="let stragglers be")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
