"""`class_weight: balanced` is scikit-learn's, for every probe, in the search and in the final fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.class_weight import compute_sample_weight

from training.documents.split import TEST, Split
from training.methods.matrices import MethodMatrix
from training.methods.method import Method
from training.methods.transformers import SelectTop
from training.probes.catalogue import PROBES, grid_of
from training.probes.fit import evaluate, fit_final
from training.probes.folds import Labelled, balanced
from training.scores.metrics import macro_f1

ROWS = np.arange(240)


def unbalanced(n_classes: int = 2, n: int = 300) -> tuple[Any, np.ndarray]:
    """Sparse features of which some tell the classes apart; the last class is rare."""
    dice = np.random.default_rng(0)
    y = np.minimum(dice.geometric(0.75, n) - 1, n_classes - 1)
    y[:n_classes] = np.arange(n_classes)
    X = dice.gamma(1.0, size=(n, 20)) * (dice.random((n, 20)) < 0.4)
    X[np.arange(n), y] += (dice.random(n) < 0.6) * 1.5
    return csr_matrix(X.astype(np.float32)), y


def fitted(probe: str, value: float, class_weight: str | None, n_classes: int = 2) -> np.ndarray:
    """Probabilities of all rows."""
    X, y = unbalanced(n_classes)
    method = Method("m", "sae", "s", "max", probe=probe, class_weight=class_weight)
    final = fit_final(method, Labelled(X, y, n_classes), ROWS, value)
    return np.exp(final.probe.log_proba(final.prepare.transform(X.astype(np.float64))))


def scaled(n_classes: int = 2) -> tuple[Any, np.ndarray]:
    X, y = unbalanced(n_classes)
    return MaxAbsScaler().fit(X[ROWS].astype(np.float64)).transform(X.astype(np.float64)), y


@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_those_of_scikit_learn(n_classes: int) -> None:
    _, y = unbalanced(n_classes)
    found = balanced(y, [ROWS, ROWS[::2]], n_classes)
    assert found[ROWS, 0] == pytest.approx(compute_sample_weight("balanced", y[ROWS]))
    assert found[ROWS[::2], 1] == pytest.approx(compute_sample_weight("balanced", y[ROWS[::2]]))
    assert not found[len(ROWS) :].any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_l2_is_scikit_learns_with_balanced_classes(n_classes: int) -> None:
    X, y = scaled(n_classes)
    reference = LogisticRegression(C=2.0, class_weight="balanced", tol=1e-8, max_iter=5000).fit(X[ROWS], y[ROWS])
    ours = fitted("logistic_l2", 2.0, "balanced", n_classes)
    assert ours == pytest.approx(reference.predict_proba(X), abs=1e-4)
    assert np.abs(ours - fitted("logistic_l2", 2.0, None, n_classes)).max() > 0.1


def test_logistic_l1_is_scikit_learns_with_balanced_classes() -> None:
    X, y = scaled()
    settings: dict[str, Any] = {"l1_ratio": 1.0, "solver": "liblinear", "intercept_scaling": 100.0, "tol": 1e-6}
    reference = LogisticRegression(C=1.0, class_weight="balanced", max_iter=5000, **settings).fit(X[ROWS], y[ROWS])
    assert fitted("logistic_l1", 1.0, "balanced") == pytest.approx(reference.predict_proba(X), abs=1e-2)


def test_tree_svm_and_k_sparse_are_scikit_learns_with_balanced_classes() -> None:
    X, y = scaled()
    tree = DecisionTreeClassifier(max_depth=4, random_state=0, class_weight="balanced").fit(X[ROWS], y[ROWS])
    assert fitted("tree", 4.0, "balanced") == pytest.approx(tree.predict_proba(X), abs=1e-9)
    svm = LinearSVC(C=1.0, class_weight="balanced", max_iter=5000, random_state=0).fit(X[ROWS], y[ROWS])
    odds = np.log(fitted("linear_svm", 1.0, "balanced"))
    assert odds[:, 1] - odds[:, 0] == pytest.approx(svm.decision_function(X), abs=1e-3)
    kept = SelectTop(4).fit(X[ROWS], y[ROWS])
    few = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-8, max_iter=5000)
    few.fit(kept.transform(X[ROWS]), y[ROWS])
    assert fitted("k_sparse", 4.0, "balanced") == pytest.approx(few.predict_proba(kept.transform(X)), abs=1e-4)


def test_softmax_balances_its_classes_with_and_without() -> None:
    assert fitted("softmax", 0.0, "balanced") == pytest.approx(fitted("softmax", 0.0, None), abs=1e-2)


@pytest.mark.parametrize("probe", [name for name in PROBES if name != "softmax"])
def test_the_search_scores_each_value_as_its_weighted_fit_does(probe: str) -> None:
    X, y = unbalanced()
    fold = np.where(ROWS[-1] < np.arange(300), TEST, np.arange(300) % 3)
    split = Split(0, fold)
    method = Method("m", "sae", "s", "max", probe=probe, class_weight="balanced")
    (found,) = evaluate(method, MethodMatrix(X), y, 2, [split])
    for i, value in enumerate(grid_of(probe)):
        for k, (fit, validate) in enumerate(split.inner()):
            final = fit_final(method, Labelled(X, y, 2), fit, value)
            predicted = final.probe.predict(final.prepare.transform(X[validate].astype(np.float64)))
            # A search may take a shorter way: one label in eighty moves macro F1 by so much, and a tree that is cut may
            # differ in the choice among splits that are equally good.
            near = pytest.approx(macro_f1(y[validate], predicted, 2), abs=0.06 if probe == "tree" else 0.03)
            assert found.validation[i, k] == near
