"""Loss and gradient of many L2 logistic regressions on one matrix, computed in one pass over its rows.

Columns are centred on the rows fitted, without touching the matrix. The intercept then stands for the decision at their
mean, which changes no solution and halves the number of steps: features that fire almost everywhere would otherwise
stand in for the intercept. Sparse matrices are read as they are (`training.solvers.kernels`), in float32 and shared by
threads; dense ones take two products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

LANE_BYTES = 1 << 28  # gradients of all blocks of rows together
BLOCK = 1 << 21  # non-zeros in a block of rows, the piece of work of a thread: some milliseconds
MAX_BLOCKS = 16  # each has a gradient of its own
PIECES = 4  # of the products of rows with rows, pieces of work of threads


@dataclass(frozen=True)
class Paths:
    """P logistic regressions on one matrix.

    Shapes: N rows, K columns, P problems, M columns of weights (1 for two classes, else one for each class).

    Attributes:
        X: CSR float32 or float64, or dense float64 [N, K].
        y: int64 [N], class indices.
        n_classes: How many classes there are.
        fit: bool [N, P], the rows that each problem is fitted on; no other row has any influence on it.
        scale: float64 [K, P], what each problem divides the columns by; infinite for columns that it leaves out.
        shift: float64 [K, P], what it subtracts before; None for the mean of the rows fitted, which for the solution
            is the same as nothing.
        weights: float64 [N, P], how much the loss of each row counts in each problem; None for 1 everywhere.
    """

    X: Any
    y: np.ndarray
    n_classes: int
    fit: np.ndarray
    scale: np.ndarray
    shift: np.ndarray | None = None
    weights: np.ndarray | None = None

    def subset(self, problems: slice) -> Paths:
        """Some of the problems."""
        shift, weights = (None if of is None else of[:, problems] for of in (self.shift, self.weights))
        return replace(self, fit=self.fit[:, problems], scale=self.scale[:, problems], shift=shift, weights=weights)


def objective_of(paths: Paths, pool: ThreadPoolExecutor | None = None) -> Objective:
    """The problems as a function to minimise."""
    from scipy.sparse import issparse

    return _Sparse(paths, pool) if issparse(paths.X) else _Dense(paths)


class Objective(ABC):
    """Value and gradient of any of the problems; x is [p, M, K + 1], the last entry the intercept at the mean."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.m = 1 if paths.n_classes == 2 else paths.n_classes
        self.problems = paths.fit.shape[1]
        weight = paths.fit if paths.weights is None else paths.fit * paths.weights
        self.rows = weight.sum(axis=0).astype(np.float64)  # [P], rows fitted, by their weight
        self.share = weight / self.rows  # [N, P], weight of each row in the mean
        self.scale = np.ascontiguousarray(paths.scale.T)  # [P, K]
        self.shift = self._means() if paths.shift is None else np.ascontiguousarray(paths.shift.T)  # [P, K]

    def decision(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Float64 [N, p, M] for the problems `which`."""
        weights, intercept = self._unscaled(x, which)
        return (self._products(weights) + intercept.ravel()).reshape(len(self.paths.y), len(which), self.m)

    def __call__(self, x: np.ndarray, penalty: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values [p] and gradients [p, M, K + 1] for the problems `which` with penalties [p]."""
        weights, intercept = self._unscaled(x, which)
        losses, product, total = self._pass(weights, intercept, which)
        product -= self.shift[which, None, :] * total[:, :, None]
        product /= self.scale[which, None, :]
        product += penalty[:, None, None] * x[:, :, :-1]
        value = losses + 0.5 * penalty * np.vecdot(x[:, :, :-1], x[:, :, :-1]).sum(axis=1)
        return value, np.concatenate([product, total[:, :, None]], axis=2)

    def start(self) -> np.ndarray:
        """Nothing learnt: zeros [P, M, K + 1]."""
        return np.zeros((self.problems, self.m, self.paths.X.shape[1] + 1))

    def steepness(self, gradient: np.ndarray) -> np.ndarray:
        """Largest entry [p] of the gradients [p, M, K + 1]: what tolerances are of."""
        return np.asarray(np.abs(gradient).max(axis=(1, 2)))

    def combined(self, p: int, rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Weights [M, K] that are the sum of some rows of problem p, as it sees them, times `factors` [rows, M]."""
        product = np.asarray(self.paths.X[rows].T @ factors).T
        return (product - factors.sum(axis=0)[:, None] * self.shift[p]) / self.scale[p]

    @abstractmethod
    def inner_products(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """For each problem the inner products [rows, rows] of some rows as it sees them, scaled and shifted.

        With them comes the size of the numbers that were added up, whose last bits they do not know.
        """

    def _unscaled(self, x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [p, M, K] and intercepts [p, M] of the columns as they are."""
        weights = x[:, :, :-1] / self.scale[which, None, :]
        return weights, x[:, :, -1] - np.vecdot(weights, self.shift[which, None, :])

    @abstractmethod
    def _means(self) -> np.ndarray:
        """Means [P, K] of the rows that each problem is fitted on."""

    @abstractmethod
    def _products(self, weights: np.ndarray) -> np.ndarray:
        """X times weights [p, M, K], [N, p * M]."""

    @abstractmethod
    def _pass(
        self, weights: np.ndarray, intercept: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses [p], their gradients by the weights [p, M, K] and by the intercepts [p, M]."""


class _Sparse(Objective):
    """Blocks of rows on threads; which rows make a block depends on the matrix alone, and so does every sum."""

    def __init__(self, paths: Paths, pool: ThreadPoolExecutor | None) -> None:
        from training.solvers.kernels import LANES, csr_parts

        self._parts, self._lanes = csr_parts(paths.X), LANES
        self._map = map if pool is None else pool.map
        columns = paths.fit.shape[1] * (1 if paths.n_classes == 2 else paths.n_classes)
        most = max(1, LANE_BYTES // (8 * LANES * paths.X.shape[1] * -(-columns // LANES)))
        blocks = int(np.clip(paths.X.nnz // BLOCK, 1, min(MAX_BLOCKS, most)))
        cuts = np.searchsorted(paths.X.indptr, paths.X.nnz * np.arange(1, blocks) // blocks)
        ends = [0, *(int(cut) for cut in cuts), paths.X.shape[0]]
        self._blocks = list(pairwise(ends))
        super().__init__(paths)

    def _means(self) -> np.ndarray:
        share = self.share.astype(self.paths.X.dtype)  # another type would make scipy copy the matrix
        return np.ascontiguousarray((self.paths.X.T @ share).T, dtype=np.float64)

    def inner_products(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """See `Objective.inner_products`; shifts are taken off the products, for shifted rows would not be sparse."""
        from training.solvers.kernels import row_products

        pieces = np.linspace(0, len(rows) ** 2, PIECES + 1) ** 0.5  # row a has a + 1 products
        ends = [int(end) for end in np.unique(np.ceil(pieces))]
        for start in range(0, self.problems, self._lanes):
            here = slice(start, start + self._lanes)
            factors = 1.0 / self.scale[here] ** 2  # [p, K]
            shifted = factors * self.shift[here]
            lanes = self._laid_out(factors[:, None, :])[0]
            out = np.empty((len(rows), len(rows), self._lanes))
            work = partial(row_products, *self._parts, lanes, rows, out=out)
            list(self._map(work, ends[:-1], ends[1:]))
            with_shift = self._products(shifted[:, None, :])[rows]  # [rows, p]
            of_shift = np.vecdot(shifted, self.shift[here])
            for q, constant in enumerate(of_shift):
                half = np.tril(out[:, :, q])
                products = half + np.tril(half, -1).T - with_shift[:, q, None] - with_shift[None, :, q] + constant
                yield products, float(half.diagonal().max() + constant)

    def _laid_out(self, weights: np.ndarray) -> np.ndarray:
        """Weights [p, M, K] as lanes [blocks, K, LANES], zeros beyond the last."""
        flat = weights.reshape(-1, weights.shape[-1])
        groups = -(-len(flat) // self._lanes)
        lanes = np.zeros((groups, weights.shape[-1], self._lanes))
        for q, column in enumerate(flat):
            lanes[q // self._lanes, :, q % self._lanes] = column
        return lanes

    def _products(self, weights: np.ndarray) -> np.ndarray:
        from training.solvers.kernels import products

        lanes = self._laid_out(weights)
        out = np.empty((len(self.paths.y), len(lanes) * self._lanes))
        list(self._map(lambda block: products(*self._parts, lanes, block[0], block[1], out), self._blocks))
        return out[:, : weights.shape[0] * weights.shape[1]]

    def _pass(
        self, weights: np.ndarray, intercept: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from training.solvers.kernels import loss_and_gradient

        lanes, share = self._laid_out(weights), np.ascontiguousarray(self.share[:, which])

        def work(block: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            losses, gradient, total = np.zeros(len(which)), np.zeros_like(lanes), np.zeros(intercept.size)
            loss_and_gradient(
                *self._parts, lanes, intercept.ravel(), self.paths.y, share, self.m, *block, losses, gradient, total
            )
            return losses, gradient, total

        pieces = list(self._map(work, self._blocks))
        losses, gradient, total = pieces[0]
        for piece in pieces[1:]:
            losses += piece[0]
            gradient += piece[1]
            total += piece[2]
        product = np.empty_like(weights)
        flat = product.reshape(-1, weights.shape[-1])
        for q in range(len(flat)):
            flat[q] = gradient[q // self._lanes, :, q % self._lanes]
        return losses, product, total.reshape(intercept.shape)


class _Dense(Objective):
    """Hidden states and the like: two products of dense matrices."""

    def inner_products(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """See `Objective.inner_products`."""
        for scale, shift in zip(self.scale, self.shift, strict=True):
            seen = (self.paths.X[rows] - shift) / scale
            products, of_shift = seen @ seen.T, shift / scale
            size = products.diagonal().max()
            yield products, float(size + np.sqrt(size) * np.linalg.norm(of_shift))

    def _means(self) -> np.ndarray:
        return np.ascontiguousarray((self.paths.X.T @ self.share).T)

    def _products(self, weights: np.ndarray) -> np.ndarray:
        return np.asarray(self.paths.X @ weights.reshape(-1, weights.shape[-1]).T)

    def _pass(
        self, weights: np.ndarray, intercept: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = (len(self.paths.y), len(which), self.m)
        Z = (self._products(weights) + intercept.ravel()).reshape(shape)
        losses, residual = log_loss(Z, self.paths.y[:, None], self.share[:, which])
        flat = residual.reshape(len(Z), -1)
        return losses.sum(axis=0), (flat.T @ self.paths.X).reshape(weights.shape), residual.sum(axis=0)


def log_loss(decision: np.ndarray, y: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted log-losses [...] and their derivatives [..., M] by the decisions.

    Args:
        decision: float64 [..., M], overwritten; with M == 1 the log-odds of class 1.
        y: int64, class indices, to be broadcast to [...].
        share: float64 [...], the weights.
    """
    if decision.shape[-1] == 1:
        z, is_class = decision[..., 0], (y == 1).astype(np.float64)
        small = np.exp(-np.abs(z))
        losses = np.maximum(z, 0.0) + np.log1p(small) - is_class * z
        residual = ((np.where(z > 0, 1.0, small) / (1.0 + small) - is_class) * share)[..., None]
        return losses * share, residual
    place = np.broadcast_to(y, share.shape)[..., None]
    own = np.take_along_axis(decision, place, axis=-1)[..., 0]
    top = decision.max(axis=-1)
    np.exp(decision - top[..., None], out=decision)
    norm = decision.sum(axis=-1)
    losses = np.log(norm) + top - own
    residual = decision / norm[..., None]
    np.put_along_axis(residual, place, np.take_along_axis(residual, place, axis=-1) - 1.0, axis=-1)
    residual *= share[..., None]
    return losses * share, residual
