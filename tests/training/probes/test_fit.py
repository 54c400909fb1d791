"""A cell equals scikit-learn on the same matrix, and its test rows choose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from featurestore.errors import StudyError
from featurestore.models.scoring import log_proba
from tests.training.documents.test_split import data_of
from training.documents.split import Split, make_splits
from training.methods.matrices import MethodMatrix
from training.methods.method import Method
from training.methods.tfidf import CountsToTfidf
from training.probes.estimators import L2LogisticRegression
from training.probes.fit import choose, evaluate, fit_final
from training.probes.folds import Labelled
from training.probes.probe import C_GRID
from training.spec import SplitSpec

SCALERS = {"sae": MaxAbsScaler, "dense": StandardScaler, "tfidf": CountsToTfidf}


def problem(kind: str, n_classes: int = 2, n: int = 150, seed: int = 0) -> tuple[Any, np.ndarray, Split]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.poisson(2.0, (n, 40)) * (rng.random((n, 40)) < 0.4) * 1.0
    X[:, :n_classes] += (rng.random((n, n_classes)) < 0.6) * np.eye(n_classes)[y] * 2
    split = make_splits(data_of(y.tolist()), SplitSpec(seeds=1, folds=3))[0]
    return (X if kind == "dense" else csr_matrix(X)), y, split


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "n_classes"),
    [("sae", 2), pytest.param("sae", 3, marks=SLOW), ("dense", 2), pytest.param("tfidf", 3, marks=SLOW)],
)
def test_a_cell_equals_a_grid_search_and_a_fit_by_scikit_learn(kind: str, n_classes: int) -> None:
    X, y, split = problem(kind, n_classes)
    ours = evaluate(kind, MethodMatrix(X), y, n_classes, [split])[0]

    where = {row: i for i, row in enumerate(split.train)}
    folds = [([where[i] for i in fit], [where[i] for i in validate]) for fit, validate in split.inner()]
    pipeline = Pipeline([("scale", SCALERS[kind]()), ("probe", LogisticRegression(tol=1e-8, max_iter=5000))])
    search = GridSearchCV(pipeline, {"probe__C": C_GRID}, cv=folds, scoring="f1_macro")
    search.fit(X[split.train], y[split.train])
    theirs = np.stack([search.cv_results_[f"split{k}_test_score"] for k in range(len(folds))], axis=1)
    assert search.best_params_["probe__C"] == ours.value
    # A fit that stops within its tolerance may put one borderline document of 40 on the other side.
    assert np.abs(ours.validation - theirs).max() < 0.05
    assert np.abs(ours.validation - theirs).mean() < 0.002
    assert ours.value is not None
    # Ours and scikit-learn's solver on one problem: they differ by the tolerances at which they stop.
    for model in (L2LogisticRegression(ours.value), LogisticRegression(C=ours.value, tol=1e-8, max_iter=5000)):
        best = Pipeline([("scale", SCALERS[kind]()), ("probe", model)]).fit(X[split.train], y[split.train])
        assert (ours.y_pred == best.predict(X[split.test])).all()
        assert np.exp(ours.log_proba) == pytest.approx(best.predict_proba(X[split.test]), abs=1e-4)
    assert ours.converged


def test_what_test_rows_hold_changes_nothing_that_is_chosen() -> None:
    """The reference code chose layer, width and threshold by the test score."""
    X, y, split = problem("sae")
    honest = evaluate("sae", MethodMatrix(X), y, 2, [split])[0]
    spoiled_X, spoiled_y = X.toarray(), y.copy()
    spoiled_X[split.test] = 1e3 * np.random.default_rng(1).random((len(split.test), X.shape[1]))
    spoiled_y[split.test] = 1 - y[split.test]
    spoiled = evaluate("sae", MethodMatrix(csr_matrix(spoiled_X)), spoiled_y, 2, [split])[0]
    assert spoiled.value == honest.value
    assert (spoiled.validation == honest.validation).all()
    assert spoiled.iterations == honest.iterations


def test_permuted_labels_give_chance() -> None:
    scores = []
    for seed in range(8):
        X, y, _ = problem("sae", seed=seed)
        y = np.random.default_rng(seed).permutation(y)
        split = make_splits(data_of(y.tolist()), SplitSpec(seeds=1))[0]
        outcome = evaluate("sae", MethodMatrix(X), y, 2, [split])[0]
        scores.append((outcome.y_pred == y[split.test]).mean())
    assert np.mean(scores) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(8 * 30))  # three standard errors


def test_among_equal_scores_the_strongest_regularisation_wins() -> None:
    scores = np.full((len(C_GRID), 5), 0.5)
    scores[3:6] = 0.7
    assert choose(scores, C_GRID) == C_GRID[3]


def test_majority_predicts_the_commonest_training_class_with_the_classes_shares() -> None:
    y = np.array([0] * 60 + [1] * 90)
    split = make_splits(data_of(y.tolist()), SplitSpec(seeds=1))[0]
    outcome = evaluate("majority", MethodMatrix(None), y, 2, [split])[0]
    assert set(outcome.y_pred) == {1}
    assert np.exp(outcome.log_proba[0]) == pytest.approx([0.4, 0.6])
    assert outcome.value is None


def test_log_probabilities_are_those_of_scikit_learn_and_stay_apart_far_from_the_boundary() -> None:
    decision = np.array([-800.0, -40.0, 0.0, 40.0, 41.0])
    found = log_proba(decision)
    assert np.exp(found[2]) == pytest.approx([0.5, 0.5])
    assert (np.diff(found[:, 1]) > 0).all()  # probabilities themselves would round to 1 and tie


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("kind", ["sae", "dense"])
def test_a_value_that_is_not_finite_is_refused_and_never_fitted(kind: str, bad: float) -> None:
    X, y, split = problem(kind)
    (X if kind == "dense" else X.data)[(3, 5) if kind == "dense" else 7] = bad
    with pytest.raises(StudyError, match=rf"^{kind}: a value that it is made of is not finite; run verify"):
        evaluate(kind, MethodMatrix(X), y, 2, [split])
    with pytest.raises(StudyError, match="is not finite"):
        fit_final(Method(kind, kind), Labelled(X, y, 2), split.train, 1.0)


def test_a_fit_whose_weights_are_not_finite_is_no_result() -> None:
    X, y, split = problem("dense")
    X[0, 0] = 1e200  # its square, and so the spread of its column, is infinite
    with np.errstate(all="ignore"), pytest.raises(StudyError, match="came to weights that are not finite"):
        fit_final(Method("numbers", "numbers"), Labelled(X, y, 2), split.train, 1.0)
