"""Compute uncalibrated log-probabilities of rows with numpy and scipy alone: what scikit-learn's fitted probes say.

Rows are the model's own columns only, pooled values as a store has them; where they come from is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featurestore.models.model import Model


def decide(model: Model, X: Any) -> np.ndarray:
    """Log-probabilities [n, classes] of rows X [n, columns of the model], pooled values as the store has them.

    A linear SVM's are the log-softmax of its margins: they rank documents and are no probabilities.
    """
    return scores(model.header["link"], model.tensors, scaled(model, X))


def scores(link: str, tensors: Mapping[str, np.ndarray], X: Any) -> np.ndarray:
    """Log-probabilities [n, classes] of rows X [n, columns] that are scaled as the probe saw them.

    Args:
        link: One of `featurestore.models.checks.LINKS`.
        tensors: The weights or the tree, as in `featurestore.models.model.Model`.
        X: CSR or dense float64.
    """
    if link == "tree":
        return _walk(tensors, X)
    decision = np.asarray(X @ tensors["coef"].T) + tensors["intercept"]
    if decision.shape[1] == 1:
        return log_proba(decision[:, 0])
    return log_proba_ovr(decision) if link == "one_vs_rest" else log_proba(decision)


def scaled(model: Model, X: Any) -> Any:
    """Pooled values as the model's weights multiply them, float64 [n, columns of the model]; sparse if X is."""
    tensors = model.tensors
    if model.header["kind"] == "dense":
        return (X - tensors.get("shift", 0.0)) / tensors["scale"]
    if model.header["scale"] == "sqrt":
        X = X.sqrt()
    if "binarize" in tensors:
        X = X.copy()
        X.data = (X.data > tensors["binarize"][X.indices]).astype(np.float64)
    X = X.tocsr().astype(np.float64)
    X.data = X.data / tensors["scale"][X.indices]
    return X


def _walk(tensors: Mapping[str, np.ndarray], X: Any) -> np.ndarray:
    """Leaf of every row; values are compared in float32, as scikit-learn's trees do."""
    from scipy.sparse import issparse

    used, place = np.unique(np.maximum(tensors["feature"], 0), return_inverse=True)
    values = X[:, used]
    values = (values.toarray() if issparse(values) else values).astype(np.float32)
    node = np.zeros(X.shape[0], dtype=np.int64)
    rows = np.arange(X.shape[0])
    for _ in range(len(place)):  # no path is longer than there are nodes
        inner = tensors["left"][node] >= 0
        if not inner.any():
            break
        left = values[rows, place[node]] <= tensors["threshold"][node]
        node = np.where(inner, np.where(left, tensors["left"][node], tensors["right"][node]), node)
    with np.errstate(divide="ignore"):
        return np.log(tensors["value"][node])


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
