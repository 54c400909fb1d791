"""Metrics are those of scikit-learn, also with ties and where they are undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from training.scores.metrics import Prediction, accuracy, auroc, macro_f1


def draw(n: int, n_classes: int, seed: int, skill: float = 1.0, ties: bool = False) -> Prediction:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    scores = rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[y]
    scores = np.round(scores) if ties else scores
    return Prediction(np.arange(n), y, np.argmax(scores, axis=1), log_softmax(scores, axis=1))


@settings(max_examples=60)
@given(n=st.integers(1, 60), n_classes=st.integers(2, 5), seed=st.integers(0, 10**6), skill=st.floats(-1, 3))
def test_macro_f1_and_accuracy_equal_scikit_learn(n: int, n_classes: int, seed: int, skill: float) -> None:
    p = draw(n, n_classes, seed, skill)
    assert macro_f1(p.y_true, p.y_pred, n_classes) == pytest.approx(f1_score(p.y_true, p.y_pred, average="macro"))
    assert accuracy(p.y_true, p.y_pred) == pytest.approx(accuracy_score(p.y_true, p.y_pred))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_auroc_equals_scikit_learn_also_with_ties(n_classes: int, ties: bool) -> None:
    p = draw(120, n_classes, 3, ties=ties)
    score = np.exp(p.log_proba)
    expected = roc_auc_score(p.y_true, score[:, 1] if n_classes == 2 else score, multi_class="ovr")
    value, undefined = auroc(p.y_true, p.log_proba)
    assert value == pytest.approx(expected)
    assert undefined is None


def test_auroc_is_undefined_with_a_reason_when_a_class_is_absent() -> None:
    p = draw(50, 3, 0)
    value, reason = auroc(np.minimum(p.y_true, 1), p.log_proba)
    assert math.isnan(value)
    assert reason == "1 of 3 classes have no test document"
