"""Calibrated probabilities: a model's scores turned into probabilities that can be taken at their word.

A model file may hold a calibration, which a study chose on out-of-fold scores. It changes what probability is given,
not which class is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from featurestore.models.links import log_proba as of_decision
from featurestore.models.links import log_proba_ovr
from featurestore.models.thresholds import LOG_ZERO, class_log_odds

CALIBRATIONS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": ("calibration_slope", "calibration_offset"),
    "isotonic": ("calibration_score", "calibration_share", "calibration_start"),
    "temperature": ("calibration_beta",),
}


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
    scores = np.stack([class_log_odds(log_proba, c) for c in classes], axis=1)
    if calibration == "sigmoid":
        z = scores * tensors["calibration_slope"] + tensors["calibration_offset"]
        return of_decision(z[:, 0]) if n_classes == 2 else log_proba_ovr(z)
    start = tensors["calibration_start"]
    lines = [(tensors["calibration_score"][a:b], tensors["calibration_share"][a:b]) for a, b in pairwise(start)]
    shares = np.stack([np.interp(scores[:, i], *line) for i, line in enumerate(lines)], axis=1)
    if n_classes == 2:
        shares = np.column_stack([1.0 - shares[:, 0], shares[:, 0]])
    total = shares.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # a class can have the probability 0; where all have, nothing is known
        return np.log(np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / n_classes))


def calibration_of(header: Mapping[str, Any]) -> str | None:
    """The calibration of a model file, None where it has none."""
    calibration = header.get("calibration")
    return None if calibration is None else calibration["method"]


def calibration_problem(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """Why the calibration of a model file is none, or None."""
    calibration = header.get("calibration")
    if calibration is None:
        return None
    if not isinstance(calibration, dict) or calibration.get("method", "") not in (None, *CALIBRATIONS):
        return "key 'calibration' is wrong"
    method = calibration["method"]
    if method is None:
        return None
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
        or any((np.diff(score[a:b]) < 0).any() for a, b in pairwise(start))
    ):
        return "tensors of 'calibration' do not fit together"
    return "a calibrated share is no probability" if ((share < 0) | (share > 1)).any() else None
