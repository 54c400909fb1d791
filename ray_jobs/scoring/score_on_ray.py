"""Score a large corpus on Ray: the driver, units and parts of an extraction, with predictions in place of features.

Features are computed where rows are read, scored there and forgotten. The same command again does what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featurestore.base.number_words import counted, there
from featurestore.errors import MismatchError
from featurestore.storage.files import shown
from ray_jobs.cluster.session import sigterm_unwinds
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.reporting.progress import Progress
from ray_jobs.run.driver import run_plan
from ray_jobs.run.store_lease import check_free
from ray_jobs.scoring.model_job import bundle_of, find_bundle, job_of

if TYPE_CHECKING:
    from ray_jobs.run.outcome import ExtractResult
    from ray_jobs.scoring.scores import Scores


def score_corpus(
    scores: Scores, corpus: Mapping[str, Any], out: str, address: str | None = None, workers: int | None = None
) -> ExtractResult:
    """Score the documents of a corpus into a directory of parts, or finish what is missing of it.

    Args:
        scores: The model and how its answers are written.
        corpus: The corpus, as JOB.yaml has it.
        out: The directory or URL.
        address: Of a Ray cluster; None starts a local one.
        workers: At most so many.

    Returns:
        What is there now.

    Raises:
        UsageError: Model, corpus or directory are at fault; nothing was written.
        JobFailed: Some units failed; the parts of the others are there.
    """
    progress = Progress()
    # Other machines build the bundle that the job names; on this one the bundle of the training store will do.
    bundle = find_bundle(scores.model) if address is None else None
    job = job_of(scores.model, bundle, corpus, out).at_most(workers)
    try:
        with sigterm_unwinds():
            check_free(job.store, progress.note)
            bundle = bundle or bundle_of(scores.model, progress.note)
            try:
                made = make_plan(job, progress.note, output=scores, bundle=bundle)
            except MismatchError as error:
                said = str(error).removesuffix("; choose another store or restore these settings")
                raise MismatchError(f"{said}; say another --out, or delete these scores if nobody needs them") from None
            if made.missing:
                done = len(made.units) - len(made.missing)
                said = f" ({there(done)})" if done else ""
                progress.note(f"{counted(len(made.missing), 'unit')} to do{said}; starting Ray")
            else:
                progress.note(f"nothing to do, all documents are scored ({counted(len(made.units), 'part')})")
            return run_plan(made, address, progress)
    except (KeyboardInterrupt, SystemExit):
        progress.note(f"stopped; parts that are done stay in {shown(job.store)}")
        raise
