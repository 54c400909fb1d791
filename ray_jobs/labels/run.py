"""Run a label job: the driver, units and parts of an extraction, with answers in place of features, then one table.

The same command again does what is missing; a table that is there is not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.base.number_words import counted, share, there
from featurestore.errors import JobFailed, MismatchError
from featurestore.reader import FeatureStore
from featurestore.storage.files import shown
from ray_jobs.cluster.session import sigterm_unwinds
from ray_jobs.labels.answers import Labels
from ray_jobs.labels.spec import of_text
from ray_jobs.labels.table import check_out, write_table
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.reporting.progress import Progress
from ray_jobs.run.driver import run_plan
from ray_jobs.run.outcome import TooManyErrors
from ray_jobs.run.store_lease import check_free
from ray_jobs.tolerance import exceeds, limit

if TYPE_CHECKING:
    from ray_jobs.labels.spec import LabelSpec
    from ray_jobs.planning.job_plan import JobPlan
    from ray_jobs.spec import JobSpec


@dataclass(frozen=True)
class Labelled:
    """A table of labels, and what this run did for it.

    Attributes:
        table: Where it is.
        fingerprint: Of its job.
        prompts: Rows.
        errors: Rows with an error.
        correct: Rows that the model got right.
        units_run: Units that this run did.
        seconds: Of this run; 0 where nothing was to do.
    """

    table: str
    fingerprint: str
    prompts: int
    errors: int
    correct: int
    units_run: int
    seconds: float


def plan_labels(spec: LabelSpec, job: JobSpec, progress: Progress | None = None) -> JobPlan:
    """Plan a label job; nothing is written.

    Raises:
        UsageError: Corpus, model or task are at fault, or the parts are another job's.
    """
    note, labels = progress.note if progress else None, Labels.of(spec)
    try:
        return of_text(spec, job, lambda settled: make_plan(settled, note, output=labels))
    except MismatchError as error:
        said = str(error).rpartition("; ")[0]
        raise MismatchError(f"{said}; choose another 'out', or delete these parts if nobody needs them") from None


def label(
    spec: LabelSpec,
    job: JobSpec,
    address: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Labelled:
    """Run a label job, or finish what is missing of it.

    Args:
        spec: The label job.
        job: The job that it is run as.
        address: Of a Ray cluster; None starts a local one.
        progress: Where to show it.
        overwrite: Whether another table in its place may be replaced.
        force: Take the parts from another run that holds them.

    Raises:
        UsageError: Corpus, model, task or place are at fault; nothing was written.
        JobFailed: Some units failed, and the parts of the others are there; or the table is whole, and more of its
            rows have an error than `corpus.max_errors` allows.
    """
    progress = progress or Progress()
    try:
        with sigterm_unwinds():
            if not force:
                check_free(job.store, progress.note)
            made = plan_labels(spec, job, progress)
            if check_out(spec.out, made.store.fingerprint, overwrite):
                return _checked(_labelled(spec, made.store.fingerprint, 0, 0.0), job)
            if made.missing:
                done = len(made.units) - len(made.missing)
                said = f" ({there(done)})" if done else ""
                progress.note(f"{counted(len(made.missing), 'unit')} to do{said}; starting Ray")
            failed: TooManyErrors | None = None
            try:
                result = run_plan(made, address, progress, force)
            except TooManyErrors as error:
                failed, result = error, error.result
            write_table(spec, FeatureStore.open(job.store))
    except (KeyboardInterrupt, SystemExit):
        progress.note(f"stopped; parts that are done stay in {shown(job.store)}")
        raise
    if failed is not None:
        told = str(failed).partition("; the store ")[0].replace("documents", "prompts")
        raise JobFailed(f"{told}; the table {shown(spec.out)} is whole and stays, with each error in its row")
    return _labelled(spec, made.store.fingerprint, result.units_run, result.seconds)


def _checked(found: Labelled, job: JobSpec) -> Labelled:
    """A table that is there; JobFailed where it has more errors than are allowed, as from the run that wrote it."""
    allowed = job.corpus.max_errors
    if exceeds(found.errors, found.prompts, allowed):
        raise JobFailed(
            f"{found.errors:,} of {counted(found.prompts, 'prompt')} ({share(found.errors, found.prompts)}) have an "
            f"error, more than corpus.max_errors: {limit(allowed)} allows; the table {shown(found.table)} is there and "
            "stays, with each error in its row"
        )
    return found


def _labelled(spec: LabelSpec, fingerprint: str, units_run: int, seconds: float) -> Labelled:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from featurestore.storage.files import reached

    fs, path = reached(spec.out)
    table = pq.read_table(path, columns=["correct", "error"], filesystem=fs)
    errors = len(table) - table.column("error").null_count
    correct = int(pc.sum(table.column("correct")).as_py() or 0)
    return Labelled(spec.out, fingerprint, len(table), errors, correct, units_run, seconds)
