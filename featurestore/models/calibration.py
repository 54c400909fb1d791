"""Calibrated probabilities: a model's scores turned into probabilities that can be taken at their word.

A model file may hold a calibration, which a study chose on out-of-fold scores. It changes what probability is given,
not which class is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from featurestore.models.model import Model
from featurestore.models.scoring import log_proba as of_decision
from featurestore.models.scoring import log_proba_ovr
from featurestore.models.thresholds import LOG_ZERO, class_log_odds


def calibrated(calibration: str | None, tensors: Mapping[str, np.ndarray], log_proba: np.ndarray) -> np.ndarray:
    """Calibrated log-probabilities [n, classes].

    Args:
        calibration: A key of `featurestore.models.decision_checks.CALIBRATIONS`; None leaves them as they are.
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


def probabilities(model: Model, log_proba: np.ndarray) -> np.ndarray:
    """What a model says of each class, calibrated if its file holds a calibration; float64 [n, classes]."""
    calibration = model.header.get("calibration")
    return np.exp(calibrated(calibration and calibration["method"], model.tensors, log_proba))


def are_probabilities(model: Model) -> bool:
    """Whether a model's numbers are probabilities; the margins of a linear SVM only become some by calibration."""
    calibration = model.header.get("calibration")
    return model.header["link"] != "margin" or bool(calibration and calibration["method"])
