"""Each probe is the scikit-learn estimator that it says it is, chosen as a grid search chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tests.training.documents.test_split import data_of
from training.documents.split import Split, make_splits
from training.methods.matrices import MethodMatrix
from training.methods.method import Method
from training.methods.transformers import LearntThresholds, MinDocuments, SelectTop, column_max
from training.probes.catalogue import PROBES
from training.probes.fit import evaluate
from training.solvers.l1_path import l1_path
from training.spec import PROBES as NAMES
from training.spec import SplitSpec

# Of probabilities of the final model: the same solver, or two of one convex problem at their tolerances, of which
# liblinear (L1) penalises the intercept a hundredth as much as a weight, and ours not at all.
CLOSE = {"logistic_l2": 1e-4, "k_sparse": 1e-4, "logistic_l1": 0.02}


def problem(n_classes: int = 2, n: int = 160, k: int = 50) -> tuple[Any, np.ndarray, Split]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    X = rng.gamma(2.0, size=(n, k)) * (rng.random((n, k)) < 0.3)
    X[:, :n_classes] += (rng.random((n, n_classes)) < 0.7) * np.eye(n_classes)[y] * 2
    return csr_matrix(X.astype(np.float32)), y, make_splits(data_of(y.tolist()), SplitSpec(seeds=1, folds=3))[0]


def direct(name: str, value: float | None, n_classes: int) -> Any:
    """The estimators written out again, as a user of scikit-learn would."""
    if name == "tree":
        return DecisionTreeClassifier(max_depth=int(value or 0), random_state=0)
    if name == "linear_svm":
        return LinearSVC(C=value, max_iter=5000, random_state=0)
    if name == "softmax":
        return LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100)
    if name == "k_sparse":
        return make_pipeline(SelectTop(int(value or 0)), LogisticRegression(C=1.0, tol=1e-6, max_iter=2000))
    if name == "logistic_l1":
        one = LogisticRegression(
            C=value, l1_ratio=1, solver="liblinear", intercept_scaling=100, max_iter=1000, random_state=0
        )
        return one if n_classes == 2 else OneVsRestClassifier(one)
    return LogisticRegression(C=value, tol=1e-6 * min(1, (value or 0) ** 0.5), max_iter=2000)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_probe_equals_direct_scikit_learn_calls(name: str, n_classes: int) -> None:
    X, y, split = problem(n_classes)
    ours = evaluate(Method("m", "sae", probe=name), MethodMatrix(X), y, n_classes, [split])[0]
    X = X.astype(np.float64)
    for i, value in enumerate(PROBES[name].grid):
        for k, (fit, validate) in enumerate(split.inner()):
            scale = MaxAbsScaler().fit(X[fit])
            model = direct(name, value, n_classes).fit(scale.transform(X[fit]), y[fit])
            theirs = f1_score(y[validate], model.predict(scale.transform(X[validate])), average="macro")
            if name == "tree" and i < len(PROBES[name].grid) - 1:
                # A shallower tree is the deepest one cut: the same but for draws among equally good splits.
                assert ours.validation[i, k] == pytest.approx(theirs, abs=0.12)
                continue
            # One borderline document of 43 may fall on the other side where two solvers stop at their tolerances.
            assert ours.validation[i, k] == pytest.approx(theirs, abs=0.05)
    scale = MaxAbsScaler().fit(X[split.train])
    final = direct(name, ours.value, n_classes).fit(scale.transform(X[split.train]), y[split.train])
    assert (ours.y_pred == final.predict(scale.transform(X[split.test]))).all()
    if hasattr(final, "predict_proba"):
        proba = final.predict_proba(scale.transform(X[split.test]))
        assert np.exp(ours.log_proba) == pytest.approx(proba, abs=CLOSE.get(name, 1e-12))
    assert ours.validation_macro_f1 == ours.validation.mean(axis=1).max()
    if ours.value is not None:
        assert ours.value == PROBES[name].grid[int(np.argmax(ours.validation.mean(axis=1)))]


def test_the_l1_path_solves_the_problem_that_saga_solves() -> None:
    X, y, split = problem()
    X, fit = X.astype(np.float64), split.train
    scale = column_max(X, fit)
    for C, found in zip((0.1, 1.0), l1_path(X, y == 1, fit, scale, (0.1, 1.0)), strict=True):
        w, b = found.coef, found.intercept
        scaled = MaxAbsScaler().fit_transform(X[fit])
        saga = LogisticRegression(C=C, l1_ratio=1, solver="saga", tol=1e-8, max_iter=50_000).fit(scaled, y[fit])

        def objective(w: np.ndarray, b: float, C: float = C, scaled: Any = scaled) -> float:
            z = scaled @ w + b
            return float((np.logaddexp(0, z) - y[fit] * z).sum() + np.abs(w).sum() / C)

        # The intercept is penalised a hundredth as much as a weight: a part in a thousand of the objective.
        assert objective(w * scale, b) <= objective(saga.coef_[0], saga.intercept_[0]) * 1.001
        assert w * scale == pytest.approx(saga.coef_[0], abs=0.02)


def test_columns_left_out_of_the_path_are_those_that_the_whole_fit_leaves_at_zero() -> None:
    X, y, split = problem(k=200)
    X, fit = X.astype(np.float64), split.train
    scale = column_max(X, fit)
    scaled = MaxAbsScaler().fit_transform(X[fit])
    for C, found in zip((0.05, 0.5, 5.0), l1_path(X, y == 1, fit, scale, (0.05, 0.5, 5.0)), strict=True):
        w = found.coef
        whole = direct("logistic_l1", C, 2).fit(scaled, y[fit]).coef_[0]
        # liblinear stops at a tolerance, on either way
        assert w * scale == pytest.approx(whole, abs=0.02 * max(1.0, np.abs(whole).max()))


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({"binarize": "learnt"}, [LearntThresholds(), MaxAbsScaler()]),
        ({"select": "class_means", "k": 7}, [MaxAbsScaler(), SelectTop(7)]),
        ({"select": "anova", "k": 7}, [MaxAbsScaler(), SelectTop(7, "anova")]),
        ({"min_documents": 40}, [MinDocuments(40), MaxAbsScaler()]),
    ],
)
def test_what_is_learnt_before_the_probe_is_learnt_on_the_rows_fitted(change: dict[str, Any], steps: list[Any]) -> None:
    X, y, split = problem()
    ours = evaluate(Method("m", "sae", **change), MethodMatrix(X), y, 2, [split])[0]
    X = X.astype(np.float64)
    C = ours.value
    assert C is not None
    probe = PROBES["logistic_l2"]
    i = probe.grid.index(C)
    for k, (fit, validate) in enumerate(split.inner()):
        model = make_pipeline(*steps, probe.estimator(C)).fit(X[fit], y[fit])
        theirs = f1_score(y[validate], model.predict(X[validate]), average="macro")
        assert ours.validation[i, k] == pytest.approx(theirs, abs=0.05)
    final = make_pipeline(*steps, probe.estimator(C)).fit(X[split.train], y[split.train])
    assert (ours.y_pred == final.predict(X[split.test])).all()
    assert ours.log_proba == pytest.approx(final.predict_log_proba(X[split.test]), abs=1e-3)


def test_a_feature_that_only_test_documents_have_is_never_looked_at() -> None:
    """A planted leak: a column that tells the test classes apart and is silent in training."""
    X, y, split = problem()
    leak = np.zeros(len(y))
    leak[split.test] = 1 + y[split.test]
    from scipy.sparse import hstack

    leaky = hstack([X, csr_matrix(leak[:, None].astype(np.float32))], format="csr")
    for name in ("logistic_l2", "logistic_l1", "k_sparse", "tree"):
        honest, with_leak = (
            evaluate(Method("m", "sae", probe=name), MethodMatrix(matrix), y, 2, [split])[0] for matrix in (X, leaky)
        )
        assert X.shape[1] not in with_leak.top
        if name == "tree":  # which of equally good splits it takes depends on the number of columns
            continue
        assert with_leak.value == honest.value
        assert (with_leak.y_pred == honest.y_pred).mean() > 0.96  # summation order may move one borderline document


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, split = problem(3)
    monkeypatch.setattr("training.solvers.objective.BLOCK", 20)  # so that one fold's rows are shared out
    monkeypatch.setattr("training.probes.grid_search.BLOCK", 20)
    for name in ("logistic_l2", "logistic_l1", "tree"):
        one, two = (
            evaluate(Method("m", "sae", probe=name), MethodMatrix(X), y, 3, [split], n_jobs=n)[0] for n in (1, 2)
        )
        assert (one.validation == two.validation).all()
        assert (one.log_proba == two.log_proba).all()


def test_the_largest_value_of_a_column_is_what_scikit_learn_divides_by() -> None:
    X, _, split = problem()
    assert column_max(X.astype(np.float64), split.train) == pytest.approx(MaxAbsScaler().fit(X[split.train]).scale_)
