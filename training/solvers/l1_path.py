"""The regularisation path of L1 logistic regressions: solved on the few columns that can matter, proven on all of them.

The problem is that of scikit-learn's `LogisticRegression(l1_ratio=1)`: minimise the sum of log-losses + |w|_1 / C, the
intercept free. Each value of C, from small to large, starts at the solution of the one before. It is solved on the
columns that this solution uses and on those that violate the optimality conditions under the new penalty. Then the
gradient of every column is computed, and columns that violate the conditions join, until none does.

All problems share one matrix by columns (`by_column`), which is not copied; the loops are
`training.solvers.kernels.l1_newton`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 20  # of adding columns; two or three are usual


@dataclass(frozen=True)
class Accuracy:
    """When the solver of this module stops.

    Attributes:
        violation: Largest violation of the optimality conditions, in units of the penalty; or
        relative: their sum, relative to that at the start and to the share of the rarer class (liblinear's rule); or
        settled: a step that promises to lower the objective by no more than this share of it; or
        newton: this many steps,
        sweeps: of as many sweeps over the columns each.
    """

    violation: float
    relative: float
    settled: float
    newton: int
    sweeps: int


EXACT = Accuracy(1e-2, 1e-5, 0.0, 200, 40)  # coefficients are those of liblinear at its default to two digits
# Of a thousand labels at most one differs from EXACT's, at large C too, where a solver that stops early would flatter
# values that the final model does not keep.
RANKING = Accuracy(2e-2, 1e-5, 1e-4, 60, 40)


@dataclass(frozen=True)
class ByColumn:
    """A sparse matrix [N, K] by columns: `rows` [nnz] ascend within each, in two bytes where N allows.

    Against scipy's CSC that is a quarter of the memory less, and less to read in every sweep of a solver.
    """

    indptr: np.ndarray
    rows: np.ndarray
    data: np.ndarray

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the compiled loops take."""
        return self.indptr, self.rows, self.data


def by_column(X: Any) -> ByColumn:
    """A matrix by columns.

    Args:
        X: CSR or another sparse matrix, or dense [N, K]; float32 or float64.
    """
    from scipy.sparse import csr_matrix

    from training.solvers.kernels import count_columns, csr_parts, fill_columns

    X = X if getattr(X, "format", "") == "csr" else csr_matrix(X)
    indptr = np.zeros(X.shape[1] + 1, dtype=np.uint64)
    count_columns(csr_parts(X)[1], indptr[1:])
    np.cumsum(indptr, out=indptr)
    rows = np.empty(X.nnz, dtype=np.uint16 if X.shape[0] <= 1 << 16 else np.uint32)
    data = np.empty_like(X.data)
    fill_columns(*csr_parts(X), indptr[:-1].copy(), rows, data)
    return ByColumn(indptr, rows, data)


@dataclass(frozen=True)
class L1Fit:
    """One solution: coefficients [K] of the unscaled columns, the intercept, the decision [N] of every row (fitted or
    not), Newton steps, whether it converged."""

    coef: np.ndarray
    intercept: float
    decision: np.ndarray
    iterations: int
    converged: bool


def l1_path(
    X: Any,
    y: np.ndarray,
    fit: np.ndarray,
    scale: np.ndarray,
    grid: Sequence[float],
    accuracy: Accuracy = EXACT,
    start: L1Fit | None = None,
    weights: np.ndarray | None = None,
) -> list[L1Fit]:
    """Fit one two-class problem at each C.

    Args:
        X: [N, K] by columns, not scaled; anything else is converted, which problems had better share.
        y: bool [N], whether a row is of the class.
        fit: int64, the rows fitted.
        scale: float64 [K], what columns are divided by; infinite for columns that are left out.
        grid: Values of C, rising.
        accuracy: EXACT, or RANKING where solutions are only to be compared.
        start: A solution of the same problem at a smaller C, to begin with.
        weights: float64 [N], how much the loss of each row counts; None for 1 everywhere.
    """
    from training.solvers.kernels import column_products, column_sums, l1_newton

    parts = (X if isinstance(X, ByColumn) else by_column(X)).parts
    target, weight = np.asarray(y, dtype=np.float64), np.zeros(len(y))
    weight[fit] = 1.0 if weights is None else weights[fit]
    there = np.flatnonzero(np.isfinite(scale)).astype(np.uint32)
    share = float(np.average(target[fit], weights=weight[fit]))
    w, b = np.zeros(len(scale)), float(np.log(share / (1 - share)))
    z, gradient = np.full(len(y), b), np.zeros(len(scale))

    def look() -> None:
        small = np.exp(-np.abs(z))
        residual = weight * (np.where(z > 0, 1.0, small) / (1.0 + small) - target)
        column_sums(*parts, residual, there, gradient)

    look()
    first = np.abs(gradient[there]) / scale[there]
    if start is not None:
        w, b = start.coef.copy(), start.intercept
        z[:] = b
        column_products(*parts, w, np.flatnonzero(w).astype(np.uint32), z)
        look()
    balance = min(share, 1 - share) * accuracy.relative
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
                weight,
                w,
                b,
                z,
                penalty,
                mine,
                accuracy.violation,
                total,
                accuracy.settled,
                accuracy.newton,
                accuracy.sweeps,
            )
            iterations += steps
            look()
            if not (~working & (np.abs(gradient) > (1 + accuracy.violation) * penalty)).any():
                break
            working = (w != 0) | (np.abs(gradient) > penalty)
        else:
            converged = False
        found.append(L1Fit(w.copy(), b, z.copy(), iterations, converged))
    return found


def l1_coefficients(X: Any, y: np.ndarray, C: float) -> np.ndarray:
    """Coefficients [classes, K] of one-against-the-others L1 logistic regressions ([1, K] for two classes)."""
    n_classes = int(y.max()) + 1
    rows, ones, columns = np.arange(len(y)), np.ones(X.shape[1]), by_column(X)
    classes = [1] if n_classes == 2 else range(n_classes)
    return np.stack([l1_path(columns, y == c, rows, ones, [C])[0].coef for c in classes])
