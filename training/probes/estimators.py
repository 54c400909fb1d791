"""Logistic regressions as scikit-learn estimators, solved by `training.solvers` on dense and sparse matrices alike.

Each minimises what scikit-learn's `LogisticRegression` of the same penalty minimises, so that anyone can repeat a final
model of a study in one line: `L2LogisticRegression(C).fit(X_scaled, y)`. Beside `fit` they have `fit_rows`, which fits
some rows of a matrix with its columns divided by given numbers and copies nothing of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from featurestore.models.scoring import log_proba, log_proba_ovr
from training.probes.threads import run_all
from training.solvers.l1_path import RANKING, Accuracy, ByColumn, by_column, l1_path
from training.solvers.l2_path import logistic_fit
from training.solvers.objective import Paths

# The largest entry of the gradient at which L2 fits stop, see `L2LogisticRegression`: scikit-learn's default of 1e-4
# leaves C >= 10 far from the optimum (one label in ten differs).
L2_TOLERANCE = 1e-6
L1_TOLERANCE = 1e-2  # coefficients are those of liblinear at its default to two digits
MAX_ITERATIONS = 2000  # the hardest L2 fits measured take about 100
L1_WAY = (0.01, 0.1, 1.0, 10.0)  # large values of C are reached through these, from solution to solution


class _LogisticRegression(ClassifierMixin, BaseEstimator, ABC):
    """What both have in common: checks of the input, and predictions from `coef_` and `intercept_`."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit all rows of X, CSR or dense [N, K], to their classes y [N], each counting `sample_weight` [N] times."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        rows = np.arange(X.shape[0]) if weights is None else np.flatnonzero(weights)
        classes, codes = np.unique(y, return_inverse=True)
        if len(np.unique(codes[rows])) < 2:
            raise ValueError(f"{type(self).__name__} needs rows of at least two classes, and there is one class")
        self.fit_rows(X, codes, rows, np.ones(X.shape[1]), len(classes), weights)
        self.classes_ = classes
        return self

    @abstractmethod
    def fit_rows(
        self,
        X: Any,
        y: np.ndarray,
        rows: np.ndarray,
        scale: np.ndarray,
        n_classes: int,
        weights: np.ndarray | None = None,
        n_jobs: int = 1,
    ) -> Self:
        """Fit some rows of a matrix, which is not copied.

        Args:
            X: CSR or float64 dense [N, K].
            y: int64 [N], class indices below n_classes.
            rows: int64, the rows; no other has any influence.
            scale: float64 [K], what columns are divided by; `coef_` is of the divided ones.
            n_classes: Each of them occurs in the rows.
            weights: float64 [N], how much each row counts; None for 1 everywhere.
            n_jobs: Threads; they change no bit.
        """

    def decision_function(self, X: Any) -> np.ndarray:
        """Float64 [n] for two classes, above 0 for the second; else [n, classes]."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        decision = np.asarray(X @ self.coef_.T) + self.intercept_
        return decision[:, 0] if decision.shape[1] == 1 else decision

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Float64 [n, classes]."""
        return log_proba(self.decision_function(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Float64 [n, classes]."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row."""
        decision = self.decision_function(X)
        return self.classes_[(decision > 0).astype(int) if decision.ndim == 1 else np.argmax(decision, axis=1)]


class L2LogisticRegression(_LogisticRegression):
    """Softmax regression with a squared penalty: scikit-learn's `LogisticRegression(C=C)`.

    Args:
        C: Inverse strength of the penalty.
        tol: The largest entry of the gradient of the mean loss at which it stops, at C = 1. Below, times sqrt(C),
            because small C leave small weights, which a fixed tolerance would drown; above, divided by C, because the
            penalty is all that bends the loss in its flattest directions.
        max_iter: At which it stops in any case.
    """

    def __init__(self, C: float = 1.0, tol: float = L2_TOLERANCE, max_iter: int = MAX_ITERATIONS) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter

    def fit_rows(
        self,
        X: Any,
        y: np.ndarray,
        rows: np.ndarray,
        scale: np.ndarray,
        n_classes: int,
        weights: np.ndarray | None = None,
        n_jobs: int = 1,
    ) -> Self:
        """Fit some rows of a matrix, which is not copied; see `_LogisticRegression.fit_rows`."""
        inside = np.zeros((X.shape[0], 1), dtype=bool)
        inside[rows] = True
        of_row = None if weights is None else weights[:, None]
        problem = Paths(X, y, n_classes, inside, scale[:, None], weights=of_row)
        found = logistic_fit(problem, self.C, self.tol * min(self.C**0.5, 1 / self.C), self.max_iter, n_jobs)
        self.classes_, self.n_features_in_ = np.arange(n_classes), X.shape[1]
        self.coef_, self.intercept_ = found.coef * scale, found.intercept
        self.n_iter_, self.converged_ = found.iterations, found.converged
        return self


class L1LogisticRegression(_LogisticRegression):
    """Logistic regressions with an absolute penalty, one class against the others where there are more than two.

    Two classes are the problem of scikit-learn's `LogisticRegression(C=C, l1_ratio=1)` with a free intercept.

    Args:
        C: Inverse strength of the penalty.
        tol: Largest violation of the optimality conditions at which it stops, in units of the penalty.
        max_iter: Newton steps at which it stops in any case.
    """

    def __init__(self, C: float = 1.0, tol: float = L1_TOLERANCE, max_iter: int = 200) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter

    def fit_rows(
        self,
        X: Any,
        y: np.ndarray,
        rows: np.ndarray,
        scale: np.ndarray,
        n_classes: int,
        weights: np.ndarray | None = None,
        n_jobs: int = 1,
    ) -> Self:
        """Fit some rows of a matrix, which is not copied; see `_LogisticRegression.fit_rows`.

        X may be `ByColumn` already, which fits had better share.
        """
        columns = X if isinstance(X, ByColumn) else by_column(X)
        accuracy = Accuracy(self.tol, 1e-3 * self.tol, 0.0, self.max_iter, sweeps=40)
        way = [C for C in L1_WAY if C < self.C]

        def fit(c: int) -> Any:
            warm = l1_path(columns, y == c, rows, scale, way, RANKING, weights=weights)[-1:]
            start = warm[0] if warm else None
            return l1_path(columns, y == c, rows, scale, [self.C], accuracy, start, weights)[0]

        fits = run_all([partial(fit, c) for c in ([1] if n_classes == 2 else range(n_classes))], n_jobs)
        self.classes_, self.n_features_in_ = np.arange(n_classes), len(scale)
        self.coef_ = np.stack([one.coef for one in fits]) * scale
        self.intercept_ = np.array([one.intercept for one in fits])
        self.n_iter_ = max(one.iterations for one in fits)
        self.converged_ = all(one.converged for one in fits)
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Float64 [n, classes]; of more than two, each class' own probability, made to sum to one."""
        decision = self.decision_function(X)
        return log_proba(decision) if decision.ndim == 1 else log_proba_ovr(decision)
