"""What the distributed path costs beside calling the engine in a loop on the same units.

    python -m benchmarks.overhead [--documents 768] [--rounds 2] [--json] [--record]

`loop`: as many processes as cores, each with an engine of one thread, take unit after unit from one queue and call
`Extractor.extract` on texts that are in memory already; nothing is read and nothing written. `distributed`: what
`sparsemill extract` does, Ray actors under the dispatcher, from reading the rows to the parts and the journal in their
places. Both clocks start when all engines are open and have done a rehearsal unit, and stop with the last unit. They
take turns, and the medians are compared: by the clock on the wall, and by the processors' seconds of all processes
(Ray's servers and the driver included), which other work on the machine disturbs less. `start`: seconds from the start
of `sparsemill extract` (a new process, the bundle prepared) until its first part is there.

Gemma 3 270M, layer 9, an SAE of 16,384 features, Reuters R8, as in `extract.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import corpus, extract, machine, report
from benchmarks.peers.ours import job_mapping
from featurestore.errors import JobFailed
from featurestore.format.store_plan import create_store
from ray_jobs.cluster.session import ray_cluster, worker_environment
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.planning.units import Unit
from ray_jobs.reporting.rate import JobSize
from ray_jobs.run.dispatcher import Committed, Dispatcher
from ray_jobs.run.journal import Journal
from ray_jobs.spec import job_from_mapping
from ray_jobs.workers.failures import Failure
from ray_jobs.workers.ray_pool import RayPool
from ray_jobs.workers.worker import WorkerTask

REHEARSAL = 0  # the unit that every engine does before the clock: kernels are chosen, buffers allocated


class TimedPool(RayPool):
    """A pool whose workers rehearse before they say that they are open, and which notes when the last one did."""

    opened = processors = 0.0

    def start(self, worker: int) -> None:
        super().start(worker)
        actor = self._actors[worker]
        (opening,) = [ref for ref, owed in self._owed.items() if owed == ("open", worker, -1)]
        del self._owed[opening]
        unit = self._units[REHEARSAL]
        for ref in (opening, actor.try_range.remote(unit, 0, unit.rows, {})):
            if isinstance(outcome := self._ray.get(ref), Failure):
                raise outcome.error or JobFailed(outcome.reason)
        self.opened, self.processors = self.now(), processor_seconds()
        self._owed[self._ray.put({"host": "here"})] = ("open", worker, -1)


def processor_seconds() -> float:
    """Of this process and all that it started, as far as they live."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family, todo = set(), [os.getpid()]
    while todo:
        family.add(above := todo.pop())
        todo += [child for child, parent in parents.items() if parent == above and child not in family]
    return sum(used[pid] for pid in family)


def distributed(plan: JobPlan) -> tuple[float, float]:
    """Seconds for all units through Ray, on the wall and of processors."""
    create_store(plan.job.store, plan.store)
    workers = plan.job.workers.max or 1
    with ray_cluster(None, workers, 0) as ray:
        pool = TimedPool(ray, plan)
        journal = Journal(plan.job.store)
        dispatcher = Dispatcher(pool, plan.units, JobSize(plan.scan.rows, 0, plan.mean_tokens), workers)
        try:
            for event in dispatcher.run():
                if isinstance(event, Committed):
                    journal.add(event.report, event.host)
            journal.close()
            return pool.now() - pool.opened, processor_seconds() - pool.processors
        finally:
            pool.close()


def loop(plan: JobPlan) -> tuple[float, float]:
    """Seconds for the engine alone, in as many processes, on the wall and of processors."""
    workers = plan.job.workers.max or 1
    context = multiprocessing.get_context("spawn")
    todo, ready, go, done = (context.Queue() for _ in range(4))
    for unit in range(len(plan.units)):
        todo.put(unit)
    for _ in range(workers):
        todo.put(None)
    processes = [
        context.Process(target=_loop, args=(WorkerTask.of(plan), plan.units, todo, ready, go, done))
        for _ in range(workers)
    ]
    before = dict(os.environ)
    os.environ.update(worker_environment(1))
    for process in processes:
        process.start()
    os.environ.clear()
    os.environ.update(before)
    for _ in processes:
        ready.get()
    begun = time.perf_counter()
    for _ in processes:
        go.put(None)
    processors = sum(done.get() for _ in processes)
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    return seconds, processors


def _loop(task: WorkerTask, units: Sequence[Unit], todo: Any, ready: Any, go: Any, done: Any) -> None:
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.corpus.read import read_rows
    from ray_jobs.engine.extractor import Extractor, ExtractSettings

    extractor = Extractor(open_bundle(task.bundle), ExtractSettings(**task.settings))
    rows = [read_rows(unit.slices, task.job.corpus, task.keep_types) for unit in units]
    extractor.extract(rows[REHEARSAL].text, rows[REHEARSAL].error)
    ready.put(None)
    go.get()
    begun = time.process_time()
    while (unit := todo.get()) is not None:
        extractor.extract(rows[unit].text, rows[unit].error)
    done.put(time.process_time() - begun)


def seconds_to_first_part(job: Path, store: Path) -> float:
    """From the start of the command until a part is there."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "sparsemill", "extract", str(job)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list((store / "parts").glob("part-*.parquet")):
            if process.poll() not in (None, 0):
                raise RuntimeError(f"sparsemill extract ended with {process.returncode}")
            time.sleep(0.01)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    setup = extract.setup_of(args)
    texts = corpus.evenly_spaced(corpus.load_texts(), args.documents)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        file = corpus.write_jsonl(directory / "corpus.jsonl", texts)

        def mapping(store: str) -> dict[str, Any]:
            return {**job_mapping(setup, file, directory / store), "units": {"documents": args.unit_documents}}

        def plan(store: str) -> JobPlan:
            return make_plan(job_from_mapping(mapping(store), directory))

        taken: dict[str, list[tuple[float, float]]] = {"loop": [], "distributed": []}
        for number in range(args.rounds):
            made = plan(f"store-{number}")
            taken["loop"].append(loop(made))
            taken["distributed"].append(distributed(made))
        job = directory / "job.yaml"
        job.write_text(yaml.safe_dump(mapping("start")), encoding="utf-8")
        start = seconds_to_first_part(job, directory / "start")
    seconds = {way: [wall for wall, _ in rounds] for way, rounds in taken.items()}
    processors = {way: [used for _, used in rounds] for way, rounds in taken.items()}
    figures = {
        "machine": described,
        "command": sys.argv[1:],
        "documents": len(texts),
        "units": len(made.units),
        "workers": setup.threads,
        "seconds": seconds,
        "overhead": _overhead(seconds),
        "processor_seconds": processors,
        "processor_overhead": _overhead(processors),
        "start_to_first_part_seconds": start,
    }
    if args.record:
        print(report.record("overhead", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown(figures))
    return 0


def _overhead(seconds: Mapping[str, Sequence[float]]) -> float:
    return statistics.median(seconds["distributed"]) / statistics.median(seconds["loop"]) - 1


def shown(figures: Mapping[str, Any]) -> str:
    """For a terminal."""
    lines = [f"{figures['documents']:,} documents in {figures['units']} units, {figures['workers']} workers"]
    for taken, overhead, unit in (
        (figures["seconds"], figures["overhead"], "s"),
        (figures["processor_seconds"], figures["processor_overhead"], "s of processors"),
    ):
        lines += [f"  {way:<12} {', '.join(f'{s:.1f}' for s in rounds)} {unit}" for way, rounds in taken.items()]
        lines.append(f"  overhead     {overhead:+.1%}")
    lines.append(f"  first part   {figures['start_to_first_part_seconds']:.1f} s after the command was started")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", type=int, default=768)
    parser.add_argument("--unit-documents", type=int, default=96, help="documents of a unit")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sae", type=Path)
    parser.add_argument("--layer", type=int, default=extract.LAYER)
    parser.add_argument("--width", type=int, default=extract.WIDTH)
    parser.add_argument("--max-tokens", type=int, default=extract.MAX_TOKENS)
    parser.add_argument("--threads", type=int, default=machine.n_cores())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
