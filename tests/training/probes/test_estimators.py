"""Our logistic regressions are scikit-learn's: its checks pass, its solutions are ours, on copies and in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from training.methods.transformers import column_max
from training.probes.estimators import L1LogisticRegression, L2LogisticRegression


# scikit-learn's checks of sample weights compare two fits to seven digits, so both must be solved to as many.
@parametrize_with_checks([L2LogisticRegression(tol=1e-11), L1LogisticRegression(tol=1e-9)])
def test_scikit_learns_own_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def problem(n_classes: int, n: int = 240, k: int = 40) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Sparse float32 features of which the first few carry the class; classes, rows to fit, rows held out."""
    rng = np.random.default_rng(1)
    X = rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.4)
    y = np.argmax(X[:, :n_classes] + 0.6 * rng.gumbel(size=(n, n_classes)), axis=1)
    return csr_matrix(X.astype(np.float32)), y, np.flatnonzero(np.arange(n) % 5), np.flatnonzero(np.arange(n) % 5 == 0)


def theirs(penalty: str, C: float, n_classes: int) -> Any:
    if penalty == "l2":
        return LogisticRegression(C=C, tol=1e-9, max_iter=10_000)
    one = LogisticRegression(C=C, l1_ratio=1, solver="liblinear", intercept_scaling=1e3, max_iter=5_000, tol=1e-6)
    return one if n_classes == 2 else OneVsRestClassifier(one)


OURS = {"l2": L2LogisticRegression, "l1": L1LogisticRegression}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.parametrize("C", [0.3, 10.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_in_place_is_scikit_learns_of_a_scaled_copy(
    penalty: str, n_classes: int, C: float, weighted: bool
) -> None:
    X, y, rows, held_out = problem(n_classes)
    weights = np.random.default_rng(0).integers(1, 4, len(y)).astype(np.float64) if weighted else None
    scale = MaxAbsScaler().fit(X[rows].astype(np.float64))
    ours = OURS[penalty](C).fit_rows(X, y, rows, column_max(X, rows), n_classes, weights)
    times = np.ones(len(rows), int) if weights is None else weights[rows].astype(int)
    repeated = np.repeat(rows, times)  # a row of weight 3 is three rows
    direct = theirs(penalty, C, n_classes).fit(scale.transform(X[repeated].astype(np.float64)), y[repeated])
    there = scale.transform(X[held_out].astype(np.float64))
    assert ours.converged_
    # Two solvers of one convex problem, at the tolerances of the study; L1 stops at a hundredth of the penalty.
    expected = direct.predict_proba(there)
    assert ours.predict_proba(there) == pytest.approx(expected, abs=1e-4 if penalty == "l2" else 0.01)
    assert (ours.predict(there) == np.argmax(ours.predict_proba(there), axis=1)).all()


@pytest.mark.parametrize("C", [1e-2, 1.0, 100.0, 1000.0])
def test_probabilities_are_those_of_the_optimum_at_every_strength_of_the_penalty(C: float) -> None:
    rng = np.random.default_rng(3)
    X = rng.poisson(1.0, (120, 400)) * (rng.random((120, 400)) < 0.3) * 1.0
    y = (X[:, 0] + rng.normal(0, 0.5, 120) > 0.3).astype(int)  # more features than rows: some model separates them
    exact = LogisticRegression(C=C, tol=1e-11, max_iter=100_000).fit(X[:90], y[:90]).predict_proba(X[90:])
    assert L2LogisticRegression(C).fit(X[:90], y[:90]).predict_proba(X[90:]) == pytest.approx(exact, abs=2e-4)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_rows_that_are_not_fitted_have_no_influence(penalty: str) -> None:
    X, y, rows, held_out = problem(2)
    spoiled, other = X.toarray(), y.copy()
    spoiled[held_out], other[held_out] = 1e3, 1 - y[held_out]
    scale = column_max(X, rows)
    one = OURS[penalty](3.0).fit_rows(X, y, rows, scale, 2)
    two = OURS[penalty](3.0).fit_rows(csr_matrix(spoiled.astype(np.float32)), other, rows, scale, 2)
    assert two.coef_ == pytest.approx(one.coef_, abs=1e-9)


def test_names_of_classes_are_kept_and_predicted() -> None:
    X, y, _, _ = problem(3)
    names = np.array(["one", "two", "three"])[y]
    for kind in OURS.values():
        model = kind(10.0).fit(X, names)
        assert list(model.classes_) == ["one", "three", "two"]
        assert (model.predict(X) == names).mean() > 0.7


def test_an_l1_fit_meets_the_conditions_of_its_optimum() -> None:
    X, y, rows, _ = problem(2)
    C, scale = 2.0, column_max(X, rows)
    model = L1LogisticRegression(C).fit_rows(X, y, rows, scale, 2)
    scaled = X[rows].astype(np.float64) / scale
    chance = 1 / (1 + np.exp(-(scaled @ model.coef_[0] + model.intercept_[0])))
    gradient = np.asarray(scaled.T @ (chance - y[rows])) * C
    weights = model.coef_[0]
    assert gradient[weights != 0] == pytest.approx(-np.sign(weights[weights != 0]), abs=0.02)
    assert np.abs(gradient[weights == 0]).max() <= 1.02
    assert (weights == 0).any()
