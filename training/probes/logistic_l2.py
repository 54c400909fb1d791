"""The probe `logistic_l2`: softmax regression with a squared penalty, all folds of a search solved in one pass.

The problem is scikit-learn's `LogisticRegression(C=C)`. Final models come from a cold start at a tight tolerance
(`training.probes.estimators`); the search only ranks values of C, so each starts at the solution of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.probes.estimators import MAX_ITERATIONS, L2LogisticRegression
from training.probes.folds import Folds
from training.probes.probe import C_GRID, FittedProbe, Probe, linear
from training.solvers.l2_path import logistic_paths
from training.solvers.objective import Paths

# The largest entry of the gradient at which the search's fits stop. It only ranks, and its fits start from one
# another: on the store of `benchmarks.study` at most two labels in a thousand differed from those of the optimum.
PATH_TOLERANCE = 1e-5


class LogisticL2(Probe):
    """L2 logistic regression; of more than two classes a softmax over them."""

    name = "logistic_l2"
    parameter = "C"
    grid = C_GRID
    together = True
    in_place = True
    revision = 1  # before, searches of few rows stopped further from the solution, and could choose another C

    def estimator(self, value: float) -> L2LogisticRegression:
        """`training.probes.estimators.L2LogisticRegression`, which solves what scikit-learn's own does."""
        return L2LogisticRegression(C=value)

    def fit(self, folds: Folds, value: float, n_jobs: int = 1) -> FittedProbe:
        """See `Probe.fit`."""
        assert folds.shift is None
        weights = None if folds.weights is None else folds.weights[:, 0]
        X, y, rows, scale = folds.of.X, folds.of.y, folds.fit[0], folds.scale[:, 0]
        model = self.estimator(value).fit_rows(X, y, rows, scale, folds.n_classes, weights, n_jobs)
        return linear(model.coef_, model.intercept_, "softmax", model.n_iter_, model.converged_)

    def search(self, folds: Folds, grid: Sequence[float], n_jobs: int = 1) -> list[np.ndarray]:
        """All folds along the grid, each value starting from the solution of the one before."""
        inside = np.zeros((len(folds.of.y), len(folds.fit)), dtype=bool)
        for p, fit in enumerate(folds.fit):
            inside[fit, p] = True
        paths = Paths(folds.of.X, folds.of.y, folds.n_classes, inside, folds.scale, folds.shift, folds.weights)
        found = logistic_paths(paths, grid, [path_tolerance(C) for C in grid], MAX_ITERATIONS, n_jobs)
        return [found[:, validate, p] for p, validate in enumerate(folds.validate)]


def path_tolerance(C: float) -> float:
    """Beyond C = 1 the penalty hardly bends the loss any more, and a fixed tolerance would stop ever further away."""
    return PATH_TOLERANCE * max(1.0, C) ** -0.25
