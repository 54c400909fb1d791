"""The regularisation paths of many L2 logistic regressions at once: every fold of every seed in one pass over the rows.

Each problem is the one that scikit-learn's `LogisticRegression` solves (mean log-loss + |w|^2 / (2 C n), intercept
free) on its own subset of rows and with its own scaling of the columns; all share the product with the one matrix,
which is what fits cost. Limited-memory BFGS with a state for each problem, each C starting from the solution of the one
before. It exists for selection, which fits thousands of small problems; final models come from scikit-learn itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

MEMORY = 10  # correction pairs kept, as in scikit-learn's L-BFGS
SUFFICIENT = 1e-4  # share of the promised decrease that a step must bring (Armijo)
HALVINGS = 30  # of a step before a problem counts as solved to machine precision
STATE_BYTES = 1 << 28  # correction pairs of all problems solved together; more problems are solved in turns


@dataclass(frozen=True)
class Paths:
    """P logistic regressions on one matrix.

    Shapes: N rows, K columns, P problems, M columns of weights (1 for two classes, else one for each class).

    Attributes:
        X: CSR or dense float64 [N, K].
        y: int64 [N], class indices.
        n_classes: How many classes there are.
        fit: bool [N, P], the rows that each problem is fitted on; no other row has any influence on it.
        scale: float64 [K, P], what each problem divides the columns by.
        shift: float64 [K, P], what it subtracts before, or None for nothing (sparse matrices).
    """

    X: Any
    y: np.ndarray
    n_classes: int
    fit: np.ndarray
    scale: np.ndarray
    shift: np.ndarray | None = None

    def subset(self, problems: slice) -> Paths:
        """Some of the problems."""
        shift = None if self.shift is None else self.shift[:, problems]
        return replace(self, fit=self.fit[:, problems], scale=self.scale[:, problems], shift=shift)


def logistic_paths(paths: Paths, grid: Sequence[float], tolerances: Sequence[float], max_iterations: int) -> np.ndarray:
    """Fit every problem at every C and predict every row.

    Args:
        paths: The problems.
        grid: Values of C; from small to large is fastest.
        tolerances: For each C, the largest entry of the gradient at which a fit stops.
        max_iterations: At which it stops in any case.

    Returns:
        int64 [len(grid), N, P], the predicted class of each row (also of rows not fitted).
    """
    n_problems = paths.fit.shape[1]
    m = 1 if paths.n_classes == 2 else paths.n_classes
    at_once = max(1, STATE_BYTES // (16 * MEMORY * m * (paths.X.shape[1] + 1)))
    found = np.empty((len(grid), len(paths.y), n_problems), dtype=np.int64)
    for start in range(0, n_problems, at_once):
        here = slice(start, start + at_once)
        objective = _Objective(paths.subset(here), m)
        x = np.zeros((paths.X.shape[1] + 1, m, objective.problems))
        for i, (C, tolerance) in enumerate(zip(grid, tolerances, strict=True)):
            x = _minimise(objective, 1.0 / (C * objective.rows), x, tolerance, max_iterations)
            decision = objective.decision(x, np.arange(objective.problems))
            found[i][:, here] = decision[:, 0] > 0 if m == 1 else np.argmax(decision, axis=1)
    return found


class _Objective:
    """Value and gradient of any of the problems; weights are [K + 1, M, p], the last row the intercepts."""

    def __init__(self, paths: Paths, m: int) -> None:
        from scipy.sparse import issparse

        self.paths, self.m = paths, m
        self.problems = paths.fit.shape[1]
        self.rows = paths.fit.sum(axis=0).astype(np.float64)  # [P]
        self.share = paths.fit / self.rows  # [N, P], weight of each row in the mean
        self.X = paths.X
        self.XT = paths.X.T.tocsr() if issparse(paths.X) else paths.X.T
        self.is_class = np.stack([paths.y == c for c in ([1] if m == 1 else range(m))], axis=1).astype(np.float64)

    def decision(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """[N, M, p] for the problems `which`."""
        weights = x[:-1] / self.paths.scale[:, None, which]
        product = (self.X @ weights.reshape(len(weights), -1)).reshape(-1, self.m, len(which))
        if self.paths.shift is not None:
            product -= np.einsum("kmp,kp->mp", weights, self.paths.shift[:, which])
        product += x[-1]
        return product

    def __call__(self, x: np.ndarray, penalty: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values [p] and gradients [K + 1, M, p] for the problems `which` with penalties [p]."""
        Z, share = self.decision(x, which), self.share[:, which]
        if self.m == 1:
            z = Z[:, 0]
            small = np.exp(-np.abs(z))
            losses = np.maximum(z, 0.0) + np.log1p(small) - self.is_class * z
            chance = (np.where(z > 0, 1.0, small) / (1.0 + small))[:, None]
        else:
            own = np.einsum("nmp,nm->np", Z, self.is_class)
            top = Z.max(axis=1)
            np.exp(Z - top[:, None], out=Z)
            total = Z.sum(axis=1)
            losses = np.log(total) + top - own
            chance = Z / total[:, None]
        value = np.einsum("np,np->p", losses, share) + 0.5 * penalty * np.einsum("kmp,kmp->p", x[:-1], x[:-1])
        residual = (chance - self.is_class[:, :, None]) * share[:, None]
        gradient = np.empty_like(x)
        gradient[-1] = residual.sum(axis=0)
        product = (self.XT @ residual.reshape(len(residual), -1)).reshape(x[:-1].shape)
        if self.paths.shift is not None:
            product -= self.paths.shift[:, None, which] * gradient[-1]
        gradient[:-1] = product / self.paths.scale[:, None, which] + penalty * x[:-1]
        return value, gradient


@dataclass
class _State:
    """Where the unfinished problems stand; the last axis of every array is the problem."""

    which: np.ndarray
    x: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)  # step, change, 1 / product

    def keep(self, going: np.ndarray) -> None:
        """Drop the problems that are done."""
        self.which, self.value = self.which[going], self.value[going]
        self.x, self.gradient = self.x[..., going], self.gradient[..., going]
        self.pairs = [(s[..., going], d[..., going], r[going]) for s, d, r in self.pairs]

    def direction(self) -> np.ndarray:
        """The L-BFGS step (two-loop recursion; Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
        q, factors = -self.gradient, []
        for step, change, inverse in reversed(self.pairs):
            factors.append(inverse * _dot(step, q))
            q -= factors[-1] * change
        if self.pairs:
            _, change, inverse = self.pairs[-1]
            size = inverse * _dot(change, change)
            q /= np.where(size > 0, size, 1.0)
        else:
            q /= np.maximum(np.abs(self.gradient).sum(axis=(0, 1)), 1.0)
        for (step, change, inverse), factor in zip(self.pairs, reversed(factors), strict=True):
            q += (factor - inverse * _dot(change, q)) * step
        return q


def _minimise(
    objective: _Objective, penalty: np.ndarray, start: np.ndarray, tolerance: float, max_iterations: int
) -> np.ndarray:
    """Minimise all problems from `start`; a problem leaves the batch as soon as it is solved."""
    solved = start.copy()
    which = np.arange(objective.problems)
    state = _State(which, start, *objective(start, penalty, which))
    for _ in range(max_iterations):
        going = np.abs(state.gradient).max(axis=(0, 1)) > tolerance
        solved[..., state.which] = state.x
        if not going.any():
            break
        if not going.all():
            state.keep(going)
        moved = _step(objective, penalty, state)
        if not moved.all():  # no decrease left to be had in float64
            state.keep(moved)
            if not moved.any():
                break
    solved[..., state.which] = state.x
    return solved


def _step(objective: _Objective, penalty: np.ndarray, state: _State) -> np.ndarray:
    """Move every problem downhill and remember the curvature; says which could move."""
    direction = state.direction()
    slope = _dot(direction, state.gradient)
    uphill = slope >= 0
    if uphill.any():
        direction[..., uphill] = -state.gradient[..., uphill]
        slope = _dot(direction, state.gradient)
    x, value, gradient = state.x.copy(), state.value.copy(), state.gradient.copy()
    length, todo = np.ones(len(slope)), np.arange(len(slope))
    for _ in range(HALVINGS):
        tried = state.x[..., todo] + length[todo] * direction[..., todo]
        new_value, new_gradient = objective(tried, penalty[state.which[todo]], state.which[todo])
        good = new_value <= state.value[todo] + SUFFICIENT * length[todo] * slope[todo]
        done = todo[good]
        x[..., done], value[done], gradient[..., done] = tried[..., good], new_value[good], new_gradient[..., good]
        # A step too long is cut to the minimum of the parabola through value, slope and new value, at least to a half.
        excess = new_value - state.value[todo] - length[todo] * slope[todo]
        parabola = -0.5 * slope[todo] * length[todo] / np.where(excess > 0, excess, np.inf)
        length[todo] *= np.clip(parabola, 0.1, 0.5)
        todo = todo[~good]
        if not len(todo):
            break
    moved = np.ones(len(slope), bool)
    moved[todo] = False
    step, change = x - state.x, gradient - state.gradient
    product = _dot(step, change)
    inverse = np.divide(1.0, product, out=np.zeros_like(product), where=product > 0)  # zero leaves a pair out
    state.x, state.value, state.gradient = x, value, gradient
    state.pairs = [*state.pairs[-(MEMORY - 1) :], (step, change, inverse)]
    return moved


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("kmp,kmp->p", a, b)
