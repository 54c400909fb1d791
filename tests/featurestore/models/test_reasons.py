"""Reasons add up to the score they explain, in both directions, whatever the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from featurestore.models.model import Model
from featurestore.models.reasons import reasons
from featurestore.models.scoring import decide
from tests.featurestore.models.handmade import linear_model, tree_model

ALL = 1_000


def rows(n_columns: int, seed: int = 0) -> csr_matrix:
    rng = np.random.default_rng(seed)
    return csr_matrix(rng.random((20, n_columns)) * 8 * (rng.random((20, n_columns)) < 0.5))


@pytest.mark.parametrize("scale", [None, "sqrt"])
def test_contributions_and_intercept_are_the_log_odds_of_two_classes(scale: str | None) -> None:
    rng = np.random.default_rng(1)
    model = linear_model([0, 3, 4, 11, 13], rng.normal(size=(1, 5)), {"one": 10, "two": 20}, scale=scale)
    X = rows(5)
    scores = decide(model, X)
    y_pred = scores.argmax(axis=1)
    for row, found in enumerate(reasons(model, X, y_pred, ALL)):
        odds = scores[row, y_pred[row]] - scores[row, 1 - y_pred[row]]
        intercept = 0.25 if y_pred[row] == 1 else -0.25
        assert sum(reason.contribution for reason in found) + intercept == pytest.approx(odds)
        assert {(r.sae, r.feature) for r in found} <= {("one", 0), ("one", 3), ("one", 4), ("two", 1), ("two", 3)}
        assert [abs(r.contribution) for r in found] == sorted((abs(r.contribution) for r in found), reverse=True)


def test_of_more_classes_it_is_what_a_class_gains_on_the_mean_of_all() -> None:
    model = linear_model([0, 3], np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]), {"one": 10})
    (found,) = reasons(model, csr_matrix([[2.0, 4.0]]), np.array([1]), ALL)
    assert [(r.feature, r.value, r.contribution) for r in found] == [(3, 4.0, pytest.approx(2 * (2 - 1)))]


def test_changes_along_a_trees_path_are_the_leafs_share() -> None:
    model = tree_model({"one": 10})
    X = csr_matrix([[8.0, 4.0, 1.0], [0.0, 9.0, 0.0]])
    y_pred = decide(model, X).argmax(axis=1)
    first, second = reasons(model, X, y_pred, ALL)
    assert [(r.feature, r.value) for r in first] == [(3, 8.0), (5, 4.0)]
    assert 0.5 + sum(r.contribution for r in first) == pytest.approx(0.9)
    assert [(r.feature, r.value) for r in second] == [(3, 0.0)]  # that it does not fire decides
    assert 0.5 + sum(r.contribution for r in second) == pytest.approx(0.9)


def test_k_are_named_in_each_direction_and_none_of_a_document_without_a_class() -> None:
    model = linear_model([0, 1, 2, 3], np.array([[3.0, 2.0, -1.0, -4.0]]), {"one": 10})
    X = csr_matrix(np.full((2, 4), 2.0))
    one, none = reasons(model, X, np.array([1, -1]), 1)
    assert [(r.feature, r.contribution) for r in one] == [(3, -4.0), (0, 3.0)]
    assert none == ()


def test_equal_contributions_are_in_the_order_of_their_features() -> None:
    model: Model = linear_model([5, 2, 7], np.array([[1.0, 1.0, 1.0]]), {"one": 10})
    (found,) = reasons(model, csr_matrix(np.ones((1, 3))), np.array([1]), 2)
    assert [r.feature for r in found] == [5, 2]
