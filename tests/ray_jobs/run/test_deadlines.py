"""Expected durations follow the latest units; deadlines are measured in them."""

from __future__ import annotations

import pytest

from ray_jobs.run.deadlines import DEADLINE_FACTOR, DEADLINE_SECONDS, LATEST_UNITS, STALL_SECONDS, UnitDurations


def test_nothing_is_late_before_anything_is_known() -> None:
    durations = UnitDurations()
    assert durations.expected(100) is None
    assert not durations.is_overdue(100, 1e9)
    assert durations.missed(100, elapsed=STALL_SECONDS - 1, stalled=STALL_SECONDS - 1) is None


def test_a_unit_with_twice_the_tokens_may_take_twice_as_long() -> None:
    durations = UnitDurations()
    durations.add(100, 50)
    durations.add(300, 150)
    assert durations.expected(200) == pytest.approx(100)
    assert not durations.is_overdue(200, 149)
    assert durations.is_overdue(200, 151)


def test_only_the_latest_units_count() -> None:
    durations = UnitDurations()
    durations.add(1, 1000)
    for _ in range(LATEST_UNITS):
        durations.add(1, 2)
    assert durations.expected(1) == pytest.approx(2)


def test_a_deadline_is_many_times_the_expected_duration_and_never_short() -> None:
    durations = UnitDurations()
    durations.add(100, 100)
    assert durations.missed(1, elapsed=DEADLINE_SECONDS - 1, stalled=0) is None
    assert durations.missed(100, elapsed=100 * DEADLINE_FACTOR - 1, stalled=0) is None
    assert "times as long as others" in str(durations.missed(100, elapsed=100 * DEADLINE_FACTOR + 1, stalled=0))


def test_a_unit_that_gets_no_further_is_given_up_whatever_its_size() -> None:
    assert "no further" in str(UnitDurations().missed(1e12, elapsed=STALL_SECONDS + 1, stalled=STALL_SECONDS + 1))
