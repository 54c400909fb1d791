"""Evaluate a method on a split: hyper-parameter chosen on inner folds, one fit, one look at the test rows.

The search on the inner folds is `training.probes.grid_search`; the classifiers are `training.probes.catalogue`. Test
rows have no weight in any fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from featurestore.errors import StudyError
from training.documents.split import Split
from training.methods.matrices import MethodMatrix
from training.methods.method import DENSE, SPARSE, Method
from training.methods.preparation import Columns, columns_of, preparation
from training.methods.transformers import MaxScaler
from training.probes.catalogue import PROBES, grid_of
from training.probes.folds import Folds, Labelled, balanced, one_fold
from training.probes.grid_search import Fold, Piece, in_float64, search_pieces
from training.probes.majority import majority
from training.probes.outcome import SplitOutcome
from training.probes.probe import NO_CHOICE, FittedProbe
from training.probes.threads import run_all
from training.solvers.l1_path import by_column

FEW = 0.6  # share of the documents below which a split's training rows get a matrix of their own
TOP = 20  # features remembered of a final model, for comparing models


@dataclass(frozen=True)
class Final:
    """A fitted method: what it does to the columns of its matrix, then the probe.

    Attributes:
        prepare: The fitted scikit-learn transformer of rows.
        columns: The same as plain arrays; None for TF-IDF.
        probe: The fitted probe, of the columns that `prepare` hands on.
    """

    prepare: Any
    columns: Columns | None
    probe: FittedProbe


def evaluate(
    kind: str | Method,
    matrix: MethodMatrix,
    y: np.ndarray,
    n_classes: int,
    splits: Sequence[Split],
    grid: Sequence[float] | None = None,
    n_jobs: int = 1,
) -> tuple[SplitOutcome, ...]:
    """For each split, choose on the inner folds, fit on all training rows, predict the test rows.

    Args:
        kind: The method; a kind alone stands for logistic_l2 on it.
        matrix: X [N, K].
        y: int64 [N], class indices; the test entries of a split have no influence on what it chooses.
        n_classes: Every class index below it occurs in every training part.
        splits: Which rows are which.
        grid: Values of the hyper-parameter, by default those of the probe.
        n_jobs: Threads; it changes no bit.

    Raises:
        StudyError: A value of the matrix is not finite, or a fit is not.
    """
    method = kind if isinstance(kind, Method) else Method(kind, kind)
    if method.kind == "majority":
        return tuple(majority(y, n_classes, split) for split in splits)
    _check_matrix(method, matrix.X)
    values = grid_of(method.probe) if grid is None else tuple(grid)
    by_columns = method.kind in SPARSE and PROBES[str(method.probe)].reads_columns
    whole = Labelled(matrix.X, y, n_classes, by_column(matrix.X) if by_columns else None)
    pieces = _pieces(method, whole, splits, values)
    scores: dict[tuple[int, int], np.ndarray] = {}
    alone, shared = ([piece for piece in pieces if piece.threaded is threaded] for threaded in (False, True))
    for piece, found in zip(alone, run_all([partial(piece.run, 1) for piece in alone], n_jobs), strict=True):
        scores |= zip(piece.folds, found, strict=True)
    for piece in shared:
        scores |= zip(piece.folds, piece.run(n_jobs), strict=True)
    validation = [np.stack([scores[s, k] for k in range(len(split.inner()))], axis=1) for s, split in enumerate(splits)]
    inside = max(1, n_jobs // len(splits))
    final = [partial(_finish, method, whole, split, validation[s], values, inside) for s, split in enumerate(splits)]
    return tuple(run_all(final, n_jobs))


def fit_final(method: Method, of: Labelled, rows: np.ndarray, value: float | None, n_jobs: int = 1) -> Final:
    """Fit the preparation and the probe of a method on some rows, from a cold start.

    Args:
        method: The method, which has a probe.
        of: Its matrix, with the classes that training sees.
        rows: int64, the rows.
        value: The hyper-parameter; None for a probe without one.
        n_jobs: Threads; they change no bit.

    Raises:
        StudyError: A value of the matrix is not finite, or the fit is not.
    """
    _check_matrix(method, of.X)
    probe, value = PROBES[str(method.probe)], NO_CHOICE[0] if value is None else value
    weights = None if method.class_weight is None else balanced(of.y, [rows], of.n_classes)
    prepare: Any
    if method.kind in SPARSE and method.scales_only and probe.in_place:  # a large matrix is copied nowhere
        prepare = MaxScaler().fit_rows(of.X, rows)
        columns = Columns(np.arange(of.X.shape[1]), prepare.scale_)
        fold = Folds(of, [rows], [rows[:0]], prepare.scale_[:, None], weights=weights)
        return _checked(method, Final(prepare, columns, probe.fit(fold, value, n_jobs)))
    prepare = preparation(method)
    X = prepare.fit_transform(in_float64(of.X[rows]), of.y[rows])
    plain = columns_of(prepare, of.X.shape[1]) if method.kind in (*SPARSE, *DENSE) else None
    fold = one_fold(X, of.y[rows], of.n_classes, None if weights is None else weights[rows, 0])
    return _checked(method, Final(prepare, plain, probe.fit(fold, value, n_jobs)))


def _check_matrix(method: Method, X: Any) -> None:
    """Refuse a matrix that holds an infinite value or NaN: a solver takes the NaN that comes of it for a solution."""
    values = X.data if hasattr(X, "indptr") else np.asarray(X)
    if not np.isfinite([values.min(initial=0.0), values.max(initial=0.0)]).all():  # NaN is the least and the largest
        raise StudyError(f"{method.name}: a value that it is made of is not finite; run verify on its store")


def _checked(method: Method, final: Final) -> Final:
    """A fit, unless what it has learnt is not finite.

    Raises:
        StudyError: It is not.
    """
    scale = () if final.columns is None else (final.columns.scale,)
    if not all(np.isfinite(value).all() for value in (*final.probe.tensors.values(), *scale)):
        raise StudyError(
            f"{method.name}: the fit of {method.probe} came to weights that are not finite; leave the method or the "
            "probe out, or scale what it is made of"
        )
    return final


def choose(validation: np.ndarray, grid: Sequence[float]) -> float:
    """The value with the best mean over folds; among equals the smallest, which is the simplest model.

    Args:
        validation: float64 [len(grid), folds].
        grid: The values, rising.
    """
    return grid[int(np.argmax(validation.mean(axis=1)))]


def _pieces(method: Method, whole: Labelled, splits: Sequence[Split], grid: Sequence[float]) -> list[Piece]:
    """The search on the inner folds of all splits.

    Splits whose training sees other labels cannot share a pass, and those that train on few rows should not.
    """
    together: dict[tuple[int, int], list[int]] = {}
    for s, split in enumerate(splits):
        own = s if len(split.train) < FEW * len(whole.y) else -1
        together.setdefault((id(split.y_train), own), []).append(s)
    pieces: list[Piece] = []
    for (_, own), members in together.items():
        of = replace(whole, y=splits[members[0]].labels(whole.y))
        folds = [Fold(s, k, *fold) for s in members for k, fold in enumerate(splits[s].inner())]
        if own >= 0:
            rows = splits[own].train
            X = whole.X[rows]
            of = Labelled(X, of.y[rows], whole.n_classes, None if whole.columns is None else by_column(X))
            folds = [Fold(s, k, np.searchsorted(rows, f), np.searchsorted(rows, v)) for s, k, f, v in folds]
        pieces += search_pieces(method, of, folds, grid)
    return pieces


def _finish(
    method: Method, whole: Labelled, split: Split, validation: np.ndarray, grid: Sequence[float], n_jobs: int
) -> SplitOutcome:
    value = choose(validation, grid) if PROBES[str(method.probe)].parameter is not None else None
    final = fit_final(method, replace(whole, y=split.labels(whole.y)), split.train, value, n_jobs)
    log_proba = final.probe.log_proba(final.prepare.transform(in_float64(whole.X[split.test])))
    top = np.empty(0, dtype=np.int64)
    if method.kind in SPARSE and final.columns is not None:
        kept, weight = final.columns.kept, final.probe.importance
        order = np.lexsort((kept, -weight))[:TOP]
        top = kept[order[weight[order] > 0]]
    if np.isnan(log_proba).any():
        raise StudyError(
            f"{method.name}: scores of {method.probe} on test documents are no numbers; leave the method or the probe "
            "out"
        )
    y_pred, iterations = np.argmax(log_proba, axis=1), final.probe.iterations
    return SplitOutcome(value, validation, y_pred, log_proba, iterations, final.probe.converged, top)
