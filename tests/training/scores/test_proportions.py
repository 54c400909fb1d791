"""Intervals of shares: Wilson's for independent documents, wider where documents say less than their number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, t

from training.scores.proportions import proportion
from training.scores.wilson import wilson


@pytest.mark.parametrize(("hits", "n"), [(8, 10), (49, 50), (1, 7), (300, 1000)])
def test_wilsons_bounds_are_the_shares_that_a_score_test_just_accepts(hits: int, n: int) -> None:
    share, z = hits / n, norm.ppf(0.975)

    def excess(p: float) -> float:
        return (share - p) ** 2 - z**2 * p * (1 - p) / n

    found = proportion(np.arange(n) < hits, np.arange(n))
    assert found.interval.low == pytest.approx(brentq(excess, 1e-9, share), abs=1e-9)
    assert found.interval.high == pytest.approx(brentq(excess, share, 1 - 1e-9), abs=1e-9)
    assert (found.hits, found.n, found.units, found.method) == (hits, n, n, "Wilson")


def test_documents_that_stand_there_three_times_say_no_more_than_once() -> None:
    once = np.random.default_rng(0).random(60) < 0.7
    units = np.tile(np.arange(60), 3)
    found = proportion(np.tile(once, 3), units)
    # The linearised variance between 60 units has 59 in its denominator, and Student's quantile as many degrees.
    low, high = wilson(once.mean() * 59, 59, float(t.ppf(0.975, 59)))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert found.units == 60
    assert found.method == "Wilson, clustered"


def test_groups_whose_documents_are_alike_widen_the_interval() -> None:
    hit = np.repeat(np.random.default_rng(1).random(40) < 0.6, 5)
    alike, single = proportion(hit, np.repeat(np.arange(40), 5)), proportion(hit, np.arange(200))
    assert alike.interval.value == single.interval.value
    assert alike.interval.high - alike.interval.low > 1.8 * (single.interval.high - single.interval.low)


def test_groups_never_narrow_it() -> None:
    hit = np.tile([True, False], 50)  # every group holds one of either: less spread than chance has
    paired, single = proportion(hit, np.repeat(np.arange(50), 2)), proportion(hit, np.arange(100))
    assert paired.interval.low <= single.interval.low
    assert paired.interval.high >= single.interval.high


def test_without_a_miss_grouped_documents_count_as_groups() -> None:
    found = proportion(np.ones(100, bool), np.repeat(np.arange(10), 10))
    low, _ = wilson(10, 10, float(t.ppf(0.975, 9)))
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), 1.0)


def test_no_document_gives_no_share() -> None:
    found = proportion(np.zeros(0, bool), np.zeros(0, np.int64))
    assert np.isnan([found.interval.value, found.interval.low, found.interval.high]).all()
    assert found.method == "none"


def test_a_single_group_says_next_to_nothing() -> None:
    found = proportion(np.arange(20) < 15, np.zeros(20, np.int64))
    assert found.interval.low < 0.1
    assert found.interval.high > 0.9


def test_neither_order_nor_numbers_of_groups_matter() -> None:
    dice = np.random.default_rng(2)
    hit, unit = dice.random(90) < 0.8, dice.integers(0, 30, 90)
    order = dice.permutation(90)
    assert proportion(hit, unit) == proportion(hit[order], 1000 - unit[order])
