"""The account of the workers."""

from __future__ import annotations

import pytest

from ray_jobs.run.worker_table import ASKED_AT_ONCE, Staff


def busy_staff(workers: int) -> Staff:
    staff = Staff()
    for _ in range(workers):
        worker = staff.hire()
        staff.place[worker] = "here"
        staff.look_at(worker, [worker], full=2, now=0.0)
    return staff


def test_a_worker_is_idle_with_nothing_hungry_with_little_and_neither_with_enough() -> None:
    staff = Staff()
    worker = staff.hire()
    for held, idle, hungry in ([], True, True), ([7], False, True), ([7, 8], False, False):
        staff.look_at(worker, held, full=2, now=1.0)
        assert (worker in staff.idle, worker in staff.hungry) == (idle, hungry)
    assert staff.begun[worker] == (7, 1.0)


def test_a_unit_begins_when_it_comes_to_the_front_and_not_again() -> None:
    staff = busy_staff(1)
    staff.look_at(0, [5, 6], full=2, now=10.0)
    staff.look_at(0, [5], full=2, now=20.0)
    assert staff.begun[0] == (5, 10.0)
    staff.look_at(0, [6], full=2, now=30.0)
    assert staff.begun[0] == (6, 30.0)


def test_everybody_is_asked_in_turn_and_nobody_twice_before_an_answer() -> None:
    staff = busy_staff(ASKED_AT_ONCE + 50)
    first, second = list(staff.to_ask()), list(staff.to_ask())
    assert len(first) == ASKED_AT_ONCE
    assert len(second) == 50
    assert set(first) | set(second) == staff.all
    assert list(staff.to_ask()) == []
    staff.answered(first[0], None, now=1.0)
    assert [worker for _ in range(2) for worker in staff.to_ask()] == [first[0]]


def test_who_says_the_same_again_has_not_moved() -> None:
    staff = busy_staff(1)
    staff.answered(0, (0, 3, 30), now=5.0)
    staff.answered(0, (0, 3, 30), now=9.0)
    assert staff.still(0, now=10.0) == 5.0
    assert staff.part_done(lambda _: (0,)) == (3, 30)
    (under,) = staff.under_way(now=10.0)
    assert (under.unit, under.host, under.seconds, under.documents, under.tokens) == (0, "here", 10.0, 3, 30)


def test_of_one_who_is_gone_nothing_is_left() -> None:
    staff = busy_staff(2)
    list(staff.to_ask())
    staff.forget(0)
    assert staff.all == {1}
    assert [under.unit for under in staff.under_way(0.0)] == [1]
    with pytest.raises(KeyError):
        staff.still(0, now=1.0)
