"""Stage 1 from Python: the price of a job, the job itself, and the tokens at which its features fire.

A job is given as the path of JOB.yaml, as a mapping of the same keys, or as a `JobSpec`. Relative paths of a mapping
start from the working directory, those of a file from its folder.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from featurestore.base.hostile_text import visible_lines
from featurestore.base.html import cell, facts_html
from featurestore.base.number_words import about, counted, money, size, span
from featurestore.errors import UsageError
from featurestore.reader import FeatureStore
from ray_jobs.spec import JobSpec, job_from_mapping, load_job
from sparsemill.live import moving, stream
from sparsemill.quiet_calls import count_of, of_stage_one, path_of

if TYPE_CHECKING:
    import polars as pl

    from featurestore.evidence.records import DocumentEvidence

Job: TypeAlias = "JobSpec | Mapping[str, Any] | str | os.PathLike[str]"
Feature: TypeAlias = "int | str | tuple[str, int]"
"""A feature: its number where the store has one SAE, or "sae:number", or (sae, number)."""


def job_of(job: Job) -> JobSpec:
    """A job however it is given.

    Raises:
        JobSpecError: It is none; one sentence says which key is wrong.
    """
    if isinstance(job, JobSpec):
        return job
    if isinstance(job, Mapping):
        return job_from_mapping(job, Path.cwd())
    return load_job(path_of(job, "a job that is no mapping"))


@of_stage_one
def prepare(job: Job) -> Path:
    """Build the bundle of a job's model and SAEs, or find it built; `plan` and `extract` do so themselves.

    Returns:
        The bundle's directory.

    Raises:
        UsageError: The model or an SAE cannot be had, or they do not belong together.
    """
    from ray_jobs.prepare.build import prepare as build

    return Path(build(job_of(job), progress=_Say()))


@dataclass(frozen=True, repr=False)
class Plan:
    """What a job will take.

    Attributes:
        documents: In the corpus.
        tokens: In them, about; from a sample.
        units: Units of work.
        missing_units: Those still to do.
        bytes_out: Of the whole store, about.
        worker_hours: Of one worker for what is missing; None where no rate is known.
        cost: Of that; None where rate or price is not known.
        currency: Of the cost, where the rates file says it.
        notes: What is worth knowing, in sentences.
        warnings: What to think about first, in sentences.
        facts: All figures, as `sparsemill plan --json` prints them.
        lines: Labels and lines, as `sparsemill plan` prints them.
    """

    documents: int
    tokens: int
    units: int
    missing_units: int
    bytes_out: int
    worker_hours: float | None
    cost: float | None
    currency: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, Any]
    lines: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        hours = "" if self.worker_hours is None else f", {about(span(self.worker_hours * 3600))} of one worker"
        cost = "" if self.cost is None else f", {about(money(self.cost, self.currency))}"
        missing = f"{counted(self.units, 'unit')} ({self.missing_units:,} to do)"
        tokens = f"about {self.tokens:,} tokens, {missing}, {about(size(self.bytes_out))}"
        return f"Plan({counted(self.documents, 'document')}, {tokens}{hours}{cost})"

    def _repr_html_(self) -> str:
        """As a notebook shows it: what `sparsemill plan` prints."""
        said = [*(("note", line) for line in self.notes), *(("warning", line) for line in self.warnings)]
        return facts_html(repr(self), [*self.lines, *said])


@of_stage_one
def plan(
    job: Job,
    *,
    hardware: str | None = None,
    rates: str | os.PathLike[str] | None = None,
    rate: float | None = None,
    price: float | None = None,
) -> Plan:
    """Say what a job will take before anything is spent; nothing is written into its store.

    Args:
        job: The job.
        hardware: A kind of the rates file to price, e.g. "h100"; by default this machine as it was last measured.
        rates: Your rates file; the shipped one where None.
        rate: Tokens a second of one worker.
        price: Money for an hour of one worker.

    Raises:
        UsageError: Corpus, model, SAEs or settings are at fault, or the store is another job's.
    """
    from ray_jobs.console import plan_facts, plan_lines
    from ray_jobs.planning.estimate import estimate
    from ray_jobs.planning.hardware import device_of
    from ray_jobs.planning.job_plan import make_plan
    from ray_jobs.planning.warnings import notes_of, warnings_of

    spec = job_of(job)
    hardware = hardware or spec.workers.hardware
    if rates is not None and hardware is None:
        raise UsageError("rates= says what each kind of hardware does; choose one of them with hardware=")
    for name, number in (("rate", rate), ("price", price)):
        if number is not None and not (isinstance(number, Real) and 0 < number < math.inf):
            raise UsageError(f"{name} must be a number above 0, not {number!r}")
    rates = spec.workers.rates if rates is None else os.fspath(rates)
    device = None if hardware is None else device_of(hardware, rates)  # before minutes are spent on scanning
    made = make_plan(spec, _Say(), device)
    figures = estimate(made, rate, price, hardware, rates)
    return Plan(
        documents=figures.documents,
        tokens=figures.tokens,
        units=figures.units,
        missing_units=figures.missing_units,
        bytes_out=figures.bytes_out,
        worker_hours=figures.worker_hours,
        cost=figures.cost,
        currency=figures.currency,
        notes=tuple(notes_of(made)),
        warnings=tuple(warnings_of(made, figures)),
        facts=plan_facts(made, figures),
        lines=tuple(plan_lines(made, figures)),
    )


@of_stage_one
def extract(job: Job, *, address: str | None = None, workers: int | None = None, force: bool = False) -> FeatureStore:
    """Run a job, or finish what is missing of it, and open its store.

    Args:
        job: The job; its bundle is built where it is not there yet.
        address: Ray cluster to run on, e.g. "auto"; None starts a local Ray for this run.
        workers: At most so many, in place of the job's `workers.max`.
        force: Take the store from another run that holds it.

    Raises:
        UsageError: The job, its corpus, model, SAEs or store are at fault.
        JobFailed: Units failed for good, or more documents than `corpus.max_errors` allows; what is done stays.
    """
    from ray_jobs.reporting.progress import Progress
    from ray_jobs.run.driver import extract as run

    spec = job_of(job)
    spec = spec.at_most(None if workers is None else count_of(workers, "workers", 1))
    run(spec, address, Progress(stream(), moving()), force)
    return FeatureStore.open(spec.store)


@of_stage_one
def label(
    job: Mapping[str, Any] | str | os.PathLike[str],
    *,
    address: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> pl.DataFrame:
    """Have a model answer prompts, or finish what is missing, and read the table of what it answered.

    Args:
        job: A label job (docs/labels.md): the path of its JOB.yaml, or a mapping of the same keys.
        address: Ray cluster to run on, e.g. "auto"; None starts a local Ray for this run.
        workers: At most so many, in place of the job's `workers.max`.
        overwrite: Whether another table in the same place may be replaced.
        force: Take the parts from another run that holds them.

    Returns:
        A row for each prompt, with the columns of the job's `out`.

    Raises:
        UsageError: The job, its corpus, model or task are at fault.
        JobFailed: Units failed for good, or more rows than `corpus.max_errors` allows; what is done stays.
    """
    import polars as pl

    from featurestore.storage.files import reached, read_bytes
    from ray_jobs.labels.run import label as run
    from ray_jobs.labels.spec import label_job_from_mapping, load_label_job
    from ray_jobs.reporting.progress import Progress

    if isinstance(job, Mapping):
        spec, run_as = label_job_from_mapping(job, Path.cwd())
    else:
        spec, run_as = load_label_job(path_of(job, "a label job that is no mapping"))
    run_as = run_as.at_most(None if workers is None else count_of(workers, "workers", 1))
    found = run(spec, run_as, address, Progress(stream(), moving()), overwrite, force)
    fs, path = reached(found.table)
    return pl.read_parquet(read_bytes(fs, path))


class Evidence:
    """Tokens of documents with the activations of features; made by `tokens`.

    Attributes:
        documents: The records (`featurestore.evidence.records`), one for each document.
    """

    def __init__(self, documents: Sequence[DocumentEvidence]) -> None:
        self.documents = tuple(documents)

    def frame(self) -> pl.DataFrame:
        """A row for each document, feature and token: `doc_id`, `sae`, `feature`, `token`, `text`, `start`, `stop`,
        `pooled` (whether it counts) and `value`, its activation."""
        import polars as pl

        rows = [
            (one.doc_id, feature.sae, feature.feature, at, token.text, token.start, token.stop, token.pooled, value)
            for one in self.documents
            for feature in one.features
            for at, (token, value) in enumerate(zip(one.tokens, feature.values, strict=True))
        ]
        schema = {
            "doc_id": pl.String, "sae": pl.String, "feature": pl.Int64, "token": pl.Int64, "text": pl.String,
            "start": pl.Int64, "stop": pl.Int64, "pooled": pl.Boolean, "value": pl.Float64,
        }  # fmt: skip
        return pl.DataFrame(rows, schema=schema, orient="row")

    def __repr__(self) -> str:
        from featurestore.evidence.page import page

        return "\n\n".join("\n".join(page(document, 120, False)) for document in self.documents)

    def _repr_html_(self) -> str:
        """As a notebook shows it: texts, each token the darker the stronger the feature fires there."""
        return "".join(_marked(document) for document in self.documents)


def _marked(document: DocumentEvidence) -> str:
    from featurestore.evidence.records import stretches

    parts = [f"<p><b>{cell(document.doc_id)}</b></p>"]
    parts += [f"<p>{cell(document.problem)}</p>"] if document.problem else []
    for feature in document.features:
        marked = []
        for one in stretches(document, feature):
            shade = round(0.6 * one.value / feature.max, 2) if feature.max else 0.0
            text = f"<i>{cell(one.text)}</i>" if not one.of_document else cell(one.text)
            colour = f' style="background:rgba(47,127,214,{shade})" title="{one.value:.4g}"' if one.value else ""
            marked.append(f"<span{colour}>{text}</span>")
        parts.append(f"<p>{cell(feature.sae)}:{feature.feature} (max {feature.max:.4g})<br>{''.join(marked)}</p>")
    return f"<div>{''.join(parts)}</div>"


@of_stage_one
def tokens(
    store: FeatureStore | str | os.PathLike[str],
    documents: str | Sequence[str],
    features: Feature | Sequence[Feature] | None = None,
) -> Evidence:
    """Where in its documents a feature fires: they are run again, through the bundle that the store names.

    Args:
        store: An open store, or its place.
        documents: Ids of documents.
        features: Features; by default the strongest of each document and SAE.

    Raises:
        StoreError: There is no such document or feature, or model and text are not here any more.
    """
    from featurestore.base.arguments import feature_argument
    from ray_jobs.evidence.cli import features_to_show, refuse_nothing
    from ray_jobs.evidence.compute import compute_evidence

    opened = store if isinstance(store, FeatureStore) else FeatureStore.open(path_of(store, "a store"), partial=True)
    is_pair = isinstance(features, tuple) and [isinstance(one, Integral) for one in features] == [False, True]
    is_one = is_pair or isinstance(features, Integral | str)
    asked = cast("Sequence[Feature]", () if features is None else [features] if is_one else features)
    try:
        named = [one if isinstance(one, tuple) else feature_argument(str(one)) for one in asked]
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"features: {error}") from None
    ids = [documents] if isinstance(documents, str) else list(dict.fromkeys(documents))
    wanted = {doc_id: features_to_show(opened, doc_id, named) for doc_id in ids}
    found = list(compute_evidence(opened, wanted, say=_Say()))
    refuse_nothing(found)
    return Evidence(found)


class _Say:
    """Prints a line where progress goes to."""

    def __init__(self) -> None:
        self._stream = stream()

    def __call__(self, line: str) -> None:
        print(visible_lines(line), file=self._stream, flush=True)
