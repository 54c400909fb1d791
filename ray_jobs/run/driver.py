"""Running a plan: hold the store, do what is missing, write the manifest when all parts are there.

Workers write their parts themselves; text and features never come here. What to do when something fails is decided by
the dispatcher; whatever happened, running the same plan again does only what is missing. Of the parts that are there
already nothing is read but what the journal says of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from featurestore.base.fault_points import fault_point
from featurestore.base.foreign import named
from featurestore.errors import JobFailed
from featurestore.storage.files import shown
from ray_jobs.cluster.session import ray_cluster
from ray_jobs.corpus.spill import drop, run_name
from ray_jobs.planning.job_plan import JobPlan, check_device, make_plan
from ray_jobs.planning.measured import remember_rates
from ray_jobs.reporting.run_record import Recorder, RunState, recorded
from ray_jobs.run.dispatcher import Dispatcher, UnitsFailed
from ray_jobs.run.failure_policy import STORAGE_TRIES, waiting
from ray_jobs.run.failures import storage_refusal, transient_faults_shown
from ray_jobs.run.journal import Journal, earlier_records
from ray_jobs.run.lease import Lease, check_free, held
from ray_jobs.run.outcome import ExtractResult, check_errors
from ray_jobs.run.ray_pool import RayCrew, gpus_each
from ray_jobs.run.totals import Tally

if TYPE_CHECKING:
    from featurestore.writing.writer import PartRecord
    from ray_jobs.reporting.progress import Progress
    from ray_jobs.run.worker import Report
    from ray_jobs.spec import JobSpec

RATE_SECONDS = 10.0  # of work at a place before a measured rate means anything

T = TypeVar("T")


def extract(
    job: JobSpec, address: str | None = None, progress: Progress | None = None, force: bool = False
) -> ExtractResult:
    """Run a job, or finish what is missing of it.

    Args:
        job: The job.
        address: Of a Ray cluster, as `ray.init` takes it; None starts a local one for the run.
        progress: Where to show it; nowhere if not given.
        force: Take the store from another run that holds it.

    Returns:
        What is in the store now.

    Raises:
        UsageError: The job, its corpus, model, SAEs or store are at fault; nothing was written.
        TooManyErrors: The store is whole, and more of its documents failed than `corpus.max_errors` allows.
        JobFailed: Some units failed for good; the parts of the others are there.
    """
    note = progress.note if progress else None
    if not force:
        check_free(job.store, note)
    return run_plan(make_plan(job, note), address, progress, force)


def run_plan(
    plan: JobPlan, address: str | None = None, progress: Progress | None = None, force: bool = False
) -> ExtractResult:
    """Do the missing units of a plan and complete its store; arguments and errors as for `extract`."""
    from featurestore.format.store_plan import create_store
    from featurestore.writing.writer import finish_store

    begun = time.perf_counter()
    tally = Tally()
    if plan.missing or not plan.finished:
        if plan.missing and address is None:
            check_device(plan.compute)
        with held(plan.job.store, force, note=progress.note if progress else None) as lease:
            fault_point("driver.before_store")
            patiently(create_store, plan.job.store, plan.store)
            journal = Journal(plan.job.store)
            if plan.missing:
                with recorded(plan.job.store, progress) as recorder:
                    tally = _run(plan, address, progress, lease, journal, recorder)
            records = [*tally.records, *patiently(_earlier_records, plan)]
            lease.check()
            fault_point("driver.before_manifest")
            patiently(finish_store, plan.job.store, records)
            fault_point("driver.after_manifest")
    result = _result(plan, tally, time.perf_counter() - begun)
    check_errors(result, plan.job.corpus.max_errors)
    return result


def _run(
    plan: JobPlan,
    address: str | None,
    progress: Progress | None,
    lease: Lease,
    journal: Journal,
    recorder: Recorder,
) -> Tally:
    """Do the missing units."""
    missing = plan.missing
    most = plan.job.workers.max or max(1, (os.cpu_count() or 1) // plan.compute.threads)
    most = min(most, len(missing))
    with ray_cluster(address, most * plan.compute.threads, gpus_each(plan)) as ray:
        crew = RayCrew(ray, plan)
        said: set[str] = set()

        def committed(report: Report, place: str) -> None:
            lease.check()
            journal.add(report, place)
            for note in set(report.notes) - said:
                said.add(note)
                if progress:
                    progress.note(note)

        def watch(state: Callable[[], RunState]) -> None:
            lease.check()
            recorder(state)

        run = Dispatcher(
            crew,
            missing,
            most=plan.job.workers.max,
            mean_tokens=plan.mean_tokens,
            already=plan.scan.rows - sum(unit.rows for unit in missing),
            progress=progress,
            committed=committed,
            watch=watch,
        )
        finished = False
        try:
            tally = run.to_the_end()
            finished = True
        except UnitsFailed as failure:
            there = len(plan.units) - len(missing) + run.done
            raise JobFailed(
                f"{failure}; {there} of {len(plan.units)} parts are in {shown(plan.job.store)}, "
                "and the same command does the rest"
            ) from failure
        finally:
            recorder.take(run.state())
            crew.close(finished)
            drop(run_name(plan.store.fingerprint))
            journal.close()
            if progress:
                progress.close()
    reached = {place: tokens / took for place, (tokens, took) in tally.by_place.items() if took >= RATE_SECONDS}
    if reached and plan.output is None:  # what computes some features only is no measure of an extraction
        remember_rates(plan, reached)
    return tally


def patiently(do: Callable[..., T], *args: object) -> T:
    """Call a function of the store, again and again while storage does not answer.

    Raises:
        JobFailed: Storage refuses for good, or did not answer for half a minute.
    """
    times = 0
    while True:
        try:
            with transient_faults_shown():
                return do(*args)
        except OSError as error:
            times += 1
            if (refusal := storage_refusal(error, "the store")) is not None:
                raise JobFailed(refusal) from error
            if times >= STORAGE_TRIES:
                raise JobFailed(f"storage failed {times} times ({named(error)}); the same command goes on") from error
            time.sleep(waiting(times))


def _earlier_records(plan: JobPlan) -> Iterable[PartRecord]:
    """Records of the parts that were there before: from the journal, and only where it says nothing from the part."""
    from featurestore.writing.writer import read_record

    there = {unit.index: plan.committed[unit.index] for unit in plan.units if unit.index in plan.committed}
    known = earlier_records(plan.job.store, there)
    unknown = [unit for unit in there if unit not in known]
    with ThreadPoolExecutor(max_workers=8) as pool:  # a record is a file read whole: storage answers several at a time
        read = list(pool.map(lambda unit: read_record(plan.job.store, unit, plan.store), unknown))
    return [*known.values(), *read]


def _result(plan: JobPlan, tally: Tally, seconds: float) -> ExtractResult:
    from featurestore.reader import FeatureStore

    status = patiently(lambda: FeatureStore.open(plan.job.store).status())
    return ExtractResult(
        store=plan.job.store,
        documents=status.rows,
        errors=status.errors,
        tokens=status.tokens,
        bytes=status.bytes,
        units=len(plan.units),
        units_run=len(tally.records),
        documents_run=tally.documents,
        tokens_run=tally.tokens,
        seconds=seconds,
        work_seconds=tally.work_seconds,
        workers=tally.workers,
    )
