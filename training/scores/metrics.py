"""Compute scores of predictions: macro F1, accuracy, AUROC, those of each class, and how calibrated probabilities are.

A class that neither occurs nor is predicted does not enter macro F1 (scikit-learn's default); AUROC is undefined (NaN)
when a class does not occur or is alone. What `bootstrap` needs in great number is also written for a batch of row
weights, [B, n], all of it in a few matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 10  # of equal width: enough to see a slope, few enough that bins of a small test set hold documents

METRICS = ("macro_f1", "accuracy", "auroc")


@dataclass(frozen=True)
class Prediction:
    """One method's answers for one seed's test rows (n rows).

    Attributes:
        rows: int64 [n], positions among the study's documents.
        y_true: int64 [n].
        y_pred: int64 [n].
        log_proba: float64 [n, classes].
    """

    rows: np.ndarray
    y_true: np.ndarray
    y_pred: np.ndarray
    log_proba: np.ndarray


def macro_f1(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> float:
    """Unweighted mean of the classes' F1, over classes that occur or are predicted."""
    both = np.bincount(y_true, minlength=n_classes) + np.bincount(y_pred, minlength=n_classes)
    hits = np.bincount(y_true[y_true == y_pred], minlength=n_classes)
    return float(np.mean(2 * hits[both > 0] / both[both > 0]))


def accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of rows predicted right."""
    return float(np.mean(y_true == y_pred))


def auroc(y_true: np.ndarray, log_proba: np.ndarray) -> tuple[float, str | None]:
    """Area under the ROC curve, one-vs-rest averaged over classes when there are more than two.

    Returns:
        (value, None), or (NaN, why it is undefined).
    """
    n_classes = log_proba.shape[1]
    absent = np.flatnonzero(np.bincount(y_true, minlength=n_classes) == 0)
    if len(absent):
        return float("nan"), f"{len(absent)} of {n_classes} classes have no test document"
    return float(weighted_auroc(rankings_of(y_true, log_proba), np.ones((1, len(y_true))))[0]), None


def ranks(log_proba: np.ndarray) -> np.ndarray:
    """Log-probabilities as what documents are ranked by: those of 0, which leaves of trees have, share the lowest."""
    return np.nan_to_num(log_proba, neginf=-1e300)


def auprc(y_true: np.ndarray, log_proba: np.ndarray) -> float:
    """Average precision: of the second of two classes, or averaged over those that have a test document."""
    from sklearn.metrics import average_precision_score

    n_classes = log_proba.shape[1]
    values = [
        average_precision_score(y_true == c, ranks(log_proba[:, c]))
        for c in ([1] if n_classes == 2 else range(n_classes))
        if (y_true == c).any()
    ]
    return float(np.mean(values)) if values else float("nan")


def calibration(y_true: np.ndarray, y_pred: np.ndarray, log_proba: np.ndarray) -> tuple[float, float]:
    """How far probabilities can be taken at their word.

    Returns:
        Brier score (mean squared distance from the truth, summed over classes, halved), and expected calibration error:
        the mean gap between confidence in the predicted class and its share of hits, over CALIBRATION_BINS bins.
    """
    proba = np.exp(log_proba)
    truth = np.eye(proba.shape[1])[y_true]
    brier = float(((proba - truth) ** 2).sum(axis=1).mean() / 2)
    confidence = proba[np.arange(len(y_pred)), y_pred]
    bin_of = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bin_of, (y_true == y_pred) - confidence, CALIBRATION_BINS)
    return brier, float(np.abs(gap).sum() / len(y_true))


def class_f1(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> list[float]:
    """F1 of each class; NaN for one that neither occurs nor is predicted."""
    both = np.bincount(y_true, minlength=n_classes) + np.bincount(y_pred, minlength=n_classes)
    hits = np.bincount(y_true[y_true == y_pred], minlength=n_classes)
    return [float(2 * h / b) if b else float("nan") for h, b in zip(hits, both, strict=True)]


@dataclass(frozen=True)
class ClassScores:
    """How one class fares, NaN where undefined: precision of a class that is never predicted, recall and AUPRC of one
    that no test document has, F1 of one that is neither."""

    precision: float
    recall: float
    f1: float
    auprc: float


def class_scores(y_true: np.ndarray, y_pred: np.ndarray, log_proba: np.ndarray) -> list[ClassScores]:
    """The scores of each class against all others."""
    from sklearn.metrics import average_precision_score

    n_classes = log_proba.shape[1]
    there, said = (np.bincount(y, minlength=n_classes) for y in (y_true, y_pred))
    hits = np.bincount(y_true[y_true == y_pred], minlength=n_classes)

    def share(part: int, whole: int) -> float:
        return float(part / whole) if whole else float("nan")

    return [
        ClassScores(
            share(hits[c], said[c]),
            share(hits[c], there[c]),
            share(2 * hits[c], there[c] + said[c]),
            float(average_precision_score(y_true == c, ranks(log_proba[:, c]))) if there[c] else float("nan"),
        )
        for c in range(n_classes)
    ]


@dataclass(frozen=True)
class Ranking:
    """The rows [n] by rising score of one class: their order, whether each is of the class, where each tie begins."""

    order: np.ndarray
    positive: np.ndarray
    starts: np.ndarray


def rankings_of(y_true: np.ndarray, log_proba: np.ndarray) -> list[Ranking]:
    """One for each class, for two classes that of the second."""
    n_classes = log_proba.shape[1]
    found = []
    for c in [1] if n_classes == 2 else range(n_classes):
        order = np.argsort(log_proba[:, c], kind="stable")
        score = log_proba[order, c]
        starts = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
        found.append(Ranking(order, (y_true == c)[order], starts))
    return found


def weighted_f1_and_accuracy(
    y_true: np.ndarray, y_pred: np.ndarray, n_classes: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Macro F1 [b] and accuracy [b] for row weights [b, n]."""
    from scipy.sparse import csr_array

    n = len(y_true)
    right = y_true == y_pred
    # Column c counts rows of class c, column C + c predictions of c, column 2C + c hits of c.
    columns = np.concatenate([y_true, n_classes + y_pred, 2 * n_classes + y_true[right]])
    rows = np.concatenate([np.arange(n), np.arange(n), np.flatnonzero(right)])
    counter = csr_array((np.ones(len(rows)), (columns, rows)), shape=(3 * n_classes, n))
    counts = (counter @ weights.T).reshape(3, n_classes, -1)
    both, hits = counts[0] + counts[1], counts[2]
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    present = (both > 0).sum(axis=0)
    total = weights.sum(axis=1)
    nan = np.full(len(weights), np.nan)
    return (
        np.divide(f1.sum(axis=0), present, out=nan.copy(), where=present > 0),
        np.divide(hits.sum(axis=0), total, out=nan.copy(), where=total > 0),
    )


def weighted_auroc(rankings: Sequence[Ranking], weights: np.ndarray) -> np.ndarray:
    """AUROC [b] for row weights [b, n]: share of (in class, out of class) pairs ranked right, ties counting half."""
    total = np.zeros(len(weights))
    for ranked in rankings:
        ordered = weights[:, ranked.order]
        hit = np.add.reduceat(ordered * ranked.positive, ranked.starts, axis=1)
        miss = np.add.reduceat(ordered * ~ranked.positive, ranked.starts, axis=1)
        ranked_right = (hit * (np.cumsum(miss, axis=1) - 0.5 * miss)).sum(axis=1)
        pairs = hit.sum(axis=1) * miss.sum(axis=1)
        total += np.divide(ranked_right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return total / len(rankings)
