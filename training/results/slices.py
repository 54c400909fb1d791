"""The scores of every method on each slice of the test documents, and which slices are too small to say anything.

Nothing is fitted or chosen here: the answers are those of the study, looked at in parts. Intervals come from the same
bootstrap over independent units as the study's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.base.text import counted
from training.documents.labels import StudyData
from training.scores.metrics import (
    METRICS,
    ClassScores,
    Interval,
    Prediction,
    accuracy,
    auprc,
    auroc,
    bootstrap,
    calibration,
    class_scores,
    interval,
    macro_f1,
)

TOO_FEW = 30  # independent units below which a percentile bootstrap is too narrow to be believed


@dataclass(frozen=True)
class SliceSummary:
    """One method on one slice, means over the splits that test on it.

    Attributes:
        by, slice: How documents are sliced, and which slice.
        method: A method's name, or that of a family.
        documents, units: Test documents of the slice in any split, and independent units among them.
        macro_f1, accuracy, auroc: With their intervals.
        auprc, brier, ece: NaN where undefined; the last two also where scores are no probabilities.
        classes: The scores of each class.
        warning: Why the slice says nothing, or what it lacks; "" if nothing is amiss.
    """

    by: str
    slice: str
    method: str
    documents: int
    units: int
    macro_f1: Interval
    accuracy: Interval
    auroc: Interval
    auprc: float
    brier: float
    ece: float
    classes: tuple[ClassScores, ...]
    warning: str = ""


def summarise_slices(
    answers: Mapping[str, Sequence[Prediction]], data: StudyData, resamples: int, without_probabilities: Sequence[str]
) -> tuple[SliceSummary, ...]:
    """Every score of every method on every slice that has test documents.

    Args:
        answers: Method (or family) -> its answers for each split's test documents.
        data: The documents, with their slices.
        resamples: Behind each interval.
        without_probabilities: Methods whose scores are none.
    """
    found = []
    for by, slices in data.slices.items():
        for code, name in enumerate(slices.names):
            parts = {method: [_part(p, slices.code == code) for p in seeds] for method, seeds in answers.items()}
            parts = {method: [part for part in mine if len(part.rows)] for method, mine in parts.items()}
            if not any(parts.values()):
                continue
            drawn = bootstrap(list(parts.values()), len(data.classes), len(data.y), data.unit, resamples)
            found += [
                _summary(by, name, method, mine, replicates, data, method not in without_probabilities)
                for (method, mine), replicates in zip(parts.items(), drawn, strict=True)
            ]
    return tuple(found)


def mean_of_classes(answers: Sequence[Prediction], n_classes: int) -> tuple[ClassScores, ...]:
    """The scores of each class, means over the splits in which they are defined."""
    each = [class_scores(a.y_true, a.y_pred, a.log_proba) for a in answers]
    return tuple(
        ClassScores(*(_mean([getattr(scores[c], name) for scores in each]) for name in ClassScores.__annotations__))
        for c in range(n_classes)
    )


def _part(prediction: Prediction, inside: np.ndarray) -> Prediction:
    here = inside[prediction.rows]
    return Prediction(
        prediction.rows[here], prediction.y_true[here], prediction.y_pred[here], prediction.log_proba[here]
    )


def _summary(
    by: str,
    name: str,
    method: str,
    answers: Sequence[Prediction],
    replicates: np.ndarray,
    data: StudyData,
    probabilities: bool,
) -> SliceSummary:
    n_classes = len(data.classes)
    rows = np.unique(np.concatenate([a.rows for a in answers]))
    units = len(rows) if data.unit is None else len(np.unique(data.unit[rows]))
    values = {
        "macro_f1": [macro_f1(a.y_true, a.y_pred, n_classes) for a in answers],
        "accuracy": [accuracy(a.y_true, a.y_pred) for a in answers],
        "auroc": [auroc(a.y_true, a.log_proba)[0] for a in answers],
    }
    intervals = {
        metric: interval(_mean(values[metric]), drawn) for metric, drawn in zip(METRICS, replicates, strict=True)
    }
    calibrations = [calibration(a.y_true, a.y_pred, a.log_proba) for a in answers] if probabilities else []
    return SliceSummary(
        by=by,
        slice=name,
        method=method,
        documents=len(rows),
        units=units,
        **intervals,
        auprc=_mean([auprc(a.y_true, a.log_proba) for a in answers]),
        brier=_mean([brier for brier, _ in calibrations]),
        ece=_mean([ece for _, ece in calibrations]),
        classes=mean_of_classes(answers, n_classes),
        warning=_warning(np.bincount(data.y[rows], minlength=n_classes), units, len(rows), data.classes),
    )


def _warning(counts: np.ndarray, units: int, documents: int, classes: Sequence[str]) -> str:
    if units < TOO_FEW:
        groups = "" if units == documents else f" in {counted(units, 'group')}"
        return f"{counted(documents, 'test document')}{groups}: too few to say anything"
    absent = [name for name, n in zip(classes, counts, strict=True) if not n]
    return f"no test document of {', '.join(absent)}" if absent else ""


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN without one."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
