"""Problems of fewer rows than columns come out of the span of their rows as they would from the columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, issparse
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from training.solvers import l2_path
from training.solvers.l2_path import Solution, logistic_fit, logistic_paths
from training.solvers.objective import Paths, objective_of
from training.solvers.span import InSpan, spans

GRID = (1e-3, 1e-1, 1.0, 100.0)
FOLDS = 3


def problem(n_classes: int, sparse: bool, weighted: bool = False, n: int = 80, k: int = 200) -> Paths:
    """Three folds of fewer rows than columns: some rows twice, some columns left out, some zero throughout."""
    rng = np.random.default_rng(7)
    X = (rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.2) * rng.gamma(1.0, size=k)).astype(np.float32)
    X[:, 5] = 0.0
    X[3] = X[0]
    X[40:44] = X[1]
    y = np.argmax(X[:, :n_classes] + 0.3 * rng.gumbel(size=(n, n_classes)), axis=1)
    fit = np.arange(n)[:, None] % (FOLDS + 1) != np.arange(FOLDS)
    scale = np.stack([np.where(X[rows].max(axis=0) > 0, X[rows].max(axis=0), 1.0) for rows in fit.T], axis=1)
    scale[10:14, 1] = np.inf
    weights = rng.integers(1, 4, n)[:, None] * fit * 1.0 if weighted else None
    if sparse:
        return Paths(csr_matrix(X), y, n_classes, fit, scale.astype(np.float64), weights=weights)
    shift = np.stack([X[rows].mean(axis=0) for rows in fit.T], axis=1).astype(np.float64)
    return Paths(X.astype(np.float64), y, n_classes, fit, scale.astype(np.float64), shift, weights)


def seen(paths: Paths, p: int) -> np.ndarray:
    """All rows as problem p has them."""
    X = paths.X.toarray() if issparse(paths.X) else paths.X
    return np.asarray((X - (0.0 if paths.shift is None else paths.shift[:, p])) / paths.scale[:, p])


def in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(l2_path, "spans", lambda *_: False)


def in_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(l2_path, "spans", lambda *_: True)


def theirs(paths: Paths, p: int, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the columns as problem p has them, and decisions about all rows, by scikit-learn."""
    Z, rows = seen(paths, p), paths.fit[:, p]
    weight = None if paths.weights is None else paths.weights[rows, p]
    model = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(Z[rows], paths.y[rows], sample_weight=weight)
    return model.coef_, (Z @ model.coef_.T + model.intercept_)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [1e-2, 1.0, 100.0])
def test_a_fit_has_the_coefficients_of_scikit_learns(
    monkeypatch: pytest.MonkeyPatch, sparse: bool, n_classes: int, weighted: bool, C: float
) -> None:
    paths = problem(n_classes, sparse, weighted)
    in_span(monkeypatch)
    for p in (0, 1):  # the second leaves columns out
        found = logistic_fit(paths.subset(slice(p, p + 1)), C, 1e-9, 5000)
        expected, decision = theirs(paths, p, C)
        assert found.converged
        used = np.isfinite(paths.scale[:, p])
        assert (found.coef[:, ~used] == 0).all()
        # Two runs of one convex problem: they differ by the solvers' tolerances times C and the rows, not by rounding.
        bound = 1e-4 * np.abs(expected).max()
        assert np.abs((found.coef * np.where(used, paths.scale[:, p], 0.0)) - expected).max() < bound
        X = paths.X.toarray() if sparse else paths.X
        assert np.abs(X @ found.coef.T + found.intercept - decision).max() < 1e-4 * np.abs(decision).max()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_path_predicts_as_in_the_columns_and_as_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, sparse: bool, n_classes: int, weighted: bool
) -> None:
    paths = problem(n_classes, sparse, weighted)
    in_span(monkeypatch)
    found = logistic_paths(paths, GRID, [1e-8] * len(GRID), 5000)
    in_columns(monkeypatch)
    assert (logistic_paths(paths, GRID, [1e-8] * len(GRID), 5000) == found).all()
    for p in (0, 1):
        for i, C in enumerate(GRID[:3]):
            decision = theirs(paths, p, C)[1]
            assert (found[i, :, p] == (decision[:, 0] > 0 if n_classes == 2 else np.argmax(decision, axis=1))).all()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("C", [1e-2, 1.0, 100.0])
def test_a_solution_meets_the_tolerance_in_the_columns_without_a_step_there(
    monkeypatch: pytest.MonkeyPatch, sparse: bool, n_classes: int, C: float
) -> None:
    one, tolerance = problem(n_classes, sparse, weighted=True).subset(slice(0, 1)), 1e-7
    in_span(monkeypatch)
    steps: list[int] = []
    inner = l2_path.minimise

    def counted(*args: Any) -> tuple[np.ndarray, np.ndarray]:
        x, taken = inner(*args)
        steps.append(int(taken[0]))
        return x, taken

    monkeypatch.setattr(l2_path, "minimise", counted)
    found = logistic_fit(one, C, tolerance, 5000)
    assert steps[0] > 0 and steps[1:] == [0]
    assert np.abs(gradient(one, found, C)).max() <= tolerance * (1 + 1e-6)


def gradient(one: Paths, found: Solution, C: float) -> np.ndarray:
    """Of the mean loss of the only problem, by its scaled and centred weights and the intercept; [M, K + 1]."""
    assert one.weights is not None
    share = one.weights[:, 0] / one.weights[:, 0].sum()
    Z = seen(one, 0)
    if one.shift is None:
        Z = Z - share @ Z
    X = one.X.toarray() if issparse(one.X) else one.X
    decision = X.astype(np.float64) @ found.coef.T + found.intercept
    both = np.hstack([np.zeros_like(decision), decision]) if one.n_classes == 2 else decision
    residual = (np.exp(log_softmax(both, axis=1)) - np.eye(one.n_classes)[one.y]) * share[:, None]
    residual = residual[:, -decision.shape[1] :]
    penalty = found.coef * one.scale[:, 0] / (C * one.weights[:, 0].sum())
    return np.hstack([residual.T @ Z + penalty, residual.sum(axis=0)[:, None]])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 24),
    k=st.integers(1, 60),
    n_classes=st.integers(2, 4),
    sparse=st.booleans(),
    weighted=st.booleans(),
)
def test_value_and_gradient_in_the_span_are_those_of_the_columns(
    seed: int, n: int, k: int, n_classes: int, sparse: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.poisson(1.0, (n, k)) * rng.gamma(1.0, size=(1, k)) * 1.0
    fit = rng.random((n, 2)) < 0.7
    fit[:2] = True
    scale = np.where(rng.random((k, 2)) < 0.1, np.inf, rng.gamma(2.0, size=(k, 2)) + 0.1)
    weights = fit * rng.integers(1, 4, (n, 1)) * 1.0 if weighted else None
    paths = Paths(csr_matrix(X) if sparse else X, rng.integers(0, n_classes, n), n_classes, fit, scale, None, weights)
    columns, which = objective_of(paths), np.arange(2)
    span = InSpan(columns, np.arange(n))
    penalty = rng.gamma(1.0, size=2)
    x = span.start()
    for p in which:  # entries beyond a problem's own directions stay zero
        r = span.directions(p)
        x[p, :, :r], x[p, :, -1] = rng.normal(size=(x.shape[1], r)), rng.normal(size=x.shape[1])
    there = np.stack([span.of_columns(x[p], p) for p in which])
    value, slope = span(x, penalty, which)
    expected, of_columns = columns(there, penalty, which)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert span.decision(x, which) == pytest.approx(columns.decision(there, which), abs=1e-7)
    length = np.sqrt(np.vecdot(of_columns[:, :, :-1], of_columns[:, :, :-1]))
    assert np.sqrt(np.vecdot(slope[:, :, :-1], slope[:, :, :-1])) == pytest.approx(length, abs=1e-7)
    assert slope[:, :, -1] == pytest.approx(of_columns[:, :, -1], abs=1e-9)
    assert (span.steepness(slope) >= columns.steepness(of_columns) * (1 - 1e-6) - 1e-9).all()


@pytest.mark.parametrize("sparse", [True, False])
def test_inner_products_are_those_of_the_rows_scaled_and_shifted(sparse: bool) -> None:
    paths, rows = problem(2, sparse), np.array([1, 3, 8, 40, 77])
    columns = objective_of(paths)
    found = list(columns.inner_products(rows))
    for p in range(FOLDS):
        X = paths.X.toarray() if sparse else paths.X
        mean = X[paths.fit[:, p]].mean(axis=0)  # sparse means are float32's
        Z = (X[rows].astype(np.float64) - mean) / paths.scale[:, p]
        products, summed = found[p]
        assert products == pytest.approx(Z @ Z.T, rel=1e-6, abs=1e-5 if sparse else 1e-10)
        assert summed >= products.diagonal().max()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch, sparse: bool, n_classes: int) -> None:
    paths = problem(n_classes, sparse)
    in_span(monkeypatch)
    one, four = (logistic_fit(paths.subset(slice(1, 2)), 3.0, 1e-7, 500, n_jobs) for n_jobs in (1, 4))
    assert one.coef.tobytes() == four.coef.tobytes() and one.intercept.tobytes() == four.intercept.tobytes()
    single, several = (logistic_paths(paths, GRID, [1e-5] * 4, 500, n_jobs) for n_jobs in (1, 4))
    assert (single == several).all()


def test_rows_outside_the_fit_have_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = problem(3, sparse=True).subset(slice(0, 1))
    in_span(monkeypatch)
    spoiled, y, out = paths.X.toarray(), paths.y.copy(), ~paths.fit[:, 0]
    spoiled[out], y[out] = 1e3, (y[out] + 1) % 3
    other = replace(paths, X=csr_matrix(spoiled), y=y)
    one, two = (logistic_fit(of, 1.0, 1e-9, 1000) for of in (paths, other))
    assert two.coef == pytest.approx(one.coef, abs=1e-9)


def test_problems_solved_in_turns_equal_problems_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = problem(3, sparse=True)
    in_span(monkeypatch)
    together = logistic_paths(paths, GRID, [1e-7] * 4, 2000)
    monkeypatch.setattr(l2_path, "STATE_BYTES", 1)
    assert (logistic_paths(paths, GRID, [1e-7] * 4, 2000) == together).all()


def test_rows_that_are_all_alike_are_told_apart_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    in_span(monkeypatch)
    X, y = csr_matrix(np.tile([1.0, 0.0, 2.0], (6, 1))), np.array([0, 1, 1, 0, 1, 1])
    found = logistic_fit(Paths(X, y, 2, np.ones((6, 1), bool), np.ones((3, 1))), 1.0, 1e-9, 100)
    assert found.converged and found.coef == pytest.approx(0.0, abs=1e-9)
    assert found.intercept == pytest.approx(np.log(2.0), abs=1e-6)


def test_few_rows_of_many_columns_are_solved_in_their_span_and_many_rows_are_not() -> None:
    def paths(n: int, k: int, nonzeros: int, n_classes: int) -> Paths:
        X = csr_matrix((np.ones(n * nonzeros), np.tile(np.arange(nonzeros), n), np.arange(n + 1) * nonzeros), (n, k))
        return Paths(X, np.arange(n) % n_classes, n_classes, np.ones((n, 2), bool), np.ones((k, 2)))

    few, many = paths(300, 4096, 200, 20), paths(6000, 4096, 200, 2)
    assert spans(few, 8, np.arange(300)) and spans(few, 1, np.arange(300))
    assert not spans(many, 8, np.arange(6000)) and not spans(many, 1, np.arange(6000))
    assert not spans(paths(300, 100, 50, 20), 8, np.arange(300))
