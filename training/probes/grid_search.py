"""Score every value of a probe's grid on every inner fold; which one is taken is decided in `fit`.

The folds of all splits share one matrix, as it was read (float32, CSR); where what is learnt before the probe does more
than scale columns, a fold has a matrix of its own. How the values of one probe are tried is the probe's own business
(`Probe.search`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from training.methods.method import DENSE, SPARSE, Method
from training.methods.preparation import Columns, columns_of, preparation, scaler
from training.methods.transformers import column_max
from training.probes.catalogue import PROBES
from training.probes.folds import Folds, Labelled, balanced
from training.scores.metrics import macro_f1
from training.solvers.objective import BLOCK


class Fold(NamedTuple):
    """One inner fold of one split: the split's number, its own, the rows fitted and those scored (int64)."""

    split: int
    number: int
    fit: np.ndarray
    validate: np.ndarray


@dataclass(frozen=True)
class Piece:
    """Folds whose scores come out together; which those are depends on the data alone.

    Attributes:
        run: (threads) -> macro F1 [len(grid)] of each fold; threads change no bit.
        folds: (split, inner fold) of each.
        threaded: Whether it makes use of threads itself, so that pieces had better run one after the other.
    """

    run: Callable[[int], list[np.ndarray]]
    folds: tuple[tuple[int, int], ...]
    threaded: bool


def search_pieces(method: Method, of: Labelled, folds: Sequence[Fold], grid: Sequence[float]) -> list[Piece]:
    """The search of one method on some folds, in pieces.

    Args:
        method: The method, which has a probe.
        of: Its matrix, with the classes that training sees.
        folds: The folds.
        grid: Values of the hyper-parameter.
    """
    probe = PROBES[str(method.probe)]
    linear = method.kind in (*SPARSE, *DENSE) and method.binarize != "learnt"
    if not linear:  # every fold has a matrix of its own
        return [Piece(partial(_alone, method, of, fold, grid), (fold[:2],), False) for fold in folds]
    together = len(folds) if probe.together else 1
    threaded = probe.together and method.kind in SPARSE and of.X.nnz > 2 * BLOCK
    pieces = []
    for start in range(0, len(folds), together):
        mine = folds[start : start + together]
        pieces.append(Piece(partial(_shared, method, of, mine, grid), tuple(fold[:2] for fold in mine), threaded))
    return pieces


def in_float64(X: Any) -> Any:
    """What scikit-learn is given: in float32 its solvers stop early."""
    return X if X.dtype == np.float64 else X.astype(np.float64)


def _shared(
    method: Method, of: Labelled, folds: Sequence[Fold], grid: Sequence[float], n_jobs: int
) -> list[np.ndarray]:
    """Scores of folds that share the matrix: what is learnt before the probe is a number for each column."""
    fitted = [_fold_columns(method, of, fold.fit) for fold in folds]
    scale = np.full((of.X.shape[1], len(folds)), np.inf)
    for p, one in enumerate(fitted):
        scale[one.kept, p] = one.scale
    shift = None
    if fitted[0].shift is not None:
        shift = np.stack([np.asarray(one.shift) for one in fitted], axis=1)
    fit, validate = [fold.fit for fold in folds], [fold.validate for fold in folds]
    weights = None if method.class_weight is None else balanced(of.y, fit, of.n_classes)
    return _scores(method, Folds(of, fit, validate, scale, shift, weights), grid, n_jobs)


def _alone(method: Method, of: Labelled, fold: Fold, grid: Sequence[float], n_jobs: int) -> list[np.ndarray]:
    """Scores of a fold whose preparation changes more than the size of columns."""
    _, _, fit, validate = fold
    prepare = preparation(method).fit(in_float64(of.X[fit]), of.y[fit])
    rows = np.concatenate([fit, validate])
    here = Labelled(prepare.transform(in_float64(of.X[rows])), of.y[rows], of.n_classes)
    if PROBES[str(method.probe)].reads_columns:
        here = replace(here, columns=here.by_column())
    place, ones = np.arange(len(rows)), np.ones((here.X.shape[1], 1))
    inside = [place[: len(fit)]]
    weights = None if method.class_weight is None else balanced(here.y, inside, of.n_classes)
    return _scores(method, Folds(here, inside, [place[len(fit) :]], ones, weights=weights), grid, n_jobs)


def _fold_columns(method: Method, of: Labelled, fit: np.ndarray) -> Columns:
    if method.kind in SPARSE and method.scales_only:
        return Columns(np.arange(of.X.shape[1]), column_max(of.X, fit))
    if method.kind in DENSE and method.select is None:
        scale = scaler(method.kind).fit(of.X[fit])
        return Columns(np.arange(of.X.shape[1]), scale.scale_, scale.mean_)
    return columns_of(preparation(method).fit(in_float64(of.X[fit]), of.y[fit]), of.X.shape[1])


def _scores(method: Method, folds: Folds, grid: Sequence[float], n_jobs: int) -> list[np.ndarray]:
    """Macro F1 [len(grid)] on the validation rows of each fold."""
    predicted = PROBES[str(method.probe)].search(folds, grid, n_jobs)
    return [
        np.array([macro_f1(folds.of.y[validate], answer, folds.n_classes) for answer in answers])
        for validate, answers in zip(folds.validate, predicted, strict=True)
    ]
