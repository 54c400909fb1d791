"""Which class a document gets by the thresholds of a model file, or that people decide.

An operating point holds two thresholds on the log-odds of one class, equal where nothing is handed on. They go by the
scores as they are, before any calibration, so that no tie or rounding of a calibrated probability moves a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.base.hostile_text import visible

REJECTED, UNDECIDED, CLAIMED = 0, 1, 2
BY_PEOPLE = "undecided"  # what a table says of a document that people decide, in the place of a class
# What stands for the log of a probability of 0, which leaves of trees have: below the rounding of probabilities.
LOG_ZERO = -36.0


def class_log_odds(log_proba: np.ndarray, c: int) -> np.ndarray:
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
    return decide_by(list(header["classes"]).index(point["class"]), point["low"], point["high"], log_proba)


def unreached(header: Mapping[str, Any]) -> str | None:
    """What to know before relying on a model's operating point, in a sentence; None where there is nothing."""
    point = header.get("operating_point") or {}
    said = [] if point.get("reached", True) else [visible(point.get("note", ""))]
    said += [visible(point["few"])] if point.get("few") else []
    if _claimed_in_test(point) == 0:
        said.append("it claimed no test document, so its precision is not known")
    return f"the model's operating point: {'; '.join(said)}" if said else None


def _claimed_in_test(point: Mapping[str, Any]) -> Any:
    found: Any = point
    for key in ("test", "precision", "documents"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def decide_by(c: int, low: float, high: float, log_proba: np.ndarray) -> np.ndarray:
    """The class of each document by thresholds of class c: c, -1 for undecided, or the likeliest of the others."""
    side = sides(class_log_odds(log_proba, c), low, high)
    others = log_proba.copy()
    others[:, c] = -np.inf
    return np.where(side == CLAIMED, c, np.where(side == UNDECIDED, -1, np.argmax(others, axis=1)))
