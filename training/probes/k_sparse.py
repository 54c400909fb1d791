"""The probe `k_sparse`: the k features with the largest class-mean differences, then L2 logistic regression at C = 1.

After sae-probes (Kantamneni et al. 2025): how far a handful of features goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.methods.transformers import SelectTop, class_gap, feature_scores, top_mask
from training.probes.estimators import MAX_ITERATIONS, L2LogisticRegression
from training.probes.folds import Folds, one_fold
from training.probes.logistic_l2 import PATH_TOLERANCE, LogisticL2
from training.probes.probe import FittedProbe, Probe, linear
from training.solvers.l2_path import logistic_paths
from training.solvers.objective import Paths

C = 1.0  # of the regression on the k features: so few need little of a penalty


class KSparse(Probe):
    """Logistic regression on k features."""

    name = "k_sparse"
    parameter = "k"
    grid = (1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0)
    revision = 1  # as `LogisticL2`, by which it searches

    def estimator(self, value: float) -> Any:
        """A pipeline of the selection and the regression."""
        from sklearn.pipeline import make_pipeline

        return make_pipeline(SelectTop(int(value)), L2LogisticRegression(C=C))

    def fit(self, folds: Folds, value: float, n_jobs: int = 1) -> FittedProbe:
        """See `Probe.fit`; features that were not selected have the coefficient 0."""
        rows = folds.fit[0]
        X, y = folds.scaled(0, rows), folds.of.y[rows]
        kept = np.flatnonzero(top_mask(feature_scores(X, y, "class_means"), int(value)))
        small = one_fold(X[:, kept], y, folds.n_classes, folds.weights_of(0, rows))
        found = LogisticL2().fit(small, C, n_jobs)
        coef = np.zeros((len(found.tensors["coef"]), X.shape[1]))
        coef[:, kept] = found.tensors["coef"]
        return linear(coef, found.tensors["intercept"], found.link, found.iterations, found.converged)

    def search(self, folds: Folds, grid: Sequence[float], n_jobs: int = 1) -> list[np.ndarray]:  # noqa: ARG002
        """All k of a fold are problems on one small matrix: the columns of the largest k."""
        answers = []
        for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
            rows, n_classes = np.concatenate([fit, validate]), folds.n_classes
            X, y = folds.scaled(p, rows), folds.of.y[rows]
            member = np.zeros((n_classes, len(fit)))
            member[y[: len(fit)], np.arange(len(fit))] = 1.0
            gap = class_gap(np.asarray(member @ X[: len(fit)]), member.sum(axis=1))
            widest = np.flatnonzero(top_mask(gap, int(max(grid))))
            scale = np.stack([np.where(top_mask(gap, int(k))[widest], 1.0, np.inf) for k in grid], axis=1)
            inside = np.tile((np.arange(len(y)) < len(fit))[:, None], (1, len(grid)))
            weights = folds.weights_of(p, rows)
            of_row = None if weights is None else np.tile(weights[:, None], (1, len(grid)))
            paths = Paths(X[:, widest], y, n_classes, inside, scale, weights=of_row)
            found = logistic_paths(paths, [C], [PATH_TOLERANCE], MAX_ITERATIONS)[0]  # [rows, k]
            answers.append(found[len(fit) :].T)
        return answers
