"""The probes: hyper-parameter chosen on inner folds of the training rows, one fit, one look at the test rows.

Each probe is a plain scikit-learn estimator (`training.probes.estimators`); the search on the inner folds is ours
(`training.probes.grid_search`). So are the solvers of final logistic regressions on matrices that scikit-learn would
copy several times over (`training.probes.large_logistic`). Test rows have no weight in any fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from training.documents.split import Split
from training.methods.features import SPARSE, Columns, Method, MethodMatrix, columns_of, preparation
from training.probes import large_logistic as large
from training.probes.estimators import (
    GRIDS,
    PARAMETER,
    as_pipeline,
    fit_quietly,
    importance,
    probe,
    scores_of,
)
from training.probes.grid_search import Piece, in_float64, run_all, search_pieces
from training.scores.metrics import macro_f1
from training.solvers.l1_path import ByColumn, by_column

FEW = 0.6  # share of the documents below which a split's training rows get a matrix of their own
TOP = 20  # features remembered of a final model, for comparing models


@dataclass(frozen=True)
class Fitted:
    """What one method makes of one split.

    Attributes:
        value: Chosen hyper-parameter, None where the probe has none.
        validation: float64 [len(grid), folds], macro F1 of each value on each inner fold.
        y_pred: int64 [n_test], predicted classes of the test rows, in the order of `Split.test`.
        log_proba: float64 [n_test, classes], log-probabilities of the same rows (linear_svm: log-softmax of margins).
        iterations: Solver iterations of the final fit (tree: its depth).
        converged: Whether the final fit met its tolerance.
        top: int64 [<= TOP], columns of the matrix that weigh most, heaviest first; empty for kinds without features.
    """

    value: float | None
    validation: np.ndarray
    y_pred: np.ndarray
    log_proba: np.ndarray
    iterations: int
    converged: bool
    top: np.ndarray

    @property
    def C(self) -> float | None:  # noqa: N802  (the field's name for it)
        """The chosen value, of probes whose parameter is C."""
        return self.value

    @property
    def validation_macro_f1(self) -> float:
        """Mean macro F1 of the chosen value over the inner folds."""
        return float(self.validation.mean(axis=1).max())


@dataclass(frozen=True)
class Final:
    """A fitted method: what it does to the columns of its matrix, then the estimator.

    Attributes:
        prepare: The fitted transformer of rows.
        columns: The same as plain arrays; None for TF-IDF.
        model: The fitted scikit-learn classifier.
        converged: Whether its solver met its tolerance.
    """

    prepare: Any
    columns: Columns | None
    model: Any
    converged: bool


def evaluate(
    kind: str | Method,
    matrix: MethodMatrix,
    y: np.ndarray,
    n_classes: int,
    splits: Sequence[Split],
    grid: Sequence[float] | None = None,
    n_jobs: int = 1,
) -> tuple[Fitted, ...]:
    """For each split, choose on the inner folds, fit on all training rows, predict the test rows.

    Args:
        kind: The method; a kind alone stands for logistic_l2 on it.
        matrix: X [N, K].
        y: int64 [N], class indices; the test entries of a split have no influence on what it chooses.
        n_classes: Every class index below it occurs in every training part.
        splits: Which rows are which.
        grid: Values of the hyper-parameter, by default those of GRIDS.
        n_jobs: Threads; it changes no bit.
    """
    method = kind if isinstance(kind, Method) else Method(kind, kind)
    values = tuple(GRIDS[method.probe]) if grid is None else tuple(grid)
    if method.kind == "majority":
        return tuple(_majority(y, n_classes, split) for split in splits)
    X = matrix.X
    columns = by_column(X) if method.probe == "logistic_l1" and method.kind in SPARSE else None
    # Splits whose training sees other labels cannot share a pass, and those that train on few rows should not.
    labels: dict[tuple[int, int], list[int]] = {}
    for s, split in enumerate(splits):
        own = s if len(split.train) < FEW * len(y) else -1
        labels.setdefault((id(split.y_train), own), []).append(s)
    pieces: list[Piece] = []
    for (_, own), members in labels.items():
        y_seen = y if splits[members[0]].y_train is None else splits[members[0]].y_train
        assert y_seen is not None
        folds = [(s, k, fold) for s in members for k, fold in enumerate(splits[s].inner())]
        X_seen, columns_seen = X, columns
        if own >= 0:
            rows = splits[own].train
            X_seen, y_seen = X[rows], y_seen[rows]
            columns_seen = None if columns is None else by_column(X_seen)
            folds = [(s, k, (np.searchsorted(rows, f), np.searchsorted(rows, v))) for s, k, (f, v) in folds]
        pieces += search_pieces(method, X_seen, columns_seen, y_seen, n_classes, folds, values)
    scores: dict[tuple[int, int], np.ndarray] = {}
    alone, shared = ([piece for piece in pieces if piece.threaded is threaded] for threaded in (False, True))
    for piece, found in zip(alone, run_all([partial(piece.run, 1) for piece in alone], n_jobs), strict=True):
        scores |= zip(piece.folds, found, strict=True)
    for piece in shared:
        scores |= zip(piece.folds, piece.run(n_jobs), strict=True)
    validation = [np.stack([scores[s, k] for k in range(len(split.inner()))], axis=1) for s, split in enumerate(splits)]
    inside = max(1, n_jobs // len(splits))
    final = [
        partial(_finish, method, X, columns, y, n_classes, split, validation[s], values, inside)
        for s, split in enumerate(splits)
    ]
    return tuple(run_all(final, n_jobs))


def fit_final(
    kind: str | Method,
    X: Any,
    y: np.ndarray,
    train: np.ndarray,
    value: float | None,
    n_classes: int = 2,
    columns: ByColumn | None = None,
    n_jobs: int = 1,
) -> tuple[Any, Any, bool]:
    """Fit the preparation and the probe of a method on the training rows, from a cold start.

    Args:
        kind: The method; a kind alone stands for logistic_l2 on it.
        X: CSR or dense [N, K].
        y: int64 [N], class indices.
        train: int64, the rows.
        value: The hyper-parameter.
        n_classes: Of y.
        columns: X by columns, if there is that already.
        n_jobs: Threads; they change no bit.

    Returns:
        (fitted preparation, fitted probe, whether the solver converged).
    """
    method = kind if isinstance(kind, Method) else Method(kind, kind)
    plain = method.binarize != "learnt" and method.select is None and method.min_documents == 1
    if method.kind in SPARSE and plain and method.probe in large.PROBES:
        size = X.nnz if len(train) == X.shape[0] else int(np.diff(X.indptr)[train].sum())
        if size > large.LARGE:
            assert value is not None
            return large.fit_large(method.probe, X, y, train, value, n_classes, columns, n_jobs)
    prepare = preparation(method)
    if len(prepare.steps) == 1:
        prepare = prepare.steps[0][1]
    model = probe(value, method.probe or "logistic_l2", n_classes)
    return prepare, model, fit_quietly(model, prepare.fit_transform(in_float64(X[train]), y[train]), y[train])


def choose(validation: np.ndarray, grid: Sequence[float]) -> float:
    """The value with the best mean over folds; among equals the smallest, which is the simplest model.

    Args:
        validation: float64 [len(grid), folds].
        grid: The values, rising.
    """
    return grid[int(np.argmax(validation.mean(axis=1)))]


def _finish(
    method: Method,
    X: Any,
    columns: ByColumn | None,
    y: np.ndarray,
    n_classes: int,
    split: Split,
    validation: np.ndarray,
    grid: Sequence[float],
    n_jobs: int,
) -> Fitted:
    value = choose(validation, grid) if method.probe in PARAMETER else None
    y_seen = y if split.y_train is None else split.y_train
    prepare, model, converged = fit_final(method, X, y_seen, split.train, value, n_classes, columns, n_jobs)
    X_test = prepare.transform(in_float64(X[split.test]))
    top = np.empty(0, dtype=np.int64)
    if method.kind in SPARSE:
        kept = columns_of(as_pipeline(prepare), X.shape[1]).kept
        weight = importance(model, len(kept))
        order = np.lexsort((kept, -weight))[:TOP]
        top = kept[order[weight[order] > 0]]
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    iterations = last.get_depth() if hasattr(last, "get_depth") else int(np.max(getattr(last, "n_iter_", 0)))
    return Fitted(value, validation, model.predict(X_test), scores_of(model, X_test), iterations, converged, top)


def _majority(y: np.ndarray, n_classes: int, split: Split) -> Fitted:
    """Predict the commonest class of the training rows, with the classes' shares as probabilities."""
    y_seen = y if split.y_train is None else split.y_train
    validation = np.empty((1, len(split.inner())))
    for k, (fit, validate) in enumerate(split.inner()):
        common = np.full(len(validate), np.argmax(np.bincount(y_seen[fit], minlength=n_classes)))
        validation[0, k] = macro_f1(y_seen[validate], common, n_classes)
    share = np.bincount(y_seen[split.train], minlength=n_classes) / len(split.train)
    y_pred = np.full(len(split.test), np.argmax(share), dtype=np.int64)
    log_share = np.tile(np.log(share), (len(split.test), 1))
    return Fitted(None, validation, y_pred, log_share, 0, True, np.empty(0, dtype=np.int64))
