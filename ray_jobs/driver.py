"""Running a plan: units go to Ray actors, small reports come back, the manifest is written when all parts are there.

At most two units are in flight with a worker, one under way and one to go on with; text and features never come here.
A worker that dies is replaced and its units are handed out again; a unit that fails for good does not stop the
others, but the job fails at the end and says which. Whatever happened, running the same plan again does only what is
missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError, JobFailed, SparsemillError
from ray_jobs.cluster import ray_cluster, worker_environment
from ray_jobs.ledger import Ledger
from ray_jobs.plan import JobPlan, check_device, make_plan
from ray_jobs.pricing import remember_rate
from ray_jobs.progress import Progress, Standing
from ray_jobs.worker import Report, Worker, WorkerTask

if TYPE_CHECKING:
    from featurestore.writer import PartRecord
    from ray_jobs.spec import JobSpec

IN_FLIGHT = 2  # units a worker: one under way, and one so that it never waits for the driver
POLL_SECONDS = 1.0  # how often workers are asked how far they are
MAX_STARTS_LOST = 3  # workers lost in a row before any of them could open the model
MAX_FAILED_UNITS = 3  # after so many the fault is not in the units
RATE_SECONDS = 10.0  # of work before a measured rate means anything


@dataclass(frozen=True)
class ExtractResult:
    """A complete store, and what this run did for it.

    Attributes:
        store: Where it is.
        documents: Rows.
        errors: Rows with an error.
        tokens: Tokens pooled.
        bytes: Size of all parts.
        units: Parts.
        units_run: Units that this run did.
        documents_run: Documents in them.
        tokens_run: Tokens in them.
        seconds: Wall time from the plan to the manifest.
        work_seconds: Time that workers were busy, summed over them.
        workers: Workers at the most.
    """

    store: str
    documents: int
    errors: int
    tokens: int
    bytes: int
    units: int
    units_run: int
    documents_run: int
    tokens_run: int
    seconds: float
    work_seconds: float
    workers: int


def extract(job: JobSpec, address: str | None = None, progress: Progress | None = None) -> ExtractResult:
    """Run a job, or finish what is missing of it.

    Args:
        job: The job.
        address: Of a Ray cluster, as `ray.init` takes it; None starts a local one for the run.
        progress: Where to show it; nowhere if not given.

    Returns:
        What is in the store now.

    Raises:
        UsageError: The job, its corpus, model, SAEs or store are at fault; nothing was written.
        JobFailed: Some units failed for good; the parts of the others are there.
    """
    return run_plan(make_plan(job, progress.note if progress else None), address, progress)


def run_plan(plan: JobPlan, address: str | None = None, progress: Progress | None = None) -> ExtractResult:
    """Do the missing units of a plan and complete its store; arguments and errors as for `extract`."""
    from featurestore.plan import create_store
    from featurestore.writer import finish_store

    begun = time.perf_counter()
    missing = plan.missing
    reports: list[Report] = []
    n_workers = 0
    if missing:
        if address is None:
            check_device(plan.compute)
        create_store(plan.job.store, plan.store)
        most = plan.job.workers.max or max(1, (os.cpu_count() or 1) // plan.compute.threads)
        most = min(most, len(missing))
        with ray_cluster(address, most * plan.compute.threads, gpus_each(plan)) as ray:
            n_workers = min(plan.job.workers.max or _room(ray, plan), len(missing))
            run = _Run(ray, plan, n_workers, progress)
            try:
                reports = run.to_the_end()
            finally:
                run.close()
                if progress:
                    progress.close()
        work_seconds = sum(report.seconds for report in reports)
        if work_seconds >= RATE_SECONDS:
            remember_rate(plan, sum(report.record.tokens for report in reports) / work_seconds)
    if missing or not plan.finished:
        finish_store(plan.job.store, [*(report.record for report in reports), *_earlier_records(plan)])
    return _result(plan, reports, n_workers, time.perf_counter() - begun)


def gpus_each(plan: JobPlan) -> float:
    """GPUs that one worker reserves."""
    if plan.compute.device == "cpu":
        return 0
    return plan.job.workers.gpus if plan.job.workers.gpus is not None else 1


def _room(ray: Any, plan: JobPlan) -> int:
    """Workers that the cluster has room for as it is now; one at least, whose waiting makes an autoscaler act."""
    resources = ray.cluster_resources()
    gpus = gpus_each(plan)
    fitting = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 0) / plan.compute.threads
    return max(1, int(fitting))


class _Run:
    """The workers of one run and what they owe."""

    def __init__(self, ray: Any, plan: JobPlan, n_workers: int, progress: Progress | None) -> None:
        self._ray = ray
        self._plan = plan
        self._n_workers = n_workers
        self._progress = progress
        self._units = {unit.index: unit for unit in plan.missing}
        self._ledger: Ledger[int] = Ledger(self._units)
        self._actors: dict[int, Any] = {}  # all that were started and not lost, by serial number
        self._ready: set[int] = set()
        self._owed: dict[Any, tuple[str, int, int]] = {}  # ref -> what ("open", "run", "live"), worker, unit
        self._asked: set[int] = set()  # workers that have not answered the last `live`
        self._live: dict[int, tuple[int, int, int]] = {}
        self._reports: list[Report] = []
        self._serial = 0
        self._starts_lost = 0
        self._next_poll = 0.0
        self._rows = plan.scan.rows - sum(unit.rows for unit in self._units.values())
        self._tokens = self._errors = 0
        self._actor_class = ray.remote(
            num_cpus=plan.compute.threads,
            num_gpus=gpus_each(plan),
            max_restarts=0,
            max_concurrency=1,
            concurrency_groups={"live": 1},
            runtime_env={"env_vars": worker_environment(plan.compute.threads)},
        )(Worker)
        self._task = WorkerTask.of(plan)

    def to_the_end(self) -> list[Report]:
        """Run until every unit is done or has failed for good.

        Raises:
            SparsemillError: The job cannot work, or units failed for good.
        """
        while self._ledger.open and len(self._ledger.failed) < MAX_FAILED_UNITS:
            self._start_workers()
            for worker in self._ready:
                self._hand_out(worker)
            self._poll()
            answered, _ = self._ray.wait(list(self._owed), num_returns=1, timeout=POLL_SECONDS)
            if answered:  # and whatever else has come by now
                answered, _ = self._ray.wait(list(self._owed), num_returns=len(self._owed), timeout=0)
            for ref in answered:
                if ref in self._owed:  # not one of a worker that was found dead a moment ago
                    self._answer(ref)
            self._show()
        if self._ledger.failed:
            raise JobFailed(self._failure())
        return self._reports

    def close(self) -> None:
        """Stop the workers; what they have in hand is abandoned, which is harmless."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()

    def _start_workers(self) -> None:
        while len(self._actors) < min(self._n_workers, self._ledger.open):
            worker, self._serial = self._serial, self._serial + 1
            actor = self._actor_class.remote(self._task)
            self._actors[worker] = actor
            self._owed[actor.open.remote()] = ("open", worker, -1)

    def _hand_out(self, worker: int) -> None:
        # Near the end nobody hoards: a second unit is only for a worker while there are enough for all.
        limit = IN_FLIGHT if self._ledger.waiting > len(self._ready) else 1
        while len(self._ledger.held_by(worker)) < limit and (index := self._ledger.take(worker)) is not None:
            ref = self._actors[worker].run.remote(self._units[index])
            self._owed[ref] = ("run", worker, index)

    def _poll(self) -> None:
        now = time.monotonic()
        if self._progress is None or now < self._next_poll:
            return
        self._next_poll = now + POLL_SECONDS
        for worker in self._ready - self._asked:
            ref = self._actors[worker].live.options(concurrency_group="live").remote()
            self._owed[ref] = ("live", worker, -1)
            self._asked.add(worker)

    def _answer(self, ref: Any) -> None:
        what, worker, unit = self._owed.pop(ref)
        errors = self._ray.exceptions
        try:
            value = self._ray.get(ref)
        except errors.RayTaskError as error:
            self._raised(what, worker, unit, error.cause)
        except errors.RayError as error:
            self._lost(worker, error)
        else:
            if what == "open":
                self._ready.add(worker)
                self._starts_lost = 0
            elif what == "live":
                self._asked.discard(worker)
                self._live[worker] = value
            else:
                self._ledger.commit(worker, unit)
                self._reports.append(value)
                self._rows += value.record.rows
                self._tokens += value.record.tokens
                self._errors += value.record.errors

    def _raised(self, what: str, worker: int, unit: int, cause: BaseException) -> None:
        """Our own code raised on a worker."""
        if what == "live":
            self._asked.discard(worker)
        elif what == "open" or isinstance(cause, CorpusError):
            raise cause if isinstance(cause, SparsemillError) else JobFailed(f"a worker cannot start: {_brief(cause)}")
        elif type(cause).__name__ == "AcceleratorError":  # its GPU context is gone for good; torch is not imported here
            self._lost(worker, cause)
        else:
            self._ledger.error(worker, unit, _brief(cause))
            again = "gives up on it" if unit in self._ledger.failed else "tries again later"
            self._note(f"unit {unit} failed ({_brief(cause)}); the driver {again}")

    def _lost(self, worker: int, error: BaseException) -> None:
        """A worker is gone: drop all it owed and put its units back."""
        held = self._ledger.held_by(worker)
        self._ray.kill(self._actors.pop(worker))
        self._owed = {ref: owed for ref, owed in self._owed.items() if owed[1] != worker}
        self._ledger.lost(worker)
        self._asked.discard(worker)
        self._live.pop(worker, None)
        if worker in self._ready:
            self._ready.discard(worker)
            self._note(f"a worker died{f' in unit {held[0]}' if held else ''}; another one takes its place")
            return
        self._starts_lost += 1
        if self._starts_lost >= MAX_STARTS_LOST:
            raise JobFailed(
                f"{MAX_STARTS_LOST} workers in a row died before they had opened the model ({_brief(error)}); "
                "if that was for memory, ask for fewer with workers.max"
            )

    def _show(self) -> None:
        if self._progress is None:
            return
        under_way = [live for worker, live in self._live.items() if live[0] in self._ledger.held_by(worker)]
        self._progress.update(
            Standing(
                documents=self._rows + sum(documents for _, documents, _ in under_way),
                total=self._plan.scan.rows,
                tokens=self._tokens + sum(tokens for _, _, tokens in under_way),
                mean_tokens=self._plan.mean_tokens,
                workers=len(self._ready),
                wanted=min(self._n_workers, self._ledger.open),
                errors=self._errors,
            )
        )

    def _note(self, text: str) -> None:
        if self._progress is not None:
            self._progress.note(text)

    def _failure(self) -> str:
        from featurestore.files import shown

        (first, reason), *others = self._ledger.failed.items()
        unit = self._units[first]
        more = f" (and so did units {', '.join(str(index) for index, _ in others)})" if others else ""
        there = len(self._plan.units) - len(self._plan.missing) + len(self._ledger.done)
        return (
            f"unit {first} (documents {unit.start} to {unit.stop - 1}) failed: {reason}{more}; {there} of "
            f"{len(self._plan.units)} parts are in {shown(self._plan.job.store)}, and the same command does the rest"
        )


def _earlier_records(plan: JobPlan) -> Iterable[PartRecord]:
    """Records of the parts that were there before: their footers and hashes are read, several files at a time."""
    from featurestore.writer import read_record

    there = [unit.index for unit in plan.units if unit.index in plan.committed]
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda index: read_record(plan.job.store, index, plan.store), there))


def _result(plan: JobPlan, reports: list[Report], n_workers: int, seconds: float) -> ExtractResult:
    from featurestore.reader import FeatureStore

    status = FeatureStore.open(plan.job.store).status()
    return ExtractResult(
        store=plan.job.store,
        documents=status.rows,
        errors=status.errors,
        tokens=status.tokens,
        bytes=status.bytes,
        units=len(plan.units),
        units_run=len(reports),
        documents_run=sum(report.record.rows for report in reports),
        tokens_run=sum(report.record.tokens for report in reports),
        seconds=seconds,
        work_seconds=sum(report.seconds for report in reports),
        workers=n_workers,
    )


def _brief(error: BaseException) -> str:
    """One line of an error."""
    if isinstance(error, SparsemillError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
