"""Paired tests: sizes are right under no difference, corrections are Holm's, metrics are scikit-learn's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from training.scores.bootstrap import bootstrap, interval
from training.scores.metrics import Prediction, auprc, calibration, class_f1, macro_f1
from training.scores.significance import compare, corrected, holm, p_value


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.2]) == pytest.approx(
        [0.04, 0.09, 0.09, float("nan"), 0.2], nan_ok=True
    )


def test_a_difference_is_shown_only_after_correction() -> None:
    replicates = np.random.default_rng(0).normal(0.1, 0.05, 1000)  # z = 2: p = .046 alone
    alone = corrected([compare("q", "a", "b", 0.1, replicates)])
    among_many = corrected([compare("q", "a", "b", 0.1, replicates)] * 3)
    assert [c.shown for c in alone] == [True]
    assert [c.shown for c in among_many] == [False] * 3


def test_an_interval_leaves_out_zero_exactly_where_a_difference_is_shown() -> None:
    """Whatever the number of comparisons and the order of their p-values."""
    rng = np.random.default_rng(1)
    shown = set()
    for _ in range(200):
        values = rng.normal(0, 0.05, rng.integers(1, 15))
        replicates = [rng.normal(value, 0.02, 200) for value in values]
        for c in corrected([compare("q", "a", "b", v, r) for v, r in zip(values, replicates, strict=True)]):
            assert (c.difference.low > 0 or c.difference.high < 0) == c.shown
            alone = compare("q", "a", "b", c.difference.value, replicates[values.tolist().index(c.difference.value)])
            assert c.difference.high - c.difference.low >= alone.difference.high - alone.difference.low - 1e-12
            shown.add(c.shown)
    assert shown == {True, False}


def test_the_interval_of_a_single_comparison_is_that_of_a_normal() -> None:
    replicates = np.random.default_rng(0).normal(0.1, 0.05, 1000)
    (alone,) = corrected([compare("q", "a", "b", 0.1, replicates)])
    half = 1.959964 * replicates.std(ddof=1)
    assert (alone.difference.low, alone.difference.high) == pytest.approx((0.1 - half, 0.1 + half))
    (undefined,) = corrected([compare("q", "a", "b", 0.1, np.array([np.nan]))])
    assert np.isnan(undefined.difference.low)
    assert not undefined.shown


def test_methods_that_predict_the_same_do_not_differ() -> None:
    assert p_value(0.0, np.zeros(100)) == 1.0
    assert np.isnan(p_value(float("nan"), np.zeros(100)))


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    for n_classes in (2, 4):
        y, score = rng.integers(0, n_classes, 300), rng.normal(size=(300, n_classes))
        score -= np.log(np.exp(score).sum(axis=1, keepdims=True))
        y_pred = np.argmax(score, axis=1)
        one_hot = np.eye(n_classes)[y]
        expected = average_precision_score(one_hot, score) if n_classes > 2 else average_precision_score(y, score[:, 1])
        assert auprc(y, score) == pytest.approx(expected)
        brier, ece = calibration(y, y_pred, score)
        assert brier == pytest.approx(((np.exp(score) - one_hot) ** 2).sum(axis=1).mean() / 2)
        if n_classes == 2:
            assert brier == pytest.approx(brier_score_loss(y, np.exp(score[:, 1])))
        edges = np.linspace(0, 1, 11)
        confidence = np.exp(score).max(axis=1)
        by_hand = 0.0
        for low, high in pairwise(edges):
            here = (confidence >= low) & (confidence < high)
            if here.any():
                by_hand += here.mean() * abs((y == y_pred)[here].mean() - confidence[here].mean())
        assert ece == pytest.approx(by_hand)
        assert class_f1(y, y_pred, n_classes) == pytest.approx(f1_score(y, y_pred, average=None))


def test_intervals_and_tests_hold_what_they_promise_where_the_truth_is_known() -> None:
    """100 draws from a known population: 95 % intervals cover about 95 times, and p < .05 about 5 times."""
    covered = false_alarms = 0
    truth = _population_f1()
    for run in range(100):
        rng = np.random.default_rng(run)
        y = rng.integers(0, 2, 400)
        a, b = (np.where(rng.random(400) < 0.8, y, 1 - y) for _ in range(2))  # two methods, equally good
        zero = np.zeros((400, 2))
        predictions = [[Prediction(np.arange(400), y, answer, zero)] for answer in (a, b)]
        drawn = bootstrap(predictions, 2, 400, None, 400)[:, 0]
        values = [macro_f1(y, answer, 2) for answer in (a, b)]
        found = interval(values[0], drawn[0])
        covered += found.low <= truth <= found.high
        false_alarms += p_value(values[0] - values[1], drawn[0] - drawn[1]) < 0.05
    # Binomial with 100 draws: three standard deviations are 6.5.
    assert 89 <= covered <= 100
    assert false_alarms <= 11


def test_an_interval_equals_a_plain_bootstrap_of_scikit_learns_f1() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 200)
    y_pred = np.where(rng.random(200) < 0.7, y, rng.integers(0, 3, 200))
    prediction = Prediction(np.arange(200), y, y_pred, np.zeros((200, 3)))
    ours = interval(0.0, bootstrap([[prediction]], 3, 200, None, 2000)[0, 0])
    draws = [rng.integers(0, 200, 200) for _ in range(2000)]
    plain = [f1_score(y[d], y_pred[d], average="macro") for d in draws[:600]]
    low, high = np.quantile(plain, [0.025, 0.975])
    # Two random draws of 600 and 2,000 replicates: quantiles wobble by a tenth of the interval's half width.
    assert ours.low == pytest.approx(low, abs=0.012)
    assert ours.high == pytest.approx(high, abs=0.012)


def _population_f1() -> float:
    """Macro F1 of a method right with probability .8 on balanced classes: 2 * .4 / (.5 + .5)."""
    return 0.8
