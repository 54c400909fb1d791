"""Warn before a plan is run, and refuse nothing: what memory or disk lacks, cut documents, idle workers.

Each warning is a sentence that says what to do. Nothing is refused here: a job that is warned of runs. Warnings are
judged from what the plan knows already; the one thing looked up is the free space of a local store's disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.number_words import counted, size
from ray_jobs.corpus.spill import why_not_kept
from ray_jobs.planning.corpus_warnings import corpus_notes, corpus_warnings
from ray_jobs.planning.memory import memory_of, what_fits

if TYPE_CHECKING:
    from ray_jobs.planning.estimate import Estimate
    from ray_jobs.planning.job_plan import JobPlan

TINY_FILE_BYTES, MANY_FILES = 2**20, 1_000
"""Opening a file costs an object store some 30 ms, in which it could have sent a megabyte; a thousand cost 30 s."""


def warnings_of(plan: JobPlan, figures: Estimate) -> tuple[str, ...]:
    """The warnings of a plan, the costliest matter first."""
    found = [
        *corpus_warnings(plan.scan, plan.job.corpus.max_errors),
        _nothing_counted(plan),
        _disk(plan, figures),
        _memory(plan, figures),
        _truncated(plan),
        _tiny_files(plan),
        _compressed(plan),
        _idle_workers(plan, figures),
    ]
    return tuple(sentence for sentence in found if sentence)


def notes_of(plan: JobPlan) -> tuple[str, ...]:
    """What is good to know of a plan, and needs nothing to be done."""
    return corpus_notes(plan.scan, plan.job.corpus.keep)


def _nothing_counted(plan: JobPlan) -> str | None:
    """Conversations without a turn of the roles that count have no features, as empty texts have none."""
    if plan.job.corpus.messages is None or plan.job.model.tokens == "all" or plan.sample.documents == 0:
        return None
    if round(plan.mean_tokens * plan.sample.documents) > 1:  # a mean is never 0, for it is divided by
        return None
    roles = " or ".join(f"'{role}'" for role in plan.job.model.turns)
    return (
        f"none of {counted(plan.sample.documents, 'sampled conversation')} has a token of a turn of {roles}, and "
        "documents without counted tokens have no features; check model.turns"
    )


def _disk(plan: JobPlan, figures: Estimate) -> str | None:
    from featurestore.storage.files import filesystem, is_local

    fs, path = filesystem(plan.job.store)
    if not is_local(fs):
        return None
    there = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
    free = shutil.disk_usage(there).free
    needed = figures.bytes_out - sum(plan.committed.values())
    if needed <= free:
        return None
    return (
        f"the store still needs about {size(needed)} and {there} has {size(free)} free; "
        "give store: another disk, or keep less with pool, hidden or value_bits"
    )


def _memory(plan: JobPlan, figures: Estimate) -> str | None:
    memory = memory_of(plan, figures)
    if memory.available is None or memory.fits:
        return None
    workers = f" for {counted(memory.workers, 'worker')} at once" if memory.workers > 1 else ""
    one = max(memory.devices, key=lambda one: one.total)
    return (
        f"{memory.place} has {size(memory.available)} of memory and the job needs about {size(memory.needed)} of it"
        f"{workers} (weights {size(one.weights)}, encoders {size(one.encoders)}, batches {size(one.batches)}), so it "
        f"does not fit; {what_fits(plan, memory)}"
    )


def _truncated(plan: JobPlan) -> str | None:
    if not plan.sample.truncated_share:
        return None
    return (
        f"{plan.sample.truncated_share:.1%} of the sample exceeds {plan.job.model.max_tokens:,} and is cut; "
        "raise model.max_tokens, or read on with model.long_documents: windows"
    )


def _tiny_files(plan: JobPlan) -> str | None:
    files = plan.scan.files
    mean = sum(file.size or 0 for file in files) / max(len(files), 1)
    if len(files) < MANY_FILES or mean >= TINY_FILE_BYTES:
        return None
    return (
        f"the corpus is {counted(len(files), 'file')} of {size(mean)} on average, and opening them costs more "
        "than reading them; join them into files of 100 MB or so"
    )


def _compressed(plan: JobPlan) -> str | None:
    far = {part.sha256: part for unit in plan.missing for part in unit.slices if part.is_far}
    for part in sorted(far.values(), key=lambda part: -part.text_bytes):
        if (reason := why_not_kept(part.text_bytes)) is not None:
            return (
                f"{part.file.uri} cannot be kept decompressed here ({reason}), so each unit decompresses it from its "
                "start; set SPARSEMILL_CACHE to a larger disk, or decompress the corpus"
            )
    return None


def _idle_workers(plan: JobPlan, figures: Estimate) -> str | None:
    most = plan.job.workers.max
    if most is None or not figures.missing_units or most <= figures.missing_units:
        return None
    return (
        f"workers.max is {most:,}, but there are only {counted(figures.missing_units, 'unit')} to do, one worker each; "
        "the others would not be started"
    )
