"""What a study hands out: the explanation of the evaluated model, and model files that know how they decide.

For each method with a file, out-of-fold scores of its training documents choose a calibration and thresholds
(`results.decided`). The model in the file is then fitted on all labelled documents, unless the study keeps the
evaluated one. Calibration and thresholds stay those of the evaluation, and so do the scores that the file tells: a
model that has seen every document cannot be tested on any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featurestore.format.provenance import bundle_sources
from featurestore.models.model import Model
from featurestore.reader import FeatureStore
from training.documents.condition import STUDY
from training.documents.labels import token_counts
from training.documents.split import Split, split_sha256
from training.evaluation import MethodOutcome, plan_sources, read_source
from training.methods.matrices import MethodMatrix, derive
from training.methods.method import SPARSE
from training.output.decided_plain import calibration_header, evaluation_header, point_header
from training.output.errors_made import errors_made
from training.output.explain import explain
from training.output.models import document_frequency, pack
from training.output.private import without_file_names, without_text
from training.probes.catalogue import PROBES
from training.probes.fit import Final, fit_final
from training.probes.folds import Labelled
from training.probes.out_of_fold import out_of_fold
from training.results.decided import calibrate, operate
from training.results.evaluated import Evaluated
from training.results.records import Decided, MethodSummary
from training.solvers.l1_path import by_column
from training.spec import StudySpec


@dataclass(frozen=True)
class HandedOut:
    """Explanation of the SAE method that the headline names; by family the models, and how their methods decide."""

    explanation: dict[str, Any] | None
    models: Mapping[str, Model]
    decided: Mapping[str, Decided]


@dataclass(frozen=True)
class _Work:
    """One method with what was read for it: `place` among the outcomes, `of` its matrix with the classes."""

    place: int
    outcome: MethodOutcome
    store: FeatureStore
    pooled: MethodMatrix
    matrix: MethodMatrix
    of: Labelled


def hand_out(
    spec: StudySpec,
    stores: Mapping[str, FeatureStore],
    evaluated: Evaluated,
    exported: Mapping[str, str],
    summaries: Mapping[str, MethodSummary],
    majority: dict[str, object] | None,
    n_jobs: int,
) -> HandedOut:
    """Choose how the exported methods decide, fit their models, and explain the first.

    Args:
        spec: The study.
        stores: URI -> open store.
        evaluated: What was answered on all splits, those of regimes last.
        exported: Family -> name of the method that stands for it.
        summaries: Name of a method -> its scores.
        majority: The comparison with majority, for the explanation.
        n_jobs: Threads; they change no bit.
    """
    from threadpoolctl import threadpool_limits

    explanation, models = None, {}
    decided: dict[str, Decided] = {}
    names = [outcome.method.name for outcome in evaluated.outcomes]
    with threadpool_limits(1):
        for family, name in exported.items():
            if evaluated.outcomes[names.index(name)].method.kind == "majority":
                continue  # it looks at nothing, so there is nothing to put a threshold on
            work = _read(spec, stores, evaluated, names.index(name))
            decision = _decide(spec, evaluated, work, n_jobs)
            decided |= {} if decision is None else {family: decision}
            if work.outcome.method.kind not in (*SPARSE, "dense"):
                continue
            final = _fit(work, evaluated.splits[0], n_jobs)
            explained = None
            if family == "sae":
                explained = explanation = _explained(spec, stores, evaluated, work, final, majority)
            kept_on = evaluated.splits[0]
            if spec.refit:
                kept_on = _everything(kept_on)
                final = _fit(work, kept_on, n_jobs)
                explained = None if explained is None else _of_the_file(spec, stores, evaluated, work, final, explained)
            about = _about(spec, evaluated, work, kept_on, decision, summaries[name], explained)
            calibration = None if decision is None else decision.calibration
            models[family] = pack(
                work.outcome.method,
                work.matrix,
                final,
                about,
                evaluated.data.doc_id[kept_on.train],
                {} if calibration is None else calibration.arrays,
                None if work.matrix.column is None else document_frequency(work.matrix, final, kept_on.train),
            )
    return HandedOut(explanation, models, decided)


def _read(spec: StudySpec, stores: Mapping[str, FeatureStore], evaluated: Evaluated, place: int) -> _Work:
    outcome = evaluated.outcomes[place]
    method, data = outcome.method, evaluated.data
    store = stores[method.store or spec.store]
    source = [other.method for other in evaluated.outcomes if other.method.source == method.source]
    splits = (*evaluated.splits, _everything(evaluated.splits[0])) if spec.refit else evaluated.splits
    (task,) = plan_sources(source, spec.store, data, splits, 1, spec.screen)
    pooled = read_source(store, task)
    matrix = derive(pooled, method)
    by_columns = method.kind in SPARSE and PROBES[str(method.probe)].reads_columns
    of = Labelled(matrix.X, data.y, len(data.classes), by_column(matrix.X) if by_columns else None)
    return _Work(place, outcome, store, pooled, matrix, of)


def _everything(split: Split) -> Split:
    """All documents to be trained on; their folds are those of the split, and nobody chooses by them."""
    return replace(split, fold=np.maximum(split.fold, 0))


def _fit(work: _Work, split: Split, n_jobs: int) -> Final:
    return fit_final(work.outcome.method, work.of, split.train, work.outcome.splits[0].value, n_jobs)


def _decide(spec: StudySpec, evaluated: Evaluated, work: _Work, n_jobs: int) -> Decided | None:
    """How a method decides; None where the study asks for nothing of that."""
    method, data = work.outcome.method, evaluated.data
    calibrates = spec.calibrate and method.kind in (*SPARSE, "dense")
    if spec.operating_point is None and not calibrates:
        return None
    studied = [s for s, split in enumerate(evaluated.splits) if split.condition == STUDY]
    where = studied if spec.operating_point is not None else studied[:1]
    splits = [evaluated.splits[s] for s in where]
    scores = out_of_fold(method, work.of, splits, [work.outcome.splits[s].value for s in where], n_jobs)
    answers = [evaluated.prediction(work.place, s) for s in where]
    found = Decided(method.name, in_file=method.kind in (*SPARSE, "dense"))
    if calibrates:
        probabilities = PROBES[str(method.probe)].has_probabilities
        calibration, tested = calibrate(scores[0], answers[0], data, splits[0], probabilities)
        found = replace(found, calibration=calibration, tested=tested)
    if spec.operating_point is None:
        return found
    points, measured, first = operate(scores, answers, data, splits, spec.operating_point)
    return replace(found, points=points, measured=measured, measured_first=first)


def _explained(
    spec: StudySpec,
    stores: Mapping[str, FeatureStore],
    evaluated: Evaluated,
    work: _Work,
    final: Final,
    majority: dict[str, object] | None,
) -> dict[str, Any]:
    """The evaluated model explained on its training documents, with its errors on the others."""
    data, split, found = evaluated.data, evaluated.splits[0], work.outcome.splits[0]
    n_tokens = token_counts(stores[spec.store], data)
    explanation = {
        "majority": majority,
        "store": work.outcome.method.store,
        **explain(work.outcome.method, data, split, found.value, work.pooled, work.matrix, final, n_tokens),
        "errors": errors_made(data, split, found, work.matrix, final),
    }
    return without_text(explanation) if spec.private else explanation


def _of_the_file(
    spec: StudySpec,
    stores: Mapping[str, FeatureStore],
    evaluated: Evaluated,
    work: _Work,
    final: Final,
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """The refitted model explained on all labelled documents; verdict and errors are those of the evaluated one."""
    data, split = evaluated.data, _everything(evaluated.splits[0])
    n_tokens = token_counts(stores[spec.store], data)
    value = work.outcome.splits[0].value
    explained = {
        "majority": evaluation["majority"],
        "store": evaluation["store"],
        "refit": True,
        **explain(work.outcome.method, data, split, value, work.pooled, work.matrix, final, n_tokens),
    }
    explained = without_text(explained) if spec.private else explained
    return explained | {"errors": evaluation["errors"]}


def _about(
    spec: StudySpec,
    evaluated: Evaluated,
    work: _Work,
    kept_on: Split,
    decision: Decided | None,
    summary: MethodSummary,
    explained: dict[str, Any] | None,
) -> dict[str, Any]:
    """What a model file says of itself beside its weights."""
    data, split, found = evaluated.data, evaluated.splits[0], work.outcome.splits[0]
    plan, studied = work.store.plan, [s for s in evaluated.splits if s.condition == STUDY]
    return {
        "classes": list(data.classes),
        "value": found.value,
        "bundle": bundle_sources(plan),
        "trained_on": {
            "identity": without_file_names(plan.identity) if spec.private else plan.identity,
            "d_sae": {sae.name: sae.d_sae for sae in work.store.schema.saes},
            "fingerprint": work.store.fingerprint,
            "split_sha256": split_sha256(data, studied),
            "seed": split.seed,
            "documents": len(kept_on.train),
            "validation_macro_f1": found.validation_macro_f1,
        },
        "refit": spec.refit,
        "evaluation": evaluation_header(summary, data.classes, split, len(studied), split_sha256(data, studied)),
        "calibration": None if decision is None else calibration_header(decision),
        "operating_point": None if decision is None else point_header(decision, spec, data.classes),
        "explanation": explained,
    }
