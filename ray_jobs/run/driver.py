"""Run a plan: hold the store, do the units that are missing, write the manifest when all parts are there.

The way from a job to a whole store, in the order in which it is walked. Workers write their parts themselves, so text
and features never come here, and of the parts that are there already nothing is read but what the journal says of
them. Whatever happened, running the same plan again does only what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from featurestore.base.fault_points import fault_point
from featurestore.base.library_errors import named
from featurestore.errors import JobFailed
from featurestore.storage.files import shown
from ray_jobs.cluster.session import ray_cluster
from ray_jobs.corpus.spill import drop, run_name
from ray_jobs.planning.job_plan import JobPlan, check_device, make_plan
from ray_jobs.planning.measured import remember_rates
from ray_jobs.reporting.rate import JobSize
from ray_jobs.reporting.run_record import recorded
from ray_jobs.run.dispatcher import Committed, Dispatcher, Note, UnitsFailed
from ray_jobs.run.failure_policy import STORAGE_TRIES, seconds_to_wait
from ray_jobs.run.journal import Journal, read_records, records_of_parts
from ray_jobs.run.outcome import ExtractResult, check_errors
from ray_jobs.run.store_lease import Lease, check_free, hold_store
from ray_jobs.run.totals import RunTotals
from ray_jobs.workers.failures import storage_refusal, transient_storage_errors
from ray_jobs.workers.ray_pool import RayPool, gpus_each

if TYPE_CHECKING:
    from ray_jobs.reporting.progress import Progress
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
    started = time.perf_counter()
    totals = RunTotals()
    if plan.missing or not plan.finished:
        if plan.missing and address is None:
            check_device(plan.compute, plan.settings["devices"])
        with hold_store(plan.job.store, force, note=progress.note if progress else None) as lease:
            totals = _complete(plan, address, progress, lease)
    result = _result(plan, totals, time.perf_counter() - started)
    check_errors(result, plan.job.corpus.max_errors)
    return result


def _complete(plan: JobPlan, address: str | None, progress: Progress | None, lease: Lease) -> RunTotals:
    """Make the store, do what is missing of it, and write its manifest."""
    from featurestore.format.store_plan import create_store
    from featurestore.writing.writer import finish_store

    uri = plan.job.store
    fault_point("driver.before_store")
    with_retries(lambda: create_store(uri, plan.store))
    totals = _do_missing(plan, address, progress, lease) if plan.missing else RunTotals()
    there = {unit.index: plan.committed[unit.index] for unit in plan.units if unit.index in plan.committed}
    records = [record for record in totals.records if record.unit not in totals.given_again]
    records += read_records(uri, plan.store, sorted(totals.given_again), with_retries)
    records += with_retries(lambda: records_of_parts(uri, plan.store, there))
    lease.check()
    fault_point("driver.before_manifest")
    with_retries(lambda: finish_store(uri, records))
    fault_point("driver.after_manifest")
    return totals


def _do_missing(plan: JobPlan, address: str | None, progress: Progress | None, lease: Lease) -> RunTotals:
    """Do the missing units on Ray, and write down what happens."""
    missing, uri, threads = plan.missing, plan.job.store, plan.compute.threads
    most = min(plan.job.workers.max or max(1, (os.cpu_count() or 1) // threads), len(missing))
    size = JobSize(plan.scan.rows, plan.scan.rows - sum(unit.rows for unit in missing), plan.mean_tokens)
    with recorded(uri, progress) as recorder, ray_cluster(address, most * threads, gpus_each(plan)) as ray:
        pool, journal = RayPool(ray, plan), Journal(uri)
        dispatcher = Dispatcher(pool, missing, size, plan.job.workers.max)
        finished = False
        try:
            for event in dispatcher.run():
                lease.check()
                if isinstance(event, Committed):
                    journal.add(event.report, event.host)
                elif isinstance(event, Note):
                    if progress:
                        progress.note(event.text)
                else:
                    recorder.update(now := dispatcher.snapshot())
                    if progress:
                        progress.update(now, size)
            finished = True
        except UnitsFailed as failure:
            there = len(plan.units) - len(missing) + dispatcher.units_done
            raise JobFailed(
                f"{failure}; {there} of {len(plan.units)} parts are in {shown(uri)}, and the same command does the rest"
            ) from failure
        finally:
            recorder.write(dispatcher.snapshot())
            pool.close(finished)
            drop(run_name(plan.store.fingerprint))
            journal.close()
            if progress:
                progress.close()
    _remember_rates(plan, dispatcher.totals)
    return dispatcher.totals


def _remember_rates(plan: JobPlan, totals: RunTotals) -> None:
    reached = {place: tokens / took for place, (tokens, took) in totals.by_place.items() if took >= RATE_SECONDS}
    if reached and plan.output is None:  # computing some features only is no measure of an extraction
        remember_rates(plan, reached)


def with_retries(do: Callable[[], T]) -> T:
    """Call a function of the store, again and again while storage does not answer.

    Raises:
        JobFailed: Storage refuses for good, or did not answer for half a minute.
    """
    times = 0
    while True:
        try:
            with transient_storage_errors():
                return do()
        except OSError as error:
            times += 1
            if (refusal := storage_refusal(error, "the store")) is not None:
                raise JobFailed(refusal) from error
            if times >= STORAGE_TRIES:
                raise JobFailed(f"storage failed {times} times ({named(error)}); the same command goes on") from error
            time.sleep(seconds_to_wait(times))


def _result(plan: JobPlan, totals: RunTotals, seconds: float) -> ExtractResult:
    from featurestore.reader import FeatureStore

    status = with_retries(lambda: FeatureStore.open(plan.job.store).status())
    return ExtractResult(
        store=plan.job.store,
        documents=status.rows,
        errors=status.errors,
        tokens=status.tokens,
        bytes=status.bytes,
        units=len(plan.units),
        units_run=len(totals.records),
        documents_run=totals.documents,
        tokens_run=totals.tokens,
        seconds=seconds,
        work_seconds=totals.work_seconds,
        workers=totals.workers,
    )
