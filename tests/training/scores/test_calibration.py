"""Calibrators are scikit-learn's, applied as it applies them, and kept only where they help."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from featurestore.models.calibration import calibrated
from featurestore.models.decision_checks import CALIBRATIONS, calibration_problem
from featurestore.models.scoring import log_proba
from featurestore.models.thresholds import class_log_odds
from training.scores.calibration import choose_calibration, fit_calibration, log_loss


def problem(n_classes: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    dice = np.random.default_rng(0)
    y = dice.integers(0, n_classes, n)
    X = dice.normal(size=(n, 4)) + 0.8 * np.column_stack([y, y == 1, np.zeros(n), np.zeros(n)])
    new = dice.normal(size=(60, 4)) + 0.5
    return X, y, new, list(StratifiedKFold(4, shuffle=True, random_state=0).split(X, y))


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_two_classes_are_calibrated_as_by_calibrated_classifier_cv_on_out_of_fold_scores(method: str) -> None:
    X, y, new, folds = problem(2)
    model = LogisticRegression(C=100.0)
    reference = CalibratedClassifierCV(model, method=method, cv=folds, ensemble=False).fit(X, y)
    out_of_fold = log_proba(cross_val_predict(model, X, y, cv=folds, method="decision_function"))
    raw = log_proba(model.fit(X, y).decision_function(new))
    ours = np.exp(calibrated(method, fit_calibration(method, out_of_fold, y), raw))
    # A temperature is where a search along a line stops; the other calibrators come out the same to rounding.
    tolerance = 1e-6 if method == "temperature" else 1e-9
    assert ours == pytest.approx(reference.predict_proba(new), abs=tolerance)


def test_temperature_of_three_classes_is_that_of_calibrated_classifier_cv() -> None:
    X, y, new, folds = problem(3)
    model = LogisticRegression(C=100.0)
    reference = CalibratedClassifierCV(model, method="temperature", cv=folds, ensemble=False).fit(X, y)
    out_of_fold = log_proba(cross_val_predict(model, X, y, cv=folds, method="decision_function"))
    raw = log_proba(model.fit(X, y).decision_function(new))
    ours = np.exp(calibrated("temperature", fit_calibration("temperature", out_of_fold, y), raw))
    assert ours == pytest.approx(reference.predict_proba(new), abs=1e-6)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_several_classes_are_calibrated_one_against_the_others_and_normalised(method: str) -> None:
    X, y, new, _ = problem(3)
    scores = log_proba(LogisticRegression().fit(X, y).decision_function(np.vstack([X, new])))
    ours = np.exp(calibrated(method, fit_calibration(method, scores[: len(y)], y), scores[len(y) :]))
    alone = []
    for c in range(3):  # each class for itself, as if there were two
        pair = [log_proba(class_log_odds(part, c)) for part in (scores[: len(y)], scores[len(y) :])]
        alone.append(np.exp(calibrated(method, fit_calibration(method, pair[0], (y == c).astype(int)), pair[1]))[:, 1])
    expected = np.stack(alone, axis=1)
    assert ours == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-9)


def test_scores_that_are_sure_of_too_much_are_calibrated_and_good_ones_left_alone() -> None:
    dice = np.random.default_rng(1)
    z = dice.normal(scale=1.5, size=2000)
    y, fold = (dice.random(2000) < expit(z)).astype(int), np.arange(2000) % 5
    assert choose_calibration(log_proba(z), y, fold, True).method is None
    bold = choose_calibration(log_proba(4 * z), y, fold, True)
    assert bold.method is not None
    assert bold.log_loss[bold.method] < bold.log_loss["none"]
    after = calibrated(bold.method, bold.arrays, log_proba(4 * z))
    assert np.abs(np.exp(after[:, 1]) - expit(z)).mean() < 0.03


def test_margins_are_always_calibrated() -> None:
    dice = np.random.default_rng(2)
    z = dice.normal(scale=1.5, size=500)
    y = (dice.random(500) < expit(z)).astype(int)
    assert choose_calibration(log_proba(z), y, np.arange(500) % 5, False).method is not None


def test_a_fold_is_judged_by_what_the_others_taught() -> None:
    dice = np.random.default_rng(3)
    z = dice.normal(size=60)
    y, fold = (dice.random(60) < expit(z)).astype(int), np.arange(60) % 3
    expected = np.empty(60)
    for k in range(3):
        arrays = fit_calibration("sigmoid", log_proba(z[fold != k]), y[fold != k])
        expected[fold == k] = log_loss(calibrated("sigmoid", arrays, log_proba(z[fold == k])), y[fold == k])
    assert choose_calibration(log_proba(z), y, fold, True).log_loss["sigmoid"] == pytest.approx(expected.mean())


def test_log_loss_is_scikit_learns() -> None:
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    y = np.array([0, 1, 1])
    with np.errstate(divide="ignore"):
        assert log_loss(np.log(proba), y).mean() == pytest.approx(reference_log_loss(y, proba))


def test_probabilities_of_zero_are_calibrated_too() -> None:
    dice = np.random.default_rng(4)
    proba = np.round(dice.random(200) * 2) / 2  # leaves of a tree: 0, a half, 1
    y = (dice.random(200) < 0.1 + 0.8 * proba).astype(int)
    with np.errstate(divide="ignore"):
        scores = np.log(np.column_stack([1 - proba, proba]))
    for method in CALIBRATIONS:
        out = np.exp(calibrated(method, fit_calibration(method, scores, y), scores))
        assert np.isfinite(out).all()
        assert out.sum(axis=1) == pytest.approx(np.ones(200))
    assert choose_calibration(scores, y, np.arange(200) % 4, True).method is not None


def test_where_no_fold_can_be_judged_nothing_is_calibrated() -> None:
    scores = log_proba(np.array([1.0, -1.0]))
    assert choose_calibration(scores, np.array([0, 1]), np.array([0, 1]), True).method is None


@pytest.mark.parametrize("method", CALIBRATIONS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_is_fitted_is_what_a_model_file_may_hold(method: str, n_classes: int) -> None:
    X, y, _, _ = problem(n_classes)
    arrays = fit_calibration(method, log_proba(LogisticRegression().fit(X, y).decision_function(X)), y)
    header = {"classes": ["a", "b", "c"][:n_classes], "calibration": {"method": method}}
    assert calibration_problem(header, arrays) is None
    name = next(iter(arrays))
    assert calibration_problem(header, {key: a for key, a in arrays.items() if key != name}) is not None
    assert calibration_problem(header, arrays | {name: arrays[name][:0]}) is not None


@pytest.mark.parametrize("calibration", [3, {}, {"method": "magic"}, {"method": 3}])
def test_a_calibration_that_is_none_is_found(calibration: object) -> None:
    assert calibration_problem({"classes": ["a", "b"], "calibration": calibration}, {}) is not None
    assert calibration_problem({"classes": ["a", "b"]}, {}) is None
    assert calibration_problem({"classes": ["a", "b"], "calibration": {"method": None}}, {}) is None


def test_shares_that_are_no_probabilities_are_found() -> None:
    arrays = {
        "calibration_score": np.array([0.0, 1.0]),
        "calibration_share": np.array([0.0, 1.5]),
        "calibration_start": np.array([0, 2]),
    }
    header = {"classes": ["a", "b"], "calibration": {"method": "isotonic"}}
    assert calibration_problem(header, arrays) == "a calibrated share is no probability"
