"""Thresholds of a model file decide by the log-odds of one class; others are decided as before."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, logit

from featurestore.models.decision_checks import threshold_problem
from featurestore.models.thresholds import class_log_odds, decisions, unreached


def rows(n: int = 50, n_classes: int = 3) -> np.ndarray:
    return np.asarray(log_softmax(np.random.default_rng(0).normal(size=(n, n_classes)), axis=1))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_score_of_a_class_is_the_log_of_its_odds(n_classes: int) -> None:
    log_proba = rows(n_classes=n_classes)
    for c in range(n_classes):
        assert class_log_odds(log_proba, c) == pytest.approx(logit(np.exp(log_proba[:, c])))


def test_far_from_the_boundary_scores_do_not_tie() -> None:
    z = np.array([100.0, 200.0])
    log_proba = np.column_stack([-np.logaddexp(0.0, z), -np.logaddexp(0.0, -z)])
    assert class_log_odds(log_proba, 1) == pytest.approx(z)


def test_a_leaf_of_one_class_has_a_finite_score_and_an_unknown_one_none() -> None:
    log_proba = np.array([[-np.inf, 0.0], [0.0, -np.inf], [np.nan, np.nan]])
    assert class_log_odds(log_proba, 1).tolist()[:2] == [36.0, -36.0]
    assert np.isnan(class_log_odds(log_proba, 1)[2])


def test_a_class_is_claimed_handed_on_or_left_to_the_likeliest_other() -> None:
    log_proba = np.log([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3], [0.45, 0.05, 0.5]])
    header = {"classes": ["a", "b", "c"], "operating_point": {"class": "c", "low": 0.0, "high": 0.5}}
    # Log-odds of c: .85, -.41, -.85 and 0.
    assert decisions(header, log_proba).tolist() == [2, 0, 1, -1]
    assert decisions({"classes": ["a", "b", "c"]}, log_proba).tolist() == [2, 2, 1, 2]


@pytest.mark.parametrize(
    "point",
    [
        3,
        {},
        {"class": "x", "low": 0.0, "high": 0.0},
        {"class": "a", "low": 0.0},
        {"class": "a", "low": 1.0, "high": 0.0},
        {"class": "a", "low": float("nan"), "high": 0.0},
        {"class": "a", "low": "0", "high": 0.0},
    ],
)
def test_thresholds_that_are_none_are_found(point: object) -> None:
    assert threshold_problem({"classes": ["a", "b"], "operating_point": point}) is not None
    assert threshold_problem({"classes": ["a", "b"], "operating_point": None}) is None
    assert (
        threshold_problem({"classes": ["a", "b"], "operating_point": {"class": "a", "low": 0.0, "high": 1.0}}) is None
    )


def test_an_aim_that_was_missed_is_said_with_what_cannot_be_seen_spelled_out() -> None:
    point = {"class": "a", "low": 0.0, "high": 1.0, "reached": False, "note": "precision 1 of 'a\u202e' is not reached"}
    said = unreached({"classes": ["a"], "operating_point": point})
    assert said == "the model's operating point: precision 1 of 'a\\u202e' is not reached"
    assert unreached({"operating_point": point | {"reached": True}}) is None
    assert unreached({}) is None
    for wrong in ({"reached": 3}, {"note": ["x"]}):
        assert threshold_problem({"classes": ["a"], "operating_point": point | wrong}) is not None


def test_an_aim_reached_on_few_documents_and_a_threshold_that_claimed_none_are_said() -> None:
    point = {"reached": True, "note": "", "few": "on 1", "test": {"precision": {"documents": 0}}}
    said = "the model's operating point: on 1; it claimed no test document, so its precision is not known"
    assert unreached({"operating_point": point}) == said
    assert unreached({"operating_point": point | {"few": "", "test": {"precision": {"documents": 3}}}}) is None
    assert unreached({"operating_point": {"test": "edited by hand"}}) is None


def test_a_class_that_reads_like_what_people_decide_goes_without_thresholds_only() -> None:
    classes = ["against", "favor", "undecided"]
    point = {"class": "favor", "low": 0.0, "high": 1.0}
    said = threshold_problem({"classes": classes, "operating_point": point})
    assert said is not None and said.startswith("a class is called 'undecided', which with its operating point")
    assert threshold_problem({"classes": classes, "operating_point": None}) is None
