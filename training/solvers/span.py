"""Solve L2 problems of few rows in the span of those rows, where a step costs rows x rows and not rows x columns.

The penalty keeps the weights of every minimiser in the span of the rows fitted, as the problem sees them (scaled and
shifted, Z [n, K]): a part of the weights at right angles to all rows changes no decision and costs. With the inner
products Z Z' = U S^2 U', weights Z' U S^-1 v have the length of v and give the rows the decisions U S v: the same
regression on at most n dense columns, its minimiser's weights those of the large one.

The inner products are as good as the rows. Weights are Z' a, and with their gradient at zero a = -(loss' by the
decisions) / penalty: an error E of Z Z' moves decisions by E a, and E is a rounding of Z Z', as it would be in a solver
that multiplies rows with weights. Directions in which Z Z' is all rounding are left out.

A gradient g of v is the gradient Z' U S^-1 g of the weights, which is as long. No entry of it is larger than it is
long: tolerances, which are of the largest entry, are held to the length of each class's gradient.
"""

from __future__ import annotations

import numpy as np

from training.solvers.objective import Objective, Paths, log_loss

# What the two ways take, in nanoseconds on one core of a server: n = 240 to 800, K = 640 to 30,000, 2 to 20 classes.
SPARSE = 1.0  # a non-zero times a column of weights, or times a row
DENSE = 0.1  # the same of an entry of a dense matrix
READ = 0.5  # to read an entry of a matrix from memory, which with few columns of weights is most of a product
STATE_IN_COLUMNS, STATE_IN_SPAN = 60.0, 120.0  # a step of L-BFGS, for each entry of x; in the caches or not, 25 to 140
EIGEN = 0.5  # eigenvectors, times n^3
STEPS = 12  # of a fit that starts at the one before
WORTH = 2.0  # by how much the span has to be ahead: these figures move with the machine
PRODUCT_BYTES = 1 << 28  # of the products of rows with rows


def spans(paths: Paths, fits: int, rows: np.ndarray) -> bool:
    """Whether problems are solved much sooner in the span of their rows, by the operations that both ways take.

    It depends on the data alone, and on none of the values in the matrix.

    Args:
        paths: The problems.
        fits: How many values of C are fitted one after the other.
        rows: int64 [R], rows to be decided about; all rows fitted are among them.
    """
    from scipy.sparse import issparse

    from training.solvers.kernels import LANES  # numba takes half a second to import

    (N, K), n = paths.X.shape, int(paths.fit.sum(axis=0).max())
    m = 1 if paths.n_classes == 2 else paths.n_classes
    if 8 * LANES * len(rows) ** 2 > PRODUCT_BYTES:
        return False
    if issparse(paths.X):
        of_row = paths.X.nnz / max(N, 1)
        products, walk = SPARSE / 2 * len(rows) ** 2 * of_row, 2 * SPARSE * m * n * of_row
    else:
        products, walk = DENSE * len(rows) ** 2 * K, 2 * DENSE * m * N * K
    in_columns = STEPS * fits * (walk + STATE_IN_COLUMNS * m * K)
    a_step = 2 * n**2 * (READ + DENSE * m) + STATE_IN_SPAN * m * n
    return WORTH * (products + EIGEN * n**3 + STEPS * fits * a_step) < in_columns


def numbers_in_span(paths: Paths, rows: np.ndarray) -> int:
    """Numbers that a problem holds in the span of its rows: rows, rows fitted and the way back."""
    n = int(paths.fit.sum(axis=0).max())
    return n * (len(rows) + 2 * n)


class InSpan:
    """Problems as a function to minimise, in the span of the rows of each.

    Shapes: P problems, M columns of weights, n rows fitted and r directions of each problem at most, R rows to be
    decided about. x is [p, M, r + 1], the last entry the intercept.

    Args:
        columns: The problems.
        rows: int64 [R], ascending; all rows fitted are among them.
    """

    def __init__(self, columns: Objective, rows: np.ndarray) -> None:
        self.problems, self.m, self.rows = columns.problems, columns.m, columns.rows
        self._columns, self._decided = columns, rows
        fitted = [np.flatnonzero(columns.share[rows, p]) for p in range(self.problems)]
        self._fitted = [rows[fit] for fit in fitted]
        n = max(len(fit) for fit in fitted)
        self._y, self._share = np.zeros((self.problems, n), dtype=np.int64), np.zeros((self.problems, n))
        self._of_rows: list[np.ndarray] = []  # [R, r], rows in the new coordinates
        self._of_fitted: list[np.ndarray] = []  # [n, r], those that are fitted
        self._back: list[np.ndarray] = []  # [n, r], U / S
        for p, (fit, (products, summed)) in enumerate(zip(fitted, columns.inner_products(rows), strict=True)):
            self._y[p, : len(fit)] = columns.paths.y[rows[fit]]
            self._share[p, : len(fit)] = columns.share[rows[fit], p]
            values, vectors = np.linalg.eigh(products[np.ix_(fit, fit)])
            kept = values > len(fit) * np.finfo(np.float64).eps * max(values[-1], summed)
            size, U = np.sqrt(values[kept]), vectors[:, kept]
            self._back.append(U / size)
            self._of_fitted.append(U * size)
            self._of_rows.append(products[:, fit] @ self._back[-1])
        self._width = max(of.shape[1] for of in self._of_fitted)

    def start(self) -> np.ndarray:
        """Nothing learnt: zeros [P, M, r + 1]."""
        return np.zeros((self.problems, self.m, self._width + 1))

    def directions(self, p: int) -> int:
        """How many directions the rows of problem p have; its entries of x beyond them are zero."""
        return self._of_fitted[p].shape[1]

    def steepness(self, gradient: np.ndarray) -> np.ndarray:
        """At least the largest entry [p] that the gradients have in the coordinates of the columns."""
        lengths = np.sqrt(np.vecdot(gradient[:, :, :-1], gradient[:, :, :-1]))
        return np.asarray(np.maximum(lengths, np.abs(gradient[:, :, -1])).max(axis=1))

    def decision(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Float64 [R, p, M] for the problems `which`."""
        out = np.empty((len(self._decided), len(which), self.m))
        for k, p in enumerate(which):
            of = self._of_rows[p]
            out[:, k] = of @ x[k, :, : of.shape[1]].T + x[k, :, -1]
        return out

    def __call__(self, x: np.ndarray, penalty: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values [p] and gradients [p, M, r + 1] for the problems `which` with penalties [p]."""
        decision = np.zeros((len(which), self._y.shape[1], self.m))
        for k, p in enumerate(which):
            of = self._of_fitted[p]
            np.matmul(of, x[k, :, : of.shape[1]].T, out=decision[k, : len(of)])
        decision += x[:, None, :, -1]
        losses, residual = log_loss(decision, self._y[which], self._share[which])
        gradient = penalty[:, None, None] * x
        for k, p in enumerate(which):
            of = self._of_fitted[p]
            gradient[k, :, : of.shape[1]] += residual[k, : len(of)].T @ of
        gradient[:, :, -1] = residual.sum(axis=1)
        value = losses.sum(axis=1) + 0.5 * penalty * np.vecdot(x[:, :, :-1], x[:, :, :-1]).sum(axis=1)
        return value, gradient

    def of_columns(self, x: np.ndarray, p: int) -> np.ndarray:
        """The point x [M, r + 1] of problem p in the coordinates of the columns, [M, K + 1]."""
        back = self._back[p]
        weights = self._columns.combined(p, self._fitted[p], back @ x[:, : back.shape[1]].T)
        return np.concatenate([weights, x[:, -1:]], axis=1)
