"""Speed is that of the last minute, and is unknown until something can be measured."""

from __future__ import annotations

import pytest

from ray_jobs.reporting.rate import RateWindow


def test_speed_is_that_of_the_last_minute() -> None:
    rate = RateWindow()
    tokens = 0
    for second in range(200):
        tokens += 10 if second < 100 else 1000
        rate.add(float(second), tokens)
    assert rate.tokens_per_second == pytest.approx(1000)


def test_nothing_is_measured_before_something_has_moved() -> None:
    rate = RateWindow()
    assert rate.tokens_per_second is None
    for second in range(5):
        rate.add(float(second), 0)
        assert rate.tokens_per_second is None
    rate.add(5.0, 500)
    assert rate.tokens_per_second == pytest.approx(100)
