"""Find what a study wants and its job does not write, before the job is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from featurestore.base.dense_names import PIXELS
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import stored_pool
from featurestore.errors import StudyError
from training.documents.labels import columns_read, needing_text
from training.spec import FeatureSpec

if TYPE_CHECKING:
    from ray_jobs.spec import JobSpec
    from training.spec import StudySpec


def check_together(job: JobSpec, study: StudySpec, job_file: str, study_file: str) -> None:
    """Refuse a study of what its job does not write.

    Args:
        job: The job.
        study: A study of the store that it writes.
        job_file: What the job is called in sentences.
        study_file: What the study is called.

    Raises:
        StudyError: Naming the key of the study, and what to add to the job.
    """
    if (problem := next(_problems(job, study), None)) is not None:
        key, said = problem
        raise StudyError(f"{study_file}: {key}: {job_file} {said}")


def _problems(job: JobSpec, study: StudySpec) -> Iterator[tuple[str, str]]:
    """(key of the study, what the job does not write and what to do)."""
    kept = job.corpus.keep
    for key, column in columns_read(study):
        if column not in kept:
            hint = did_you_mean(column, kept) or ";"
            yield key, f"keeps no column '{column}'{hint} add it to corpus.keep"
    if (needing := needing_text(study)) and study.text_source is None:
        if job.corpus.image is not None:
            yield "baselines", f"is of images, and {needing[0]} needs texts; use pixels, or give the study a text"
        elif job.corpus.text not in kept:
            yield (
                "baselines",
                f"does not keep the text, which {needing[0]} needs; add '{job.corpus.text}' to corpus.keep",
            )
    names = [sae.name for sae in job.saes]
    for feature in (*(one for one in study.baselines if isinstance(one, FeatureSpec)), *study.features):
        if feature.store is not None:
            continue
        for sae in feature.sae:
            if sae not in names:
                yield "features", f"has no SAE '{sae}'; it has: {', '.join(names)}{did_you_mean(sae, names)}"
        for pool in map(stored_pool, feature.pool):
            if pool not in job.pool:
                yield "features", f"has no pooling '{pool}'; it has: {', '.join(job.pool)}; add it to pool"
    for kind in ("mean", "last"):
        if f"hidden_{kind}" in study.named_baselines and kind not in job.hidden:
            yield "baselines", f"stores no hidden states of kind '{kind}'; add hidden: [{kind}], or drop hidden_{kind}"
    if PIXELS in study.named_baselines and job.pixels is None:
        yield "baselines", "stores no pixels; add pixels, or drop the baseline"
