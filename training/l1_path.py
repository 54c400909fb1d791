"""The regularisation path of L1 logistic regressions: solved on the few columns that can matter, proven on all of them.

The problem is the one of scikit-learn's `LogisticRegression(l1_ratio=1)`: sum of log-losses + |w|_1 / C, intercept
free. From small C to large, each fit starts from the last solution, on the columns that it uses or that break its
optimality conditions under the new penalty; after it, the gradient of every column is looked at, and those that break
the conditions join until none does. The solver (`training.kernels.l1_newton`) reads one CSC matrix that all problems
share and copies none of it.

Final models of ordinary size come from scikit-learn's liblinear (`l1_probe`), which penalises the intercept too: its
feature is given the size `INTERCEPT_SCALING`, which makes that penalty a hundredth of any other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

INTERCEPT_SCALING = 100.0
TOLERANCE = 1e-4  # liblinear's stopping value, scikit-learn's default; at 1e-3 coefficients of C >= 10 are off visibly
# Our solver stops where the largest violation of the optimality conditions, in units of the penalty, or by liblinear's
# rule (their sum, relative to that at the start and to the share of the rarer class) is small enough.
MAX_ITERATIONS = 1000  # of liblinear; thirty are usual
EXACT = 1e-2  # coefficients are those of liblinear to two digits
RANKING = 1e-1  # at most three labels in a thousand differ from an exact solution: enough to rank values of C
RELATIVE = {EXACT: 0.1 * TOLERANCE, RANKING: TOLERANCE}
MAX_NEWTON, MAX_SWEEPS = {EXACT: 200, RANKING: 20}, {EXACT: 40, RANKING: 10}
ROUNDS = 20  # of adding columns; two or three are usual


@dataclass(frozen=True)
class L1Fit:
    """One solution: coefficients [K] of the unscaled columns, the intercept, the decision [N] of every row (fitted or
    not), Newton steps, whether it converged."""

    coef: np.ndarray
    intercept: float
    decision: np.ndarray
    iterations: int
    converged: bool


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
    X: Any,
    y: np.ndarray,
    fit: np.ndarray,
    scale: np.ndarray,
    grid: Sequence[float],
    tolerance: float = EXACT,
    start: L1Fit | None = None,
) -> list[L1Fit]:
    """Fit one two-class problem at each C.

    Args:
        X: CSC [N, K], float32 or float64, not scaled; anything else is converted, which problems had better share.
        y: bool [N], whether a row is of the class.
        fit: int64, the rows fitted.
        scale: float64 [K], what columns are divided by; infinite for columns that are left out.
        grid: Values of C, rising.
        tolerance: EXACT, or RANKING where solutions are only to be compared.
        start: A solution of the same problem at a smaller C, to begin with.
    """
    from scipy.sparse import csc_matrix

    from training.kernels import column_sums, csr_parts, l1_newton

    columns = X if getattr(X, "format", "") == "csc" else csc_matrix(X)
    parts = csr_parts(columns)
    target, inside = np.asarray(y, dtype=np.float64), np.zeros(len(y), dtype=bool)
    inside[fit] = True
    there = np.flatnonzero(np.isfinite(scale)).astype(np.uint32)
    share = float(target[inside].mean())
    w, b = np.zeros(len(scale)), float(np.log(share / (1 - share)))
    z, gradient = np.full(len(y), b), np.zeros(len(scale))

    def look() -> None:
        small = np.exp(-np.abs(z))
        residual = np.where(inside, np.where(z > 0, 1.0, small) / (1.0 + small) - target, 0.0)
        column_sums(*parts, residual, there, gradient)

    look()
    first = np.abs(gradient[there]) / scale[there]
    if start is not None:
        w, b = start.coef.copy(), start.intercept
        z[:] = columns @ w.astype(columns.dtype) + b
        look()
    balance = min(share, 1 - share) * RELATIVE[tolerance]
    found = []
    for C in grid:
        penalty = scale / C  # of the unscaled coefficients
        working = (w != 0) | (np.abs(gradient) > penalty)
        iterations, converged = 0, False
        total = C * balance * float(np.maximum(first - 1.0 / C, 0.0).sum())
        for _ in range(ROUNDS):
            mine = np.flatnonzero(working).astype(np.uint32)
            b, steps, converged = l1_newton(
                *parts,
                target,
                inside,
                w,
                b,
                z,
                penalty,
                mine,
                tolerance,
                total,
                MAX_NEWTON[tolerance],
                MAX_SWEEPS[tolerance],
            )
            iterations += steps
            look()
            if not (~working & (np.abs(gradient) > (1 + tolerance) * penalty)).any():
                break
            working = (w != 0) | (np.abs(gradient) > penalty)
        else:
            converged = False
        found.append(L1Fit(w.copy(), b, z.copy(), iterations, converged))
    return found


def l1_coefficients(X: Any, y: np.ndarray, C: float) -> np.ndarray:
    """Coefficients [classes, K] of one-against-the-others L1 logistic regressions ([1, K] for two classes)."""
    from scipy.sparse import csc_matrix

    n_classes = int(y.max()) + 1
    rows, ones, columns = np.arange(len(y)), np.ones(X.shape[1]), csc_matrix(X)
    classes = [1] if n_classes == 2 else range(n_classes)
    return np.stack([l1_path(columns, y == c, rows, ones, [C])[0].coef for c in classes])
