"""The scores of every method on each slice of the test documents, and which slices are too small to say anything.

Nothing is fitted or chosen here: the answers are those of the study, looked at in parts. Intervals come from the same
bootstrap over independent units as the study's own; a slice that is too small has none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from featurestore.base.number_words import counted
from featurestore.models.thresholds import class_log_odds, sides
from training.documents.labels import StudyData
from training.probes.catalogue import PROBES
from training.results.decided import aim_of, class_of
from training.results.evaluated import Evaluated
from training.results.records import Decided, SliceSummary
from training.results.selection import FAMILIES
from training.results.summary import mean, mean_of_classes
from training.scores.bootstrap import TOO_FEW, bootstrap, interval
from training.scores.metrics import METRICS, Prediction, accuracy, auprc, auroc, calibration, macro_f1
from training.scores.operating_points import measure
from training.spec import StudySpec

REPLICATE_BYTES = 1 << 26  # of replicates held at once


def slice_scores(
    evaluated: Evaluated, winners: Mapping[str, Sequence[int]], spec: StudySpec
) -> tuple[SliceSummary, ...]:
    """`summarise_slices` of every method, and of the families with the member that validation chose in each split."""
    splits, outcomes = range(len(evaluated.splits)), evaluated.outcomes
    answers = {o.method.name: [evaluated.prediction(m, s) for s in splits] for m, o in enumerate(outcomes)}
    rank_only = {o.method.name for o in outcomes if o.method.probe and not PROBES[o.method.probe].has_probabilities}
    for family, chosen in winners.items():
        answers[FAMILIES[family]] = [answers[outcomes[m].method.name][s] for s, m in enumerate(chosen)]
        rank_only |= {FAMILIES[family]} if rank_only & {outcomes[m].method.name for m in chosen} else set()
    return summarise_slices(answers, evaluated.data, spec.bootstrap, rank_only)


def summarise_slices(
    answers: Mapping[str, Sequence[Prediction]], data: StudyData, resamples: int, without_probabilities: Collection[str]
) -> tuple[SliceSummary, ...]:
    """Every score of every method on every slice that has test documents.

    Args:
        answers: Method (or family) -> its answers for each split's test documents.
        data: The documents, with their slices.
        resamples: Behind each interval.
        without_probabilities: Methods whose scores are none.
    """
    at_once = max(1, REPLICATE_BYTES // (8 * len(METRICS) * resamples))
    parts, found = _parts(answers, data), []
    while block := list(islice(parts, at_once)):
        drawn = np.full((len(block), len(METRICS), resamples), np.nan)
        large = [i for i, part in enumerate(block) if part.units >= TOO_FEW]
        if large:  # they share the draws, so that each costs what its own documents cost
            mine = [block[i].answers for i in large]
            drawn[large] = bootstrap(mine, len(data.classes), len(data.y), data.unit, resamples)
        found += [
            _summary(part, replicates, data, part.method not in without_probabilities)
            for part, replicates in zip(block, drawn, strict=True)
        ]
    return tuple(found)


def slices_at_thresholds(
    slices: Sequence[SliceSummary], evaluated: Evaluated, decided: Iterable[Decided], spec: StudySpec
) -> tuple[SliceSummary, ...]:
    """The slices, with what the thresholds of methods that decide come to on each, over all splits together."""
    if spec.operating_point is None:
        return tuple(slices)
    data, aim = evaluated.data, aim_of(spec.operating_point)
    c = class_of(spec.operating_point, data.classes)
    unit = np.arange(len(data.y)) if data.unit is None else data.unit
    names = [outcome.method.name for outcome in evaluated.outcomes]
    sided = {}
    for one in decided:
        answers = [evaluated.prediction(names.index(one.method), s) for s in range(len(one.points))]
        pairs = zip(answers, one.points, strict=True)
        of_splits = [sides(class_log_odds(a.log_proba, c), point.low, point.high) for a, point in pairs]
        sided[one.method] = np.concatenate(of_splits), np.concatenate([a.rows for a in answers])
    found = []
    for summary in slices:
        if summary.method in sided:
            side, rows = sided[summary.method]
            of = data.slices[summary.by]
            here = of.code[rows] == list(of.names).index(summary.slice)
            mine = rows[here]
            summary = replace(summary, measured=measure(side[here], data.y[mine] == c, unit[mine], aim))
        found.append(summary)
    return tuple(found)


@dataclass(frozen=True)
class _Part:
    """What a method answered on one slice, where anything: for each split, and on which rows and how many units."""

    by: str
    slice: str
    method: str
    answers: Sequence[Prediction]
    rows: np.ndarray
    units: int


def _parts(answers: Mapping[str, Sequence[Prediction]], data: StudyData) -> Iterator[_Part]:
    """Every slice that has test documents, with every method."""
    for by, slices in data.slices.items():
        for code, name in enumerate(slices.names):
            inside = slices.code == code
            for method, seeds in answers.items():
                mine = [part for part in (_part(p, inside) for p in seeds) if len(part.rows)]
                if not mine:
                    continue
                rows = np.unique(np.concatenate([part.rows for part in mine]))
                yield _Part(by, name, method, mine, rows, data.count_units_of(rows))


def _part(prediction: Prediction, inside: np.ndarray) -> Prediction:
    here = inside[prediction.rows]
    return Prediction(
        prediction.rows[here], prediction.y_true[here], prediction.y_pred[here], prediction.log_proba[here]
    )


def _summary(part: _Part, replicates: np.ndarray, data: StudyData, probabilities: bool) -> SliceSummary:
    n_classes, answers, rows, units = len(data.classes), part.answers, part.rows, part.units
    values = {
        "macro_f1": [macro_f1(a.y_true, a.y_pred, n_classes) for a in answers],
        "accuracy": [accuracy(a.y_true, a.y_pred) for a in answers],
        "auroc": [auroc(a.y_true, a.log_proba)[0] for a in answers],
    }
    intervals = {
        metric: interval(mean(values[metric]), drawn) for metric, drawn in zip(METRICS, replicates, strict=True)
    }
    calibrations = [calibration(a.y_true, a.y_pred, a.log_proba) for a in answers] if probabilities else []
    return SliceSummary(
        by=part.by,
        slice=part.slice,
        method=part.method,
        documents=len(rows),
        units=units,
        **intervals,
        auprc=mean([auprc(a.y_true, a.log_proba) for a in answers]),
        brier=mean([brier for brier, _ in calibrations]),
        ece=mean([ece for _, ece in calibrations]),
        classes=mean_of_classes(answers, n_classes),
        measured=None,
        too_small=units < TOO_FEW,
        warning=_warning(np.bincount(data.y[rows], minlength=n_classes), units, len(rows), data.classes),
    )


def _warning(counts: np.ndarray, units: int, documents: int, classes: Sequence[str]) -> str:
    if units < TOO_FEW:
        groups = "" if units == documents else f" in {counted(units, 'group')}"
        return f"{counted(documents, 'test document')}{groups}: too few to say anything"
    absent = [name for name, n in zip(classes, counts, strict=True) if not n]
    return f"no test document of {', '.join(absent)}" if absent else ""
