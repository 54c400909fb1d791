"""From decision functions to log-probabilities."""

from __future__ import annotations

import numpy as np


def log_proba(decision: np.ndarray) -> np.ndarray:
    """Log-probabilities [n, classes] from a decision function [n] (two classes) or [n, classes]."""
    from scipy.special import log_softmax

    if decision.ndim == 1:
        return np.column_stack([-np.logaddexp(0.0, decision), -np.logaddexp(0.0, -decision)])
    return np.asarray(log_softmax(decision, axis=1))


def log_proba_ovr(decision: np.ndarray) -> np.ndarray:
    """Each class' own log-sigmoid, normalised over classes as scikit-learn's OneVsRestClassifier does; [n, classes]."""
    from scipy.special import logsumexp

    own = -np.logaddexp(0.0, -decision)
    return np.asarray(own - logsumexp(own, axis=1, keepdims=True))
