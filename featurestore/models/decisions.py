"""From log-probabilities to decisions: calibrated probabilities, and a class or undecided by thresholds of a model file.

A model file may hold a calibration (what turns its scores into probabilities that can be taken at their word) and an
operating point (thresholds on the log-odds of one class). Thresholds go by the scores as they are, before calibration,
so that no tie or rounding of a calibrated probability moves a decision. Neither changes which class is predicted where
there is no operating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.models.scoring import log_proba as of_decision
from featurestore.models.scoring import log_proba_ovr

REJECTED, UNDECIDED, CLAIMED = 0, 1, 2
CALIBRATIONS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": ("calibration_slope", "calibration_offset"),
    "isotonic": ("calibration_score", "calibration_share", "calibration_start"),
    "temperature": ("calibration_beta",),
}
# What stands for the log of a probability of 0, which leaves of trees have: below the rounding of probabilities.
LOG_ZERO = -36.0


def class_scores(log_proba: np.ndarray, c: int) -> np.ndarray:
    """Log-odds [n] of class c from log-probabilities [n, classes]; NaN where these are."""
    from scipy.special import logsumexp

    finite = np.nan_to_num(log_proba, nan=np.nan, neginf=LOG_ZERO)
    others = np.delete(finite, c, axis=1)
    return finite[:, c] - (others[:, 0] if others.shape[1] == 1 else np.asarray(logsumexp(others, axis=1)))


def sides(score: np.ndarray, low: float, high: float) -> np.ndarray:
    """CLAIMED (a score of at least `high`), UNDECIDED or REJECTED (below `low`), int64 [n]; NaN is rejected."""
    return np.where(score >= high, CLAIMED, np.where(score >= low, UNDECIDED, REJECTED))


def decisions(header: Mapping[str, Any], log_proba: np.ndarray) -> np.ndarray:
    """The class of each document by the operating point of a model, int64 [n]; -1 is undecided.

    Args:
        header: Of the model; without an operating point the likeliest class is decided.
        log_proba: float64 [n, classes], as the model gives them, not calibrated.
    """
    point = header.get("operating_point")
    if point is None:
        return np.argmax(log_proba, axis=1)
    c = list(header["classes"]).index(point["class"])
    side = sides(class_scores(log_proba, c), point["low"], point["high"])
    others = log_proba.copy()
    others[:, c] = -np.inf
    return np.where(side == CLAIMED, c, np.where(side == UNDECIDED, -1, np.argmax(others, axis=1)))


def calibrated(calibration: str | None, tensors: Mapping[str, np.ndarray], log_proba: np.ndarray) -> np.ndarray:
    """Calibrated log-probabilities [n, classes].

    Args:
        calibration: A key of CALIBRATIONS; None leaves them as they are.
        tensors: Its arrays. sigmoid: slope and offset of the log-odds of the second class, or of each of more than two.
            isotonic: scores and shares at the corners of a rising line for each of these, and where each begins.
            temperature: what log-probabilities are multiplied by.
        log_proba: float64 [n, classes].
    """
    from scipy.special import log_softmax

    if calibration is None:
        return log_proba
    n_classes = log_proba.shape[1]
    if calibration == "temperature":
        finite = np.nan_to_num(log_proba, nan=np.nan, neginf=LOG_ZERO)
        return np.asarray(log_softmax(tensors["calibration_beta"][0] * finite, axis=1))
    classes = [1] if n_classes == 2 else range(n_classes)
    scores = np.stack([class_scores(log_proba, c) for c in classes], axis=1)
    if calibration == "sigmoid":
        z = scores * tensors["calibration_slope"] + tensors["calibration_offset"]
        return of_decision(z[:, 0]) if n_classes == 2 else log_proba_ovr(z)
    start = tensors["calibration_start"]
    lines = [
        (tensors["calibration_score"][a:b], tensors["calibration_share"][a:b])
        for a, b in zip(start[:-1], start[1:], strict=True)
    ]
    shares = np.stack([np.interp(scores[:, i], *line) for i, line in enumerate(lines)], axis=1)
    if n_classes == 2:
        shares = np.column_stack([1.0 - shares[:, 0], shares[:, 0]])
    total = shares.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # a class can have the probability 0; where all have, nothing is known
        return np.log(np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / n_classes))


def decision_problem(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """Why the calibration or the operating point of a model file is none, or None."""
    point, calibration = header.get("operating_point"), header.get("calibration")
    if point is not None:
        if not isinstance(point, dict) or point.get("class") not in header["classes"]:
            return "key 'operating_point' names no class of the model"
        low, high = (point.get(key) for key in ("low", "high"))
        if not all(isinstance(v, float) and np.isfinite(v) for v in (low, high)) or low > high:
            return "key 'operating_point' has no thresholds"
    if calibration is None:
        return None
    method = calibration.get("method") if isinstance(calibration, dict) else None
    if method is None and isinstance(calibration, dict):
        return None
    if method not in CALIBRATIONS:
        return "key 'calibration' is wrong"
    missing = [name for name in CALIBRATIONS[method] if name not in tensors]
    if missing:
        return f"tensor '{missing[0]}' is missing"
    return _shape_problem(method, tensors, 1 if len(header["classes"]) == 2 else len(header["classes"]))


def _shape_problem(method: str, tensors: Mapping[str, np.ndarray], lines: int) -> str | None:
    if method == "temperature":
        return None if tensors["calibration_beta"].shape == (1,) else "tensor 'calibration_beta' is not one number"
    if method == "sigmoid":
        wrong = [name for name in CALIBRATIONS[method] if tensors[name].shape != (lines,)]
        return f"tensor '{wrong[0]}' has shape {tensors[wrong[0]].shape}, not {(lines,)}" if wrong else None
    start, score, share = (tensors[f"calibration_{name}"] for name in ("start", "score", "share"))
    if (
        start.dtype.kind != "i"
        or start.shape != (lines + 1,)
        or start[0] != 0
        or (np.diff(start) < 1).any()
        or score.shape != (start[-1],)
        or share.shape != score.shape
        or any((np.diff(score[a:b]) < 0).any() for a, b in zip(start[:-1], start[1:], strict=True))
    ):
        return "tensors of 'calibration' do not fit together"
    return "a calibrated share is no probability" if ((share < 0) | (share > 1)).any() else None
