"""Final logistic regressions on matrices that scikit-learn would copy several times over.

The same problems, to the same tolerance, by the solvers of the search (`training.solvers.l2_path`,
`training.solvers.l1_path`) on the matrix as it is. What comes out are scikit-learn's own estimators, with the
attributes that a fit would have set.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from training.probes.estimators import FINAL_TOLERANCE, GRIDS, MAX_ITERATIONS, l2_tolerance, probe
from training.probes.grid_search import column_max, run_all
from training.solvers.l1_path import EXACT, RANKING, ByColumn, by_column, l1_path
from training.solvers.l2_path import logistic_fit
from training.solvers.objective import Paths

# Non-zeros of a training set above which scikit-learn is given none of it: rows in float64, the same scaled, and
# liblinear's own list of them are some 50 bytes for each, so 100 MB.
LARGE = 2_000_000
PROBES = ("logistic_l2", "logistic_l1")


def fit_large(
    name: str,
    X: Any,
    y: np.ndarray,
    train: np.ndarray,
    value: float,
    n_classes: int,
    columns: ByColumn | None,
    n_jobs: int,
) -> tuple[Any, Any, bool]:
    """`fit_final` by our solvers, which copy nothing; the estimators are scikit-learn's, with what a fit would set."""
    from sklearn.preprocessing import LabelBinarizer, MaxAbsScaler

    scale = column_max(X, train)
    prepare = MaxAbsScaler()
    prepare.scale_ = prepare.max_abs_ = scale
    prepare.n_features_in_, prepare.n_samples_seen_ = X.shape[1], len(train)
    model = probe(value, name, n_classes)
    if name == "logistic_l2":
        inside = np.zeros((X.shape[0], 1), dtype=bool)
        inside[train] = True
        found = logistic_fit(
            Paths(X, y, n_classes, inside, scale[:, None]),
            value,
            l2_tolerance(FINAL_TOLERANCE, value),
            MAX_ITERATIONS,
            n_jobs,
        )
        _set(model, np.arange(n_classes), found.coef * scale, found.intercept, found.iterations)
        return prepare, model, found.converged
    there = by_column(X) if columns is None else columns
    # Large values of C are reached through smaller ones, from solution to solution.
    way = [C for C in GRIDS["logistic_l1"] if value > C]

    def fit(c: int) -> Any:
        warm = l1_path(there, y == c, train, scale, way, RANKING)[-1:]
        return l1_path(there, y == c, train, scale, [value], EXACT, warm[0] if warm else None)[0]

    classes = [1] if n_classes == 2 else list(range(n_classes))
    fits = run_all([partial(fit, c) for c in classes], n_jobs)
    parts = [model] if n_classes == 2 else [probe(value, name) for _ in classes]
    for part, one in zip(parts, fits, strict=True):
        _set(part, np.arange(2), (one.coef * scale)[None], np.array([one.intercept]), one.iterations)
    if n_classes > 2:
        model.estimators_, model.label_binarizer_ = parts, LabelBinarizer(sparse_output=True).fit(np.arange(n_classes))
        model.classes_, model.n_features_in_ = np.arange(n_classes), X.shape[1]
    return prepare, model, all(one.converged for one in fits)


def _set(model: Any, classes: np.ndarray, coef: np.ndarray, intercept: np.ndarray, iterations: int) -> None:
    model.classes_, model.coef_, model.intercept_ = classes, coef, intercept
    model.n_iter_, model.n_features_in_ = np.array([iterations], dtype=np.int32), coef.shape[1]
