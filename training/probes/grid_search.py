"""Choosing a probe's hyper-parameter: macro F1 of every value on every inner fold, without doing any work twice.

The folds of all splits share one matrix, as it was read (float32, CSR). The L2 logistic regressions of all folds are
solved together (`training.solvers.l2_path`), L1 keeps to the columns that matter (`training.solvers.l1_path`), all k of
the k-sparse probe are problems on one small matrix, and one tree is grown and cut at each depth. Rows that a fold does
not fit have no weight in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from training.methods.features import SPARSE, Columns, Method, columns_of, preparation, scaler
from training.methods.transformers import class_gap, top_mask
from training.probes.estimators import MAX_ITERATIONS, fit_quietly, probe
from training.scores.metrics import macro_f1
from training.solvers.l1_path import RANKING, ByColumn, by_column, l1_path
from training.solvers.l2_path import logistic_paths
from training.solvers.objective import BLOCK, Paths

# The largest entry of the gradient at which the search's L2 fits stop. It only ranks, and its fits start from one
# another: on the store of `benchmarks.study` at most two labels in a thousand differed from those of the optimum.
PATH_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Folds:
    """Inner folds that share a matrix.

    `columns` is X by columns or None; `scale` and `shift` are [K, folds], infinite scale drops a column.
    """

    X: Any
    columns: ByColumn | None
    y: np.ndarray
    n_classes: int
    fit: Sequence[np.ndarray]
    validate: Sequence[np.ndarray]
    scale: np.ndarray
    shift: np.ndarray | None

    def scaled(self, p: int, rows: np.ndarray) -> Any:
        """Rows of fold p as its probe sees them."""
        from scipy.sparse import issparse

        kept = np.flatnonzero(np.isfinite(self.scale[:, p]))
        X = self.X[rows] if len(kept) == len(self.scale) else self.X[rows][:, kept]
        if not issparse(X):
            shift = 0.0 if self.shift is None else self.shift[kept, p]
            return (X - shift) / self.scale[kept, p]
        X.data = X.data.astype(np.float64) / self.scale[kept, p][X.indices]
        return X


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


def search_pieces(
    method: Method,
    X: Any,
    columns: ByColumn | None,
    y: np.ndarray,
    n_classes: int,
    folds: Sequence[tuple[int, int, tuple[np.ndarray, np.ndarray]]],
    grid: Sequence[float],
) -> list[Piece]:
    """The search of one method on some folds, in pieces.

    Args:
        method: The method.
        X: Its matrix, CSR or dense [N, K].
        columns: The same by columns, where the probe is logistic_l1 and X is sparse.
        y: int64 [N], the classes that training sees.
        n_classes: How many there are.
        folds: (split, inner fold, (rows fitted, rows scored)).
        grid: Values of the hyper-parameter.
    """
    score = partial(_scores, method, grid)
    linear = method.kind in (*SPARSE, "dense") and method.binarize != "learnt"
    if not linear:  # every fold has a matrix of its own
        return [Piece(partial(_alone, method, X, y, n_classes, fold, score), ((s, k),), False) for s, k, fold in folds]
    together = len(folds) if method.probe == "logistic_l2" else 1
    threaded = method.probe == "logistic_l2" and method.kind in SPARSE and X.nnz > 2 * BLOCK
    pieces = []
    for start in range(0, len(folds), together):
        mine = folds[start : start + together]
        run = partial(_shared, method, X, columns, y, n_classes, [fold for _, _, fold in mine], score)
        pieces.append(Piece(run, tuple((s, k) for s, k, _ in mine), threaded))
    return pieces


def column_max(X: Any, rows: np.ndarray) -> np.ndarray:
    """Largest value [K] of each column over some rows of a CSR matrix of values >= 0, without copying them.

    It is what MaxAbsScaler divides by: 1 where a column is zero.
    """
    from training.solvers.kernels import csr_parts, largest

    out = np.zeros(X.shape[1])
    largest(*csr_parts(X), rows, out)
    return np.where(out > 0, out, 1.0)


def run_all(tasks: Sequence[Callable[[], Any]], n_jobs: int) -> list[Any]:
    """Results in order; threads, for all that takes time lets go of the interpreter and the matrix is not copied."""
    if n_jobs == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(n_jobs) as pool:
        return list(pool.map(lambda task: task(), tasks))


def in_float64(X: Any) -> Any:
    """What scikit-learn is given: in float32 its solvers stop early."""
    return X if X.dtype == np.float64 else X.astype(np.float64)


def _shared(
    method: Method,
    X: Any,
    columns: ByColumn | None,
    y: np.ndarray,
    n_classes: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    score: Callable[[Folds, int], list[np.ndarray]],
    n_jobs: int,
) -> list[np.ndarray]:
    """Scores of folds that share the matrix: what is learnt is a number for each column."""
    fitted = [_fold_columns(method, X, y, fit) for fit, _ in folds]
    scale = np.full((X.shape[1], len(folds)), np.inf)
    for p, one in enumerate(fitted):
        scale[one.kept, p] = one.scale
    shift = None
    if fitted[0].shift is not None:
        shift = np.stack([np.asarray(one.shift) for one in fitted], axis=1)
    fit, validate = [fit for fit, _ in folds], [validate for _, validate in folds]
    return score(Folds(X, columns, y, n_classes, fit, validate, scale, shift), n_jobs)


def _alone(
    method: Method,
    X: Any,
    y: np.ndarray,
    n_classes: int,
    fold: tuple[np.ndarray, np.ndarray],
    score: Callable[[Folds, int], list[np.ndarray]],
    n_jobs: int,
) -> list[np.ndarray]:
    """Scores of a fold whose preparation changes more than the size of columns."""
    fit, validate = fold
    prepare = preparation(method).fit(in_float64(X[fit]), y[fit])
    rows = np.concatenate([fit, validate])
    here = prepare.transform(in_float64(X[rows]))
    first = np.arange(len(fit))
    ones = np.ones((here.shape[1], 1))
    columns = by_column(here) if method.probe == "logistic_l1" and hasattr(here, "tocsr") else None
    last = np.arange(len(fit), len(rows))
    return score(Folds(here, columns, y[rows], n_classes, [first], [last], ones, None), n_jobs)


def _fold_columns(method: Method, X: Any, y: np.ndarray, fit: np.ndarray) -> Columns:
    if method.kind in SPARSE and method.select is None and method.min_documents == 1:
        return Columns(np.arange(X.shape[1]), column_max(X, fit))
    if method.kind == "dense" and method.select is None:
        scale = scaler(method.kind).fit(X[fit])
        return Columns(np.arange(X.shape[1]), scale.scale_, scale.mean_)
    return columns_of(preparation(method).fit(in_float64(X[fit]), y[fit]), X.shape[1])


def _scores(method: Method, grid: Sequence[float], folds: Folds, n_jobs: int) -> list[np.ndarray]:
    """Macro F1 [len(grid)] on the validation rows of each fold."""
    if method.probe == "logistic_l2":
        predicted = _search_l2(folds, grid, n_jobs)
    else:
        search = {"logistic_l1": _search_l1, "k_sparse": _search_k, "tree": _search_tree}
        predicted = search.get(method.probe or "", partial(_search_plain, method.probe))(folds, grid)
    return [
        np.array([macro_f1(folds.y[validate], answer, folds.n_classes) for answer in predicted[p]])
        for p, validate in enumerate(folds.validate)
    ]


def _search_l2(folds: Folds, grid: Sequence[float], n_jobs: int) -> list[np.ndarray]:
    in_fit = np.zeros((len(folds.y), len(folds.fit)), dtype=bool)
    for p, fit in enumerate(folds.fit):
        in_fit[fit, p] = True
    paths = Paths(folds.X, folds.y, folds.n_classes, in_fit, folds.scale, folds.shift)
    tolerances = [path_tolerance(C) for C in grid]
    found = logistic_paths(paths, grid, tolerances, MAX_ITERATIONS, n_jobs)
    return [found[:, validate, p] for p, validate in enumerate(folds.validate)]


def path_tolerance(C: float) -> float:
    """Beyond C = 1 the penalty hardly bends the loss any more, and a fixed tolerance would stop ever further away."""
    return PATH_TOLERANCE * max(1.0, C) ** -0.25


def _search_l1(folds: Folds, grid: Sequence[float]) -> list[np.ndarray]:
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        columns, scale = folds.columns, folds.scale[:, p]
        if folds.shift is not None:
            columns = by_column((folds.X - folds.shift[:, p]) / scale)
            scale = np.ones(len(scale))
        classes = [1] if folds.n_classes == 2 else range(folds.n_classes)
        fits = [l1_path(columns, folds.y == c, fit, scale, grid, RANKING) for c in classes]
        decision = np.array([[one.decision[validate] for one in path] for path in fits])  # [classes, grid, rows]
        answers.append(np.argmax(decision, axis=0) if len(fits) > 1 else (decision[0] > 0).astype(np.int64))
    return answers


def _search_k(folds: Folds, grid: Sequence[float]) -> list[np.ndarray]:
    """All k of a fold are problems on one small matrix: the columns of the largest k."""
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        X, n_classes = folds.scaled(p, np.concatenate([fit, validate])), folds.n_classes
        y = np.concatenate([folds.y[fit], folds.y[validate]])
        member = np.zeros((n_classes, len(fit)))
        member[y[: len(fit)], np.arange(len(fit))] = 1.0
        gap = class_gap(np.asarray(member @ X[: len(fit)]), member.sum(axis=1))
        widest = np.flatnonzero(top_mask(gap, int(max(grid))))
        scale = np.stack([np.where(top_mask(gap, int(k))[widest], 1.0, np.inf) for k in grid], axis=1)
        in_fit = np.tile((np.arange(len(y)) < len(fit))[:, None], (1, len(grid)))
        paths = Paths(X[:, widest], y, n_classes, in_fit, scale)
        found = logistic_paths(paths, [1.0], [PATH_TOLERANCE], MAX_ITERATIONS)[0]  # [rows, k]
        answers.append(found[len(fit) :].T)
    return answers


def _search_tree(folds: Folds, grid: Sequence[float]) -> list[np.ndarray]:
    """The deepest tree is fitted and cut at each depth: trees of less depth begin with the same splits.

    Except for the choice among splits that are equally good, which scikit-learn draws in the order of its nodes.
    """
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        X, held_out = folds.scaled(p, fit), folds.scaled(p, validate)
        model = probe(max(grid), "tree", folds.n_classes)
        fit_quietly(model, X, folds.y[fit])
        tree = model.tree_
        majority = model.classes_[np.argmax(tree.value[:, 0, :], axis=1)]
        used, place = np.unique(np.maximum(tree.feature, 0), return_inverse=True)
        values = held_out[:, used]
        values = (values.toarray() if hasattr(values, "toarray") else values).astype(np.float32)
        node, rows, at_depth = np.zeros(len(validate), dtype=np.int64), np.arange(len(validate)), []
        for _ in range(int(max(grid)) + 1):
            at_depth.append(majority[node])
            left = values[rows, place[node]] <= tree.threshold[node]
            child = np.where(left, tree.children_left[node], tree.children_right[node])
            node = np.where(child >= 0, child, node)
        answers.append(np.stack([at_depth[int(depth)] for depth in grid]))
    return answers


def _search_plain(name: str | None, folds: Folds, grid: Sequence[float]) -> list[np.ndarray]:
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        X, held_out = folds.scaled(p, fit), folds.scaled(p, validate)
        models = [probe(value, name or "", folds.n_classes) for value in grid]
        for model in models:
            fit_quietly(model, X, folds.y[fit])
        answers.append(np.stack([model.predict(held_out) for model in models]))
    return answers
