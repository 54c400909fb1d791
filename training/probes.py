"""The probes: hyper-parameter chosen on inner folds of the training rows, one fit, one look at the test rows.

Each probe is a plain scikit-learn estimator (`probe`), so anyone can repeat a final model in one line. Only the search
on the inner folds is ours: it shares the matrix among folds, solves the logistic regressions of all folds together
(`training.path`) and keeps L1 to the columns that matter (`training.l1_path`). Test rows have no weight in any fit.

    logistic_l2   C           softmax over classes
    logistic_l1   C           one class against the others
    tree          max_depth   3 to 9, as in the paper; on inner folds one tree is grown and cut at each depth
    k_sparse      k           the k largest class-mean differences, then logistic L2 at C = 1 (after sae-probes)
    linear_svm    C           one class against the others; its scores rank and are no probabilities
    softmax       -           the reference code's linear probe: class-weighted cross-entropy without penalty, stopped
                              after 100 steps (of L-BFGS here, of gradient descent there)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from training.features import SPARSE, Columns, Method, MethodMatrix, columns_of, preparation, scaler
from training.l1_path import l1_path, l1_probe
from training.metrics import macro_f1
from training.path import Paths, logistic_paths
from training.split import Split
from training.transformers import SelectTop, class_gap, top_mask

# From "the classes' shares and little else" to "as good as unregularised" for features scaled to about [0, 1]; a
# factor of ten a step is finer than what validation on a few hundred documents can tell apart.
C_GRID = tuple(float(c) for c in 10.0 ** np.linspace(-4, 3, 8))
GRIDS: dict[str | None, tuple[float, ...]] = {
    "logistic_l2": C_GRID,
    "logistic_l1": C_GRID[2:7],  # below 0.01 no feature is left, above 100 L1 does nothing that costs little
    "tree": tuple(float(depth) for depth in range(3, 10)),
    "k_sparse": (1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0),
    "linear_svm": C_GRID[
        1:6
    ],  # its loss counts only rows near the boundary: fits at C >= 10 take minutes and gain none
    "softmax": (0.0,),
    None: (0.0,),
}
PARAMETER = {
    "logistic_l2": "C",
    "logistic_l1": "C",
    "tree": "max_depth",
    "k_sparse": "k",
    "linear_svm": "C",
}
# scikit-learn's default of 1e-4 leaves C >= 10 far from the optimum (one label in ten differs); at these values one in
# a hundred does. Small C leave small weights, which a fixed tolerance would drown. Selection only ranks.
FINAL_TOLERANCE = 1e-6
PATH_TOLERANCE = 1e-5
MAX_ITERATIONS = 2000  # the hardest fits measured take about 100
SVM_ITERATIONS = 5000  # of liblinear; scikit-learn's 1000 stop some fits at C = 10
SOFTMAX_STEPS = 100
FOLDS_AT_ONCE = 3  # solved in one pass over the matrix where threads share the work; a fixed number, see `_tasks`
LARGE = 20_000_000  # non-zeros x folds above which a method's folds are shared out to threads
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


@dataclass(frozen=True)
class _Folds:
    """Inner folds that share a matrix; `scale` and `shift` are [K, folds], infinite scale drops a column."""

    X: Any
    y: np.ndarray
    n_classes: int
    fit: Sequence[np.ndarray]
    validate: Sequence[np.ndarray]
    scale: np.ndarray
    shift: np.ndarray | None

    def part(self, which: slice) -> _Folds:
        shift = None if self.shift is None else self.shift[:, which]
        return _Folds(
            self.X, self.y, self.n_classes, self.fit[which], self.validate[which], self.scale[:, which], shift
        )

    def scaled(self, p: int, rows: np.ndarray) -> Any:
        """Rows of fold p as its probe sees them."""
        from scipy.sparse import issparse

        kept = np.flatnonzero(np.isfinite(self.scale[:, p]))
        X = self.X[rows] if len(kept) == len(self.scale) else self.X[rows][:, kept]
        if not issparse(X):
            shift = 0.0 if self.shift is None else self.shift[kept, p]
            return (X - shift) / self.scale[kept, p]
        X.data = X.data / self.scale[kept, p][X.indices]
        return X


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
    X = matrix.X.astype(np.float64)  # float32 stops the solvers early
    # Splits whose training sees other labels cannot share a pass, and those that train on few rows should not.
    labels: dict[tuple[int, int], list[int]] = {}
    for s, split in enumerate(splits):
        own = s if len(split.train) < FEW * len(y) else -1
        labels.setdefault((id(split.y_train), own), []).append(s)
    todo: list[Callable[[], Any]] = []
    owners: list[tuple[int, int]] = []
    for (_, own), members in labels.items():
        y_seen = y if splits[members[0]].y_train is None else splits[members[0]].y_train
        assert y_seen is not None
        folds = [(s, k, fold) for s in members for k, fold in enumerate(splits[s].inner())]
        X_seen = X
        if own >= 0:
            rows = splits[own].train
            X_seen, y_seen = X[rows], y_seen[rows]
            folds = [(s, k, (np.searchsorted(rows, f), np.searchsorted(rows, v))) for s, k, (f, v) in folds]
        for task, owned in _tasks(method, X_seen, y_seen, n_classes, folds, values):
            todo.append(task)
            owners += owned
    scores = dict(zip(owners, (row for rows in _run(todo, n_jobs) for row in rows), strict=True))
    validation = [np.stack([scores[s, k] for k in range(len(split.inner()))], axis=1) for s, split in enumerate(splits)]
    final = [partial(_finish, method, X, y, n_classes, split, validation[s], values) for s, split in enumerate(splits)]
    return tuple(_run(final, n_jobs))


def fit_final(
    kind: str | Method, X: Any, y: np.ndarray, train: np.ndarray, value: float | None, n_classes: int = 2
) -> tuple[Any, Any, bool]:
    """Fit the preparation and the probe of a method on the training rows, from a cold start.

    Returns:
        (fitted preparation, fitted probe, whether the solver converged).
    """
    method = kind if isinstance(kind, Method) else Method(kind, kind)
    prepare = preparation(method)
    if len(prepare.steps) == 1:
        prepare = prepare.steps[0][1]
    model = probe(value, method.probe or "logistic_l2", n_classes)
    return prepare, model, _fit(model, prepare.fit_transform(X[train], y[train]), y[train])


def probe(value: float | None, name: str = "logistic_l2", n_classes: int = 2) -> Any:
    """The unfitted scikit-learn classifier; `probe(C).fit(X_scaled, y)` is the final model of a logistic_l2 method."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    if name == "tree":
        assert value is not None
        return DecisionTreeClassifier(max_depth=int(value), random_state=0)
    if name == "softmax":
        return LogisticRegression(C=np.inf, class_weight="balanced", max_iter=SOFTMAX_STEPS)
    assert value is not None
    if name == "logistic_l1":
        return l1_probe(value) if n_classes == 2 else OneVsRestClassifier(l1_probe(value))
    if name == "k_sparse":
        return make_pipeline(SelectTop(int(value)), probe(1.0))
    if name == "linear_svm":
        return LinearSVC(C=value, max_iter=SVM_ITERATIONS, random_state=0)
    return LogisticRegression(
        C=value, solver="lbfgs", tol=FINAL_TOLERANCE * min(1.0, value**0.5), max_iter=MAX_ITERATIONS
    )


def choose(validation: np.ndarray, grid: Sequence[float]) -> float:
    """The value with the best mean over folds; among equals the smallest, which is the simplest model.

    Args:
        validation: float64 [len(grid), folds].
        grid: The values, rising.
    """
    return grid[int(np.argmax(validation.mean(axis=1)))]


def choose_c(validation: np.ndarray) -> float:
    """`choose` on C_GRID."""
    return choose(validation, C_GRID)


def log_proba(decision: np.ndarray) -> np.ndarray:
    """Log-probabilities [n, classes] from a decision function [n] (two classes) or [n, classes]."""
    from scipy.special import log_softmax

    if decision.ndim == 1:
        return np.column_stack([-np.logaddexp(0.0, decision), -np.logaddexp(0.0, -decision)])
    return np.asarray(log_softmax(decision, axis=1))


def scores_of(model: Any, X: Any) -> np.ndarray:
    """Log-probabilities [n, classes] of any fitted probe; from the decision function where there is one, for they do
    not round to 1 and tie far from the boundary."""
    from sklearn.multiclass import OneVsRestClassifier

    if isinstance(model, OneVsRestClassifier):
        return log_proba_ovr(np.asarray(model.decision_function(X)))
    if hasattr(model, "decision_function"):
        return log_proba(np.asarray(model.decision_function(X)))
    with np.errstate(divide="ignore"):
        return np.log(model.predict_proba(X))


def log_proba_ovr(decision: np.ndarray) -> np.ndarray:
    """Each class' own log-sigmoid, normalised over classes as scikit-learn's OneVsRestClassifier does; [n, classes]."""
    from scipy.special import logsumexp

    own = -np.logaddexp(0.0, -decision)
    return np.asarray(own - logsumexp(own, axis=1, keepdims=True))


def column_max(X: Any, rows: np.ndarray) -> np.ndarray:
    """Largest value [K] of each column over some rows of a CSR matrix of values >= 0, without copying them all.

    It is what MaxAbsScaler divides by: 1 where a column is zero.
    """
    out = np.zeros(X.shape[1])
    for start in range(0, len(rows), 4096):
        part = X[rows[start : start + 4096]]
        np.maximum.at(out, part.indices, part.data)
    return np.where(out > 0, out, 1.0)


def _tasks(
    method: Method,
    X: Any,
    y: np.ndarray,
    n_classes: int,
    folds: Sequence[tuple[int, int, tuple[np.ndarray, np.ndarray]]],
    grid: Sequence[float],
) -> list[tuple[Callable[[], Any], list[tuple[int, int]]]]:
    """(task, the folds whose scores it returns) pairs; which folds go together depends on the data alone."""
    score = partial(_scores, method, n_classes, grid)
    linear = method.kind in (*SPARSE, "dense") and method.binarize != "learnt"
    if not linear:  # every fold has a matrix of its own
        return [(partial(_alone, method, X, y, fold, score), [(s, k)]) for s, k, fold in folds]
    size = X.nnz if method.kind in SPARSE else X.size
    together = len(folds)
    if method.probe != "logistic_l2":
        together = 1
    elif size * len(folds) > LARGE:
        together = FOLDS_AT_ONCE
    tasks: list[tuple[Callable[[], Any], list[tuple[int, int]]]] = []
    for start in range(0, len(folds), together):
        mine = folds[start : start + together]
        tasks.append((partial(_shared, method, X, y, n_classes, [f for _, _, f in mine], score), [f[:2] for f in mine]))
    return tasks


def _shared(
    method: Method,
    X: Any,
    y: np.ndarray,
    n_classes: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    score: Callable[[_Folds], list[np.ndarray]],
) -> list[np.ndarray]:
    """Scores of folds that share the matrix: what is learnt is a number for each column."""
    fitted = [_fold_columns(method, X, y, fit) for fit, _ in folds]
    scale = np.full((X.shape[1], len(folds)), np.inf)
    for p, columns in enumerate(fitted):
        scale[columns.kept, p] = columns.scale
    shift = None
    if fitted[0].shift is not None:
        shift = np.stack([np.asarray(columns.shift) for columns in fitted], axis=1)
    return score(_Folds(X, y, n_classes, [f for f, _ in folds], [v for _, v in folds], scale, shift))


def _alone(
    method: Method,
    X: Any,
    y: np.ndarray,
    fold: tuple[np.ndarray, np.ndarray],
    score: Callable[[_Folds], list[np.ndarray]],
) -> list[np.ndarray]:
    """Scores of a fold whose preparation changes more than the size of columns."""
    fit, validate = fold
    prepare = preparation(method).fit(X[fit], y[fit])
    rows = np.concatenate([fit, validate])
    here = prepare.transform(X[rows])
    first = np.arange(len(fit))
    ones = np.ones((here.shape[1], 1))
    n_classes = int(y.max()) + 1
    return score(_Folds(here, y[rows], n_classes, [first], [np.arange(len(fit), len(rows))], ones, None))


def _fold_columns(method: Method, X: Any, y: np.ndarray, fit: np.ndarray) -> Columns:
    if method.kind in SPARSE and method.select is None and method.min_documents == 1:
        return Columns(np.arange(X.shape[1]), column_max(X, fit))
    if method.kind == "dense" and method.select is None:
        scale = scaler(method.kind).fit(X[fit])
        return Columns(np.arange(X.shape[1]), scale.scale_, scale.mean_)
    return columns_of(preparation(method).fit(X[fit], y[fit]), X.shape[1])


def _scores(method: Method, n_classes: int, grid: Sequence[float], folds: _Folds) -> list[np.ndarray]:
    """Macro F1 [len(grid)] on the validation rows of each fold."""
    search = {"logistic_l2": _search_l2, "logistic_l1": _search_l1, "k_sparse": _search_k, "tree": _search_tree}
    predicted = search.get(method.probe or "", partial(_search_plain, method.probe))(folds, grid)
    return [
        np.array([macro_f1(folds.y[validate], answer, n_classes) for answer in predicted[p]])
        for p, validate in enumerate(folds.validate)
    ]


def _search_l2(folds: _Folds, grid: Sequence[float]) -> list[np.ndarray]:
    in_fit = np.zeros((len(folds.y), len(folds.fit)), dtype=bool)
    for p, fit in enumerate(folds.fit):
        in_fit[fit, p] = True
    paths = Paths(folds.X, folds.y, folds.n_classes, in_fit, folds.scale, folds.shift)
    tolerances = [PATH_TOLERANCE * min(1.0, C**0.5) for C in grid]
    found = logistic_paths(paths, grid, tolerances, MAX_ITERATIONS)
    return [found[:, validate, p] for p, validate in enumerate(folds.validate)]


def _search_l1(folds: _Folds, grid: Sequence[float]) -> list[np.ndarray]:
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        X, scale = folds.X, folds.scale[:, p]
        if folds.shift is not None:
            X, scale = (folds.X - folds.shift[:, p]) / scale, np.ones(len(scale))
        classes = [1] if folds.n_classes == 2 else range(folds.n_classes)
        paths = [l1_path(X, folds.y == c, fit, scale, grid) for c in classes]
        held_out = X[validate]
        decision = np.array([[held_out @ w + b for w, b in path] for path in paths])  # [classes, grid, rows]
        answers.append(np.argmax(decision, axis=0) if len(decision) > 1 else (decision[0] > 0).astype(np.int64))
    return answers


def _search_k(folds: _Folds, grid: Sequence[float]) -> list[np.ndarray]:
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


def _search_tree(folds: _Folds, grid: Sequence[float]) -> list[np.ndarray]:
    """The deepest tree is fitted and cut at each depth: trees of less depth begin with the same splits.

    Except for the choice among splits that are equally good, which scikit-learn draws in the order of its nodes.
    """
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        X, held_out = folds.scaled(p, fit), folds.scaled(p, validate)
        model = probe(max(grid), "tree", folds.n_classes)
        _fit(model, X, folds.y[fit])
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


def _search_plain(name: str | None, folds: _Folds, grid: Sequence[float]) -> list[np.ndarray]:
    answers = []
    for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
        X, held_out = folds.scaled(p, fit), folds.scaled(p, validate)
        models = [probe(value, name or "", folds.n_classes) for value in grid]
        for model in models:
            _fit(model, X, folds.y[fit])
        answers.append(np.stack([model.predict(held_out) for model in models]))
    return answers


def _finish(
    method: Method,
    X: Any,
    y: np.ndarray,
    n_classes: int,
    split: Split,
    validation: np.ndarray,
    grid: Sequence[float],
) -> Fitted:
    value = choose(validation, grid) if method.probe in PARAMETER else None
    y_seen = y if split.y_train is None else split.y_train
    prepare, model, converged = fit_final(method, X, y_seen, split.train, value, n_classes)
    X_test = prepare.transform(X[split.test])
    top = np.empty(0, dtype=np.int64)
    if method.kind in SPARSE:
        kept = columns_of(as_pipeline(prepare), X.shape[1]).kept
        weight = importance(model, len(kept))
        order = np.lexsort((kept, -weight))[:TOP]
        top = kept[order[weight[order] > 0]]
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    iterations = last.get_depth() if hasattr(last, "get_depth") else int(np.max(getattr(last, "n_iter_", 0)))
    return Fitted(value, validation, model.predict(X_test), scores_of(model, X_test), iterations, converged, top)


def importance(model: Any, n_columns: int) -> np.ndarray:
    """How much a fitted probe goes by each of its columns: largest |coefficient|, or a tree's impurity decrease."""
    from sklearn.multiclass import OneVsRestClassifier

    if hasattr(model, "steps"):  # k_sparse
        out = np.zeros(n_columns)
        out[model.steps[0][1].get_support()] = importance(model.steps[1][1], 0)
        return out
    if isinstance(model, OneVsRestClassifier):
        return np.asarray(np.abs(np.vstack([m.coef_ for m in model.estimators_])).max(axis=0))
    if hasattr(model, "feature_importances_"):
        return np.asarray(model.feature_importances_)
    return np.asarray(np.abs(model.coef_).max(axis=0))


def as_pipeline(prepare: Any) -> Any:
    """A single transformer as a pipeline of one step."""
    from sklearn.pipeline import Pipeline

    return prepare if isinstance(prepare, Pipeline) else Pipeline([("scale", prepare)])


def _fit(model: Any, X: Any, y: np.ndarray) -> bool:
    """Fit and say whether the solver converged; the caller reports it, so its warning is not printed."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    steps = model.steps[-1][1] if hasattr(model, "steps") else model
    parts = getattr(steps, "estimators_", [steps])
    return all(int(np.max(getattr(part, "n_iter_", 0))) < getattr(part, "max_iter", np.inf) for part in parts)


def _run(tasks: Sequence[Callable[[], Any]], n_jobs: int) -> list[Any]:
    """Results in order; threads, for all that takes time lets go of the interpreter and the matrix is not copied."""
    if n_jobs == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(n_jobs) as pool:
        return list(pool.map(lambda task: task(), tasks))


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
