"""Final models of large matrices are those of scikit-learn, by solvers that copy nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.preprocessing import MaxAbsScaler

from training.documents.split import Split
from training.methods.features import Method, MethodMatrix
from training.probes import large_logistic as large
from training.probes.estimators import probe, scores_of
from training.probes.fit import evaluate
from training.probes.grid_search import column_max, in_float64


def problem(n_classes: int, n: int = 240, k: int = 40) -> tuple[Any, np.ndarray, Split]:
    """Sparse float32 features of which the first few carry the class; a fifth of the rows held out."""
    rng = np.random.default_rng(1)
    X = rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.4)
    y = np.argmax(X[:, :n_classes] + 0.6 * rng.gumbel(size=(n, n_classes)), axis=1)
    return csr_matrix(X.astype(np.float32)), y, Split(0, np.arange(n) % 5 - 1)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["logistic_l2", "logistic_l1"])
@pytest.mark.parametrize("value", [0.3, 10.0])
def test_a_large_fit_is_scikit_learns_own(name: str, n_classes: int, value: float) -> None:
    X, y, split = problem(n_classes)
    prepare, model, converged = large.fit_large(name, X, y, split.train, value, n_classes, None, 1)
    scale = MaxAbsScaler().fit(in_float64(X[split.train]))
    direct = probe(value, name, n_classes).fit(scale.transform(in_float64(X[split.train])), y[split.train])
    held_out = in_float64(X[split.test])
    assert converged
    assert (prepare.transform(held_out) != scale.transform(held_out)).nnz == 0
    theirs = scores_of(direct, scale.transform(held_out))
    ours = scores_of(model, prepare.transform(held_out))
    # Two solvers of one convex problem; liblinear penalises the intercept a little, and stops at 1e-4.
    assert ours == pytest.approx(theirs, abs=1e-3 if name == "logistic_l2" else 0.05)
    assert (model.predict(prepare.transform(held_out)) == np.argmax(ours, axis=1)).all()
    assert model.predict_proba(prepare.transform(held_out)) == pytest.approx(np.exp(ours), abs=1e-9)


@pytest.mark.parametrize("name", ["logistic_l2", "logistic_l1"])
def test_a_study_of_a_large_matrix_scores_as_one_of_a_small_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, split = problem(2)
    method = Method("m", "sae", probe=name)
    small = evaluate(method, MethodMatrix(X), y, 2, [split])[0]
    monkeypatch.setattr(large, "LARGE", 0)
    great = evaluate(method, MethodMatrix(X), y, 2, [split])[0]
    assert (small.validation == great.validation).all()
    assert great.value == small.value
    assert great.log_proba == pytest.approx(small.log_proba, abs=0.05)
    assert set(great.top[:3]) == set(small.top[:3])


def test_a_large_l1_fit_meets_the_conditions_of_its_optimum() -> None:
    X, y, split = problem(2)
    C = 2.0
    _, model, _ = large.fit_large("logistic_l1", X, y, split.train, C, 2, None, 1)
    scaled = in_float64(X[split.train]) / column_max(X, split.train)
    chance = 1 / (1 + np.exp(-(scaled @ model.coef_[0] + model.intercept_[0])))
    gradient = np.asarray(scaled.T @ (chance - y[split.train])) * C
    weights = model.coef_[0]
    assert gradient[weights != 0] == pytest.approx(-np.sign(weights[weights != 0]), abs=0.02)
    assert np.abs(gradient[weights == 0]).max() <= 1.02
    assert (weights == 0).any()
