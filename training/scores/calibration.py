"""Probabilities that can be taken at their word: scikit-learn's calibrators on out-of-fold scores, where they help.

Sigmoid (Platt), isotonic and temperature compete with leaving scores as they are. Each is judged by the log loss of
every inner fold under what the other folds' out-of-fold scores taught it; the best one is kept if it beats no
calibration by more than one standard error of the paired difference, and is then fitted on all of them. What is kept is
plain arrays, which `featurestore.models.calibration.calibrated` applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.models.calibration import calibrated
from featurestore.models.decision_checks import CALIBRATIONS
from featurestore.models.thresholds import LOG_ZERO, class_log_odds


@dataclass(frozen=True)
class Calibration:
    """A calibration and how it was chosen.

    Attributes:
        method: "sigmoid", "isotonic" or "temperature"; None where none helps.
        arrays: What it is, by name, see `featurestore.models.calibration.calibrated`.
        log_loss: Method ("none" for scores as they are) -> its mean log loss over the documents of all folds.
    """

    method: str | None
    arrays: Mapping[str, np.ndarray]
    log_loss: Mapping[str, float]


def choose_calibration(log_proba: np.ndarray, y: np.ndarray, fold: np.ndarray, probabilities: bool) -> Calibration:
    """Choose and fit a calibration.

    Args:
        log_proba: float64 [n, classes], out-of-fold scores.
        y: int64 [n], class indices; a class that a fold's complement lacks rules that fold out.
        fold: int64 [n], which inner fold a document was left out with.
        probabilities: Whether the scores are probabilities at all; those of a linear SVM are not, and are always
            calibrated.
    """
    n_classes = log_proba.shape[1]
    names: list[str | None] = [None, *CALIBRATIONS]
    losses: dict[str | None, np.ndarray] = {name: np.full(len(y), np.nan) for name in names}
    for k in np.unique(fold):
        here, rest = fold == k, fold != k
        if len(np.unique(y[rest])) < n_classes:
            continue
        for name in names:
            arrays = {} if name is None else fit_calibration(name, log_proba[rest], y[rest])
            losses[name][here] = log_loss(calibrated(name, arrays, log_proba[here]), y[here])
    judged = ~np.isnan(losses[None])
    if not judged.any():
        return Calibration(None, {}, {})
    means = {name: float(loss[judged].mean()) for name, loss in losses.items()}
    best = min((name for name in names if name is not None), key=lambda name: means[name])
    gain = (losses[None] - losses[best])[judged]
    helps = not probabilities or gain.mean() > gain.std(ddof=1 if len(gain) > 1 else 0) / np.sqrt(len(gain))
    kept = best if helps else None
    arrays = {} if kept is None else fit_calibration(kept, log_proba, y)
    return Calibration(kept, arrays, {name or "none": value for name, value in means.items()})


def fit_calibration(method: str, log_proba: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of one of scikit-learn's calibrators, fitted on scores [n, classes] and classes [n]."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    n_classes = log_proba.shape[1]
    if n_classes == 2:
        scores = class_log_odds(log_proba, 1)[:, None]
    elif method == "temperature":
        scores = np.nan_to_num(log_proba, nan=np.nan, neginf=LOG_ZERO)
    else:
        scores = np.stack([class_log_odds(log_proba, c) for c in range(n_classes)], axis=1)
    every = np.arange(len(y))
    frozen = FrozenEstimator(_scores_as_they_are(n_classes))
    model = CalibratedClassifierCV(frozen, method=method, cv=[(every, every)], ensemble=True)
    fitted = model.fit(scores, y).calibrated_classifiers_[0].calibrators
    if method == "sigmoid":
        slope, offset = ([-getattr(one, name) for one in fitted] for name in ("a_", "b_"))
        return {"calibration_slope": np.array(slope), "calibration_offset": np.array(offset)}
    if method == "temperature":
        # For two classes scikit-learn spreads a score x over (-x, x), which is twice the distance of log-probabilities.
        return {"calibration_beta": np.array([fitted[0].beta_ * (2.0 if n_classes == 2 else 1.0)])}
    corners = [np.asarray(one.X_thresholds_, dtype=np.float64) for one in fitted]
    return {
        "calibration_score": np.concatenate(corners),
        "calibration_share": np.clip(np.concatenate([one.y_thresholds_ for one in fitted]), 0.0, 1.0),
        "calibration_start": np.cumsum([0, *map(len, corners)]).astype(np.int64),
    }


def _scores_as_they_are(n_classes: int) -> Any:
    """A fitted scikit-learn classifier whose decision function is its input."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Scores(ClassifierMixin, BaseEstimator):
        def __init__(self, n_classes: int) -> None:
            self.n_classes = n_classes
            self.classes_ = np.arange(n_classes)

        def fit(self, X: Any, y: Any = None) -> Any:  # noqa: ARG002  (scikit-learn's interface; there is nothing to fit)
            return self

        def decision_function(self, X: np.ndarray) -> np.ndarray:
            return X[:, 0] if self.n_classes == 2 else X

    return Scores(n_classes)


def log_loss(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each document; a probability of 0 counts as the smallest that is left beside 1, as in scikit-learn."""
    own = log_proba[np.arange(len(y)), y]
    return -np.maximum(own, np.log(np.finfo(np.float64).eps))
