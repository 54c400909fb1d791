"""What the methods with a model file decide: calibrated probabilities, an operating point, and what both are worth.

Everything is chosen on out-of-fold scores of training documents and measured on test documents; nothing is fitted here
but calibrators. A calibration is that of the first split, whose model the file is made from; thresholds are chosen in
every split, and what they come to is measured over all of them, a document that several seeds hold out counting as one
source of chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StudyError
from featurestore.models.calibration import calibrated
from featurestore.models.thresholds import BY_PEOPLE, class_log_odds, sides
from training.documents.labels import StudyData
from training.documents.named_values import meant
from training.documents.split import Split
from training.scores.calibration import Calibration, choose_calibration, log_loss
from training.scores.metrics import Prediction, calibration
from training.scores.operating_points import Aim, Measured, OperatingPoint, choose_point, measure
from training.spec import OperatingPointSpec


def aim_of(spec: OperatingPointSpec) -> Aim:
    """What a study asks for."""
    if spec.cost is not None:
        return Aim("cost", float("nan"), spec.cost.false_positive, spec.cost.false_negative, spec.undecided)
    return Aim(spec.aim, float(getattr(spec, spec.aim)), undecided=spec.undecided)


def class_of(spec: OperatingPointSpec, classes: Sequence[str]) -> int:
    """Index of the class that an operating point is for.

    Raises:
        StudyError: There is no such class, or one is called as what people decide.
    """
    if BY_PEOPLE in classes:
        raise StudyError(
            f"operating_point: a class is called '{BY_PEOPLE}', which is also said of documents that people decide; "
            "call it something else in the labels, or leave the operating point out"
        )
    (found,) = meant(classes, (spec.name,), "operating_point.class")
    if found is None:
        there = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise StudyError(
            f"operating_point.class: there is no class '{spec.name}'; there are: {there}"
            f"{did_you_mean(spec.name, classes)}"
        )
    return list(classes).index(found)


def calibrate(
    out_of_fold: np.ndarray, answer: Prediction, data: StudyData, split: Split, probabilities: bool
) -> tuple[Calibration, dict[str, dict[str, float] | None]]:
    """Choose a calibration on out-of-fold scores and measure it on test documents.

    Args:
        out_of_fold: float64 [training documents, classes], log-probabilities in the order of `Split.train`.
        answer: For the test documents.
        data: The documents.
        split: Their division.
        probabilities: Whether the scores are probabilities before calibration.
    """
    chosen = choose_calibration(out_of_fold, data.y[split.train], split.fold[split.train], probabilities)
    after = calibrated(chosen.method, chosen.arrays, answer.log_proba)
    return chosen, {
        "before": _tested(answer, answer.log_proba) if probabilities else None,
        "after": _tested(answer, after),
    }


def operate(
    out_of_fold: Sequence[np.ndarray],
    answers: Sequence[Prediction],
    data: StudyData,
    splits: Sequence[Split],
    spec: OperatingPointSpec,
) -> tuple[tuple[OperatingPoint, ...], Measured, Measured]:
    """Choose the thresholds of every split and measure them.

    Args:
        out_of_fold: For each split float64 [training documents, classes], in the order of `Split.train`.
        answers: For each split's test documents.
        data: The documents.
        splits: Their divisions.
        spec: What for.

    Returns:
        The thresholds of each split, what they come to in all splits together, and in the first.
    """
    c, aim = class_of(spec, data.classes), aim_of(spec)
    unit = np.arange(len(data.y)) if data.unit is None else data.unit
    points, side, rows = [], [], []
    for scores, answer, split in zip(out_of_fold, answers, splits, strict=True):
        positive = data.y[split.train] == c
        point = choose_point(class_log_odds(scores, c), positive, aim, data.classes[c], unit[split.train])
        points.append(point)
        side.append(sides(class_log_odds(answer.log_proba, c), point.low, point.high))
        rows.append(answer.rows)
    every, where = np.concatenate(side), np.concatenate(rows)
    return (
        tuple(points),
        measure(every, data.y[where] == c, unit[where], aim),
        measure(side[0], data.y[rows[0]] == c, unit[rows[0]], aim),
    )


def _tested(answer: Prediction, log_proba: np.ndarray) -> dict[str, float]:
    brier, ece = calibration(answer.y_true, np.argmax(log_proba, axis=1), log_proba)
    return {"log_loss": float(log_loss(log_proba, answer.y_true).mean()), "brier": brier, "ece": ece}
