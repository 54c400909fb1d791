"""Problems solved together reach what scikit-learn reaches one by one, and do not feel each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from training.solvers.l2_path import logistic_fit, logistic_paths, minimise
from training.solvers.objective import Paths, objective_of

GRID = (1e-3, 1e-1, 1.0, 10.0)


def problem(n_classes: int, sparse: bool, n: int = 150, k: int = 30) -> tuple[Paths, list[Any]]:
    """Four folds of one matrix, each with the scaling of its own rows; and their fitted scalers."""
    rng = np.random.default_rng(0)
    X = rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.3) * rng.gamma(1.0, size=k)
    y = np.argmax(X[:, :n_classes] / X[:, :n_classes].std(axis=0) + 0.3 * rng.gumbel(size=(n, n_classes)), axis=1)
    given = csr_matrix(X) if sparse else X
    fit = np.arange(n)[:, None] % 4 != np.arange(4)[None, :]
    scalers = [(MaxAbsScaler() if sparse else StandardScaler()).fit(given[fit[:, p]]) for p in range(4)]
    shift = None if sparse else np.stack([s.mean_ for s in scalers], axis=1)
    return Paths(given, y, n_classes, fit, np.stack([s.scale_ for s in scalers], axis=1), shift), scalers


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("sparse", [True, False])
def test_every_problem_equals_a_scikit_learn_fit_of_its_own(n_classes: int, sparse: bool) -> None:
    paths, scalers = problem(n_classes, sparse)
    m = 1 if n_classes == 2 else n_classes
    objective = objective_of(paths)
    x = np.zeros((4, m, paths.X.shape[1] + 1))
    for C in GRID:
        x, _ = minimise(objective, 1.0 / (C * objective.rows), x, tolerance=1e-8, max_iterations=5000)
        decision = objective.decision(x, np.arange(4))
        for p in range(4):
            rows = paths.fit[:, p]
            X = scalers[p].transform(paths.X)
            direct = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X[rows], paths.y[rows])
            expected = direct.decision_function(X).reshape(-1, m)
            # Two runs of the same convex problem: they differ by the tolerance of the solvers, not by rounding.
            assert np.abs(decision[:, p] - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("sparse", [True, False])
def test_predictions_are_the_classes_of_the_decision(sparse: bool) -> None:
    paths, scalers = problem(3, sparse)
    found = logistic_paths(paths, GRID, [1e-7] * 4, 5000)
    rows = paths.fit[:, 1]
    direct = LogisticRegression(C=GRID[2], tol=1e-7, max_iter=5000).fit(
        scalers[1].transform(paths.X[rows]), paths.y[rows]
    )
    assert (found[2, :, 1] == direct.predict(scalers[1].transform(paths.X))).all()


def test_rows_outside_the_fit_have_no_influence() -> None:
    paths, _ = problem(2, sparse=True)
    spoiled = paths.X.toarray()
    spoiled[0] = 1e3  # not fitted by problem 0
    y = paths.y.copy()
    y[0] = 1 - y[0]
    other = Paths(csr_matrix(spoiled), y, 2, paths.fit, paths.scale)
    before, after = (logistic_paths(p, GRID, [1e-5] * 4, 1000)[:, 1:, 0] for p in (paths, other))
    assert (before == after).all()


def test_problems_solved_in_turns_equal_problems_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    paths, _ = problem(3, sparse=True)
    together = logistic_paths(paths, GRID, [1e-7] * 4, 2000)
    monkeypatch.setattr("training.solvers.l2_path.STATE_BYTES", 1)
    assert (logistic_paths(paths, GRID, [1e-7] * 4, 2000) == together).all()


def test_a_tolerance_below_what_float64_can_show_ends_the_fit_all_the_same() -> None:
    paths, scalers = problem(2, sparse=True)
    one = paths.subset(slice(0, 1))
    found = logistic_fit(one, 1e-4, 1e-14, 500)
    rows = paths.fit[:, 0]
    direct = LogisticRegression(C=1e-4, tol=1e-12).fit(scalers[0].transform(paths.X[rows]), paths.y[rows])
    assert found.converged and found.iterations < 100
    assert found.coef * paths.scale[:, 0] == pytest.approx(direct.coef_, abs=1e-7)
