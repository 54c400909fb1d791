"""Solve many L2 logistic regressions at once, along a grid of C: every fold of every seed in one pass over the rows.

Each problem is the one of scikit-learn's `LogisticRegression` (mean log-loss + |w|^2 / (2 C n), intercept free) on its
own subset of rows and with its own scaling of the columns. What fits cost is the pass over the matrix, and all
problems share it (`training.solvers.objective`). The method is limited-memory BFGS with a state for each problem; each
value of C starts from the solution of the one before. A single problem from a cold start is a final model
(`logistic_fit`). Few rows with many columns are solved in the span of the rows (`training.solvers.span`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from training.solvers.objective import Objective, Paths, objective_of
from training.solvers.span import InSpan, numbers_in_span, spans

MEMORY = 10  # correction pairs kept, as in scikit-learn's L-BFGS
IN_VAIN = 5  # steps in a row, after which a problem is as solved as float64 can tell
ROUNDING = 4 * np.finfo(np.float64).eps  # of a value: less is no difference
SUFFICIENT = 1e-4  # share of the promised decrease that a step must bring (Armijo)
HALVINGS = 30  # of a step before a problem counts as solved to machine precision
STATE_BYTES = 1 << 28  # correction pairs of all problems solved together; more problems are solved in turns


@dataclass(frozen=True)
class Solution:
    """One problem at one C: coefficients [M, K] of the unscaled columns, intercepts [M], how it went."""

    coef: np.ndarray
    intercept: np.ndarray
    iterations: int
    converged: bool


def logistic_paths(
    paths: Paths, grid: Sequence[float], tolerances: Sequence[float], max_iterations: int, n_jobs: int = 1
) -> np.ndarray:
    """Fit every problem at every C and predict every row.

    Args:
        paths: The problems.
        grid: Values of C; from small to large is fastest.
        tolerances: For each C, the largest entry of the gradient at which a fit stops.
        max_iterations: At which it stops in any case.
        n_jobs: Threads; they change no bit.

    Returns:
        int64 [len(grid), N, P], the predicted class of each row (also of rows not fitted).
    """
    n_problems, everything = paths.fit.shape[1], np.arange(len(paths.y))
    few = spans(paths, len(grid), everything)
    numbers = numbers_in_span(paths, everything) if few else 0
    width = (int(paths.fit.sum(axis=0).max()) if few else paths.X.shape[1]) + 1
    m = 1 if paths.n_classes == 2 else paths.n_classes
    at_once = max(1, STATE_BYTES // (16 * MEMORY * m * width + 8 * numbers))
    found = np.empty((len(grid), len(paths.y), n_problems), dtype=np.int64)
    with ThreadPoolExecutor(n_jobs) as pool:
        for start in range(0, n_problems, at_once):
            here = slice(start, start + at_once)
            columns = objective_of(paths.subset(here), pool if n_jobs > 1 else None)
            problems = InSpan(columns, everything) if few else columns
            x = problems.start()
            for i, (C, tolerance) in enumerate(zip(grid, tolerances, strict=True)):
                x, _ = minimise(problems, 1.0 / (C * problems.rows), x, tolerance, max_iterations)
                decision = problems.decision(x, np.arange(problems.problems))
                found[i][:, here] = decision[:, :, 0] > 0 if m == 1 else np.argmax(decision, axis=2)
    return found


def logistic_fit(paths: Paths, C: float, tolerance: float, max_iterations: int, n_jobs: int = 1) -> Solution:
    """Fit the only problem of `paths` at one C, from a cold start."""
    rows = np.flatnonzero(paths.fit[:, 0])
    with ThreadPoolExecutor(n_jobs) as pool:
        objective = objective_of(paths, pool if n_jobs > 1 else None)
        penalty = 1.0 / (C * objective.rows)
        x, before = objective.start(), 0
        if spans(paths, 1, rows):
            problem = InSpan(objective, rows)
            small, steps = minimise(problem, penalty, problem.start(), tolerance, max_iterations)
            x, before = problem.of_columns(small[0], 0)[None], int(steps[0])
        # Where the span was enough this looks at the gradient once and takes no step.
        x, steps = minimise(objective, penalty, x, tolerance, max_iterations - before)
    coef, taken = x[0, :, :-1] / objective.scale[0], before + int(steps[0])
    return Solution(coef, x[0, :, -1] - coef @ objective.shift[0], taken, taken < max_iterations)


@dataclass
class _State:
    """Where the unfinished problems stand; the first axis of every array is the problem."""

    which: np.ndarray
    x: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    in_vain: np.ndarray  # steps in a row that changed neither value nor gradient for the better
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)  # step, change, 1 / product

    def keep(self, going: np.ndarray) -> None:
        """Drop the problems that are done."""
        self.which, self.value = self.which[going], self.value[going]
        self.x, self.gradient, self.in_vain = self.x[going], self.gradient[going], self.in_vain[going]
        self.pairs = [(s[going], d[going], r[going]) for s, d, r in self.pairs]

    def direction(self) -> np.ndarray:
        """The L-BFGS step (two-loop recursion; Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
        q, factors = -self.gradient, []
        for step, change, inverse in reversed(self.pairs):
            factors.append(_times(inverse * _dot(step, q)))
            q -= factors[-1] * change
        if self.pairs:
            _, change, inverse = self.pairs[-1]
            size = inverse * _dot(change, change)
            q /= _times(np.where(size > 0, size, 1.0))
        else:
            q /= _times(np.maximum(np.abs(self.gradient).sum(axis=(1, 2)), 1.0))
        for (step, change, inverse), factor in zip(self.pairs, reversed(factors), strict=True):
            q += (factor - _times(inverse * _dot(change, q))) * step
        return q


def minimise(
    objective: Objective | InSpan, penalty: np.ndarray, start: np.ndarray, tolerance: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise all problems from `start` [P, M, K + 1]; a problem leaves the batch as soon as it is solved.

    In the span of the rows there are as many entries as directions, instead of K.

    Returns:
        (solutions [P, M, K + 1], steps [P]; `max_iterations` steps mean that the tolerance was not reached).
    """
    solved, steps = start.copy(), np.full(objective.problems, max_iterations)
    which = np.arange(objective.problems)
    state = _State(which, start, *objective(start, penalty, which), np.zeros(len(which), int))
    for step in range(max_iterations):
        going = objective.steepness(state.gradient) > tolerance
        solved[state.which] = state.x
        steps[state.which[~going]] = step
        if not going.any():
            break
        if not going.all():
            state.keep(going)
        before, steepest = state.value, objective.steepness(state.gradient)
        moved = _step(objective, penalty, state)
        # Near the minimum float64 no longer tells values apart, and gradients fall by fits and starts.
        better = (state.value < before) | (objective.steepness(state.gradient) < steepest)
        state.in_vain = np.where(better, 0, state.in_vain + 1)
        moved &= state.in_vain < IN_VAIN
        if not moved.all():  # nothing left to be had
            solved[state.which] = state.x
            steps[state.which[~moved]] = step
            state.keep(moved)
            if not moved.any():
                break
    solved[state.which] = state.x
    return solved, steps


def _step(objective: Objective | InSpan, penalty: np.ndarray, state: _State) -> np.ndarray:
    """Move every problem downhill and remember the curvature; says which could move."""
    direction = state.direction()
    slope = _dot(direction, state.gradient)
    uphill = slope >= 0
    if uphill.any():
        direction[uphill] = -state.gradient[uphill]
        slope = _dot(direction, state.gradient)
    x, value, gradient = state.x.copy(), state.value.copy(), state.gradient.copy()
    length, todo = np.ones(len(slope)), np.arange(len(slope))
    for _ in range(HALVINGS):
        tried = state.x[todo] + _times(length[todo]) * direction[todo]
        new_value, new_gradient = objective(tried, penalty[state.which[todo]], state.which[todo])
        rounding = ROUNDING * np.abs(state.value[todo])
        good = new_value <= state.value[todo] + SUFFICIENT * length[todo] * slope[todo] + rounding
        done = todo[good]
        x[done], value[done], gradient[done] = tried[good], new_value[good], new_gradient[good]
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
    """Of each problem, [p]."""
    return np.asarray(np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1)))


def _times(factor: np.ndarray) -> np.ndarray:
    """A factor [p] for each problem, to be multiplied with [p, M, K + 1]."""
    return factor[:, None, None]
