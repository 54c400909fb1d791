"""What a plan should make its reader think about before money is spent: sentences, each with what to do.

Warnings and no refusals: a job that is warned of runs. They are judged from what the plan knows already; the one thing
looked up is the free space of a local store's disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.wording import counted
from ray_jobs.spill import shortage

if TYPE_CHECKING:
    from ray_jobs.plan import JobPlan
    from ray_jobs.pricing import Estimate

TINY_FILE_BYTES, MANY_FILES = 2**20, 1_000
"""Opening a file costs an object store some 30 ms, in which it could have sent a megabyte; a thousand cost 30 s."""


FUSED_FILES = 3  # files with doubtful quotes that are named: who mends these knows what to look for


def warnings_of(plan: JobPlan, figures: Estimate) -> tuple[str, ...]:
    """The sentences that a plan deserves, the costliest matter first."""
    found = [
        _disk(plan, figures),
        _truncated(plan),
        _tiny_files(plan),
        _compressed(plan),
        *_fused(plan),
        _idle_workers(plan, figures),
    ]
    return tuple(sentence for sentence in found if sentence)


def _disk(plan: JobPlan, figures: Estimate) -> str | None:
    from featurestore.files import filesystem, is_local

    fs, path = filesystem(plan.job.store)
    if not is_local(fs):
        return None
    there = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
    free = shutil.disk_usage(there).free
    needed = figures.bytes_out - sum(plan.committed.values())
    if needed <= free:
        return None
    return (
        f"the store still needs about {needed / 1e9:,.1f} GB and {there} has {free / 1e9:,.1f} GB free; "
        "give store: another disk, or keep less with pool, hidden or value_bits"
    )


def _truncated(plan: JobPlan) -> str | None:
    if not plan.truncated_share:
        return None
    return (
        f"{plan.truncated_share:.1%} of the sample exceeds {plan.job.model.max_tokens:,} and is cut; "
        "raise model.max_tokens, or read on with model.long_documents: windows"
    )


def _tiny_files(plan: JobPlan) -> str | None:
    files = plan.scan.files
    mean = sum(file.size or 0 for file in files) / max(len(files), 1)
    if len(files) < MANY_FILES or mean >= TINY_FILE_BYTES:
        return None
    return (
        f"the corpus is {counted(len(files), 'file')} of {mean / 1e3:,.1f} kB on average, and opening them costs more "
        "than reading them; join them into files of 100 MB or so"
    )


def _fused(plan: JobPlan) -> list[str]:
    return [file.fused.sentence(file.name, "corpus.csv") for file in plan.scan.files if file.fused.count][:FUSED_FILES]


def _compressed(plan: JobPlan) -> str | None:
    far = {part.sha256: part for unit in plan.missing for part in unit.slices if part.is_far}
    for part in sorted(far.values(), key=lambda part: -part.text_bytes):
        if (reason := shortage(part.text_bytes)) is not None:
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
