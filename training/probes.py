"""L2 logistic regression: C chosen on inner folds of the training rows, then one fit, then one look at the test rows.

The folds of all seeds are solved together by `training.path`. The final model is a plain cold scikit-learn fit, so
anyone can repeat it in one line. Test rows have no weight in any fit; they are looked at once, by the chosen model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.features import MethodMatrix, scaler
from training.metrics import macro_f1
from training.path import Paths, logistic_paths
from training.split import Split

# From "the classes' shares and little else" to "as good as unregularised" for features scaled to about [0, 1]; a
# factor of ten a step is finer than what validation on a few hundred documents can tell apart.
C_GRID = tuple(float(c) for c in 10.0 ** np.linspace(-4, 3, 8))
# scikit-learn's default of 1e-4 leaves C >= 10 far from the optimum (one label in ten differs); at these values one in
# a hundred does. Small C leave small weights, which a fixed tolerance would drown. Selection only ranks.
FINAL_TOLERANCE = 1e-6
PATH_TOLERANCE = 1e-5
MAX_ITERATIONS = 2000  # the hardest fits measured take about 100
PATH_TOLERANCES = tuple(PATH_TOLERANCE * min(1.0, C**0.5) for C in C_GRID)


@dataclass(frozen=True)
class Fitted:
    """What one method makes of one seed's split.

    Attributes:
        C: Chosen inverse regularisation, None for the majority class.
        validation: float64 [len(C_GRID), folds], macro F1 of each C on each inner fold ([1, folds] for majority).
        y_pred: int64 [n_test], predicted classes of the test rows, in the order of `Split.test`.
        log_proba: float64 [n_test, classes], log-probabilities of the same rows.
        iterations: Solver iterations of the final fit.
        converged: Whether the final fit met its tolerance.
    """

    C: float | None
    validation: np.ndarray
    y_pred: np.ndarray
    log_proba: np.ndarray
    iterations: int
    converged: bool

    @property
    def validation_macro_f1(self) -> float:
        """Mean macro F1 of the chosen C over the inner folds."""
        return float(self.validation.mean(axis=1).max())


def evaluate(
    kind: str, matrix: MethodMatrix, y: np.ndarray, n_classes: int, splits: Sequence[Split]
) -> tuple[Fitted, ...]:
    """For each split, choose C on the inner folds, fit on all training rows, predict the test rows.

    Args:
        kind: Kind of method, which decides the scaling.
        matrix: X [N, K].
        y: int64 [N], class indices; the test entries of a split have no influence on what it chooses.
        n_classes: Every class index below it occurs in every training part.
        splits: Which rows are which, once for each seed.
    """
    if kind == "majority":
        return tuple(_majority(y, n_classes, split) for split in splits)
    X = matrix.X.astype(np.float64)  # float32 stops the solver early
    folds = [fold for split in splits for fold in split.inner()]
    predicted = _fold_predictions(kind, X, y, n_classes, folds)
    fitted, first = [], 0
    for split in splits:
        inner = split.inner()
        validation = np.empty((len(C_GRID), len(inner)))
        for k, (_, validate) in enumerate(inner):
            for i in range(len(C_GRID)):
                validation[i, k] = macro_f1(y[validate], predicted[first + k][i], n_classes)
        first += len(inner)
        C = choose_c(validation)
        scale, model, converged = fit_final(kind, X, y, split.train, C)
        X_test = scale.transform(X[split.test])
        y_pred, scores = model.predict(X_test), log_proba(model.decision_function(X_test))
        fitted.append(Fitted(C, validation, y_pred, scores, int(model.n_iter_[0]), converged))
    return tuple(fitted)


def _fold_predictions(
    kind: str, X: Any, y: np.ndarray, n_classes: int, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """For each (fit, validate) fold the predicted classes of its validation rows, int64 [len(C_GRID), rows].

    Scaling is linear in the columns, so folds that differ in it can share the matrix; TF-IDF is not, so there each
    fold has a matrix of its own.
    """
    if kind == "tfidf":
        alone = []
        for fit, validate in folds:
            scale = scaler(kind).fit(X[fit])
            rows = np.arange(len(fit) + len(validate)) < len(fit)
            here = scale.transform(X[np.concatenate([fit, validate])])
            unit = np.ones((here.shape[1], 1))
            paths = Paths(here, y[np.concatenate([fit, validate])], n_classes, rows[:, None], unit)
            alone.append(logistic_paths(paths, C_GRID, PATH_TOLERANCES, MAX_ITERATIONS)[:, len(fit) :, 0])
        return alone
    scalers = [scaler(kind).fit(X[fit]) for fit, _ in folds]
    in_fit = np.zeros((len(y), len(folds)), dtype=bool)
    for p, (fit, _) in enumerate(folds):
        in_fit[fit, p] = True
    shift = np.stack([scale.mean_ for scale in scalers], axis=1) if kind == "dense" else None
    paths = Paths(X, y, n_classes, in_fit, np.stack([scale.scale_ for scale in scalers], axis=1), shift)
    found = logistic_paths(paths, C_GRID, PATH_TOLERANCES, MAX_ITERATIONS)
    return [found[:, validate, p] for p, (_, validate) in enumerate(folds)]


def fit_final(kind: str, X: Any, y: np.ndarray, train: np.ndarray, C: float) -> tuple[Any, Any, bool]:
    """Fit the scaler and the probe of a cell on the training rows, from a cold start.

    Returns:
        (fitted scaler, fitted `probe(C)`, whether the solver converged).
    """
    scale, model = scaler(kind), probe(C)
    converged = _fit(model, scale.fit_transform(X[train]), y[train])
    return scale, model, converged


def probe(C: float) -> Any:
    """The unfitted scikit-learn classifier; `probe(C).fit(X_scaled, y)` is the final model of a cell."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, solver="lbfgs", tol=FINAL_TOLERANCE * min(1.0, C**0.5), max_iter=MAX_ITERATIONS)


def choose_c(validation: np.ndarray) -> float:
    """The C with the best mean over folds; among equals the smallest, which regularises most.

    Args:
        validation: float64 [len(C_GRID), folds].
    """
    return C_GRID[int(np.argmax(validation.mean(axis=1)))]


def log_proba(decision: np.ndarray) -> np.ndarray:
    """Log-probabilities [n, classes] from a decision function [n] (two classes) or [n, classes]."""
    from scipy.special import log_softmax

    if decision.ndim == 1:
        return np.column_stack([-np.logaddexp(0.0, decision), -np.logaddexp(0.0, -decision)])
    return np.asarray(log_softmax(decision, axis=1))


def _fit(model: Any, X: Any, y: np.ndarray) -> bool:
    """Fit and say whether the solver converged; the caller reports it, so its warning is not printed."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(X, y)
    return not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _majority(y: np.ndarray, n_classes: int, split: Split) -> Fitted:
    """Predict the commonest class of the training rows, with the classes' shares as probabilities."""
    validation = np.empty((1, len(split.inner())))
    for k, (fit, validate) in enumerate(split.inner()):
        common = np.full(len(validate), np.argmax(np.bincount(y[fit], minlength=n_classes)))
        validation[0, k] = macro_f1(y[validate], common, n_classes)
    share = np.bincount(y[split.train], minlength=n_classes) / len(split.train)
    y_pred = np.full(len(split.test), np.argmax(share), dtype=np.int64)
    return Fitted(None, validation, y_pred, np.tile(np.log(share), (len(split.test), 1)), 0, True)
