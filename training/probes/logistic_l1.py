"""The probe `logistic_l1`: logistic regression with an absolute penalty, which leaves few features.

Of two classes the problem is scikit-learn's `LogisticRegression(C=C, l1_ratio=1)` with a free intercept; of more, each
class against all others. It reads a sparse matrix by columns, which all folds share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.probes.estimators import L1LogisticRegression
from training.probes.folds import Folds
from training.probes.probe import C_GRID, FittedProbe, Probe, linear
from training.solvers.l1_path import RANKING, by_column, l1_path


class LogisticL1(Probe):
    """L1 logistic regression; of more than two classes, one against the others."""

    name = "logistic_l1"
    parameter = "C"
    grid = C_GRID[2:7]  # below 0.01 no feature is left, above 100 L1 does nothing that costs little
    reads_columns = True
    in_place = True
    revision = 1  # before, final models of ordinary size were liblinear's, which penalises the intercept

    def estimator(self, value: float) -> L1LogisticRegression:
        """`training.probes.estimators.L1LogisticRegression`."""
        return L1LogisticRegression(C=value)

    def fit(self, folds: Folds, value: float, n_jobs: int = 1) -> FittedProbe:
        """See `Probe.fit`."""
        assert folds.shift is None
        weights = None if folds.weights is None else folds.weights[:, 0]
        columns, y, rows, scale = folds.of.by_column(), folds.of.y, folds.fit[0], folds.scale[:, 0]
        model = self.estimator(value).fit_rows(columns, y, rows, scale, folds.n_classes, weights, n_jobs)
        link = "softmax" if folds.n_classes == 2 else "one_vs_rest"
        return linear(model.coef_, model.intercept_, link, model.n_iter_, model.converged_)

    def search(self, folds: Folds, grid: Sequence[float], n_jobs: int = 1) -> list[np.ndarray]:  # noqa: ARG002
        """Each fold along the grid, each value starting from the solution of the one before."""
        answers = []
        for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
            scale, weights = folds.scale[:, p], None if folds.weights is None else folds.weights[:, p]
            if folds.shift is None:
                columns = folds.of.by_column()
            else:
                columns, scale = by_column((folds.of.X - folds.shift[:, p]) / scale), np.ones(len(scale))
            classes = [1] if folds.n_classes == 2 else range(folds.n_classes)
            fits = [l1_path(columns, folds.of.y == c, fit, scale, grid, RANKING, weights=weights) for c in classes]
            decision = np.array([[one.decision[validate] for one in path] for path in fits])  # [classes, grid, rows]
            answers.append(np.argmax(decision, axis=0) if len(fits) > 1 else (decision[0] > 0).astype(np.int64))
        return answers
