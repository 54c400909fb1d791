"""The table of workers."""

from __future__ import annotations

import pytest

from ray_jobs.run.worker_table import ASKED_AT_ONCE, WorkerTable


def busy_table(workers: int) -> WorkerTable:
    table = WorkerTable()
    for _ in range(workers):
        worker = table.add()
        table.host[worker] = "here"
        table.update(worker, [worker], full=2, now=0.0)
    return table


def test_a_worker_is_idle_with_nothing_takes_more_with_little_and_neither_with_enough() -> None:
    table = WorkerTable()
    worker = table.add()
    for held, idle, not_full in ([], True, True), ([7], False, True), ([7, 8], False, False):
        table.update(worker, held, full=2, now=1.0)
        assert (worker in table.idle, worker in table.not_full) == (idle, not_full)
    assert table.computing[worker] == (7, 1.0)


def test_a_unit_begins_when_it_comes_to_the_front_and_not_again() -> None:
    table = busy_table(1)
    table.update(0, [5, 6], full=2, now=10.0)
    table.update(0, [5], full=2, now=20.0)
    assert table.computing[0] == (5, 10.0)
    table.update(0, [6], full=2, now=30.0)
    assert table.computing[0] == (6, 30.0)


def test_everybody_is_asked_in_turn_and_nobody_twice_before_an_answer() -> None:
    table = busy_table(ASKED_AT_ONCE + 50)
    first, second = list(table.next_to_ask()), list(table.next_to_ask())
    assert len(first) == ASKED_AT_ONCE
    assert len(second) == 50
    assert set(first) | set(second) == table.started
    assert list(table.next_to_ask()) == []
    table.answered(first[0], None, now=1.0)
    assert [worker for _ in range(2) for worker in table.next_to_ask()] == [first[0]]


def test_who_says_the_same_again_has_not_moved() -> None:
    table = busy_table(1)
    table.answered(0, (0, 3, 30, 0), now=5.0)
    table.answered(0, (0, 3, 30, 0), now=9.0)
    assert table.seconds_stalled(0, now=10.0) == 5.0
    (under,) = table.under_way(now=10.0)
    assert (under.unit, under.host, under.seconds, under.documents, under.tokens) == (0, "here", 10.0, 3, 30)


def test_reading_up_to_the_first_row_is_getting_further_and_no_time_of_the_unit() -> None:
    table = busy_table(1)
    for blocks in range(1, 100):
        table.answered(0, (0, 0, 0, blocks), now=20.0 * blocks)
    assert table.seconds_stalled(0, now=2000.0) == table.seconds_computing(0, now=2000.0) == 20.0
    table.answered(0, (0, 3, 30, 0), now=2010.0)
    assert table.seconds_computing(0, now=2020.0) == 40.0
    table.update(0, [7], full=2, now=2100.0)
    assert table.seconds_computing(0, now=2101.0) == 1.0


def test_of_one_who_is_gone_nothing_is_left() -> None:
    table = busy_table(2)
    list(table.next_to_ask())
    table.remove(0)
    assert table.started == {1}
    assert [under.unit for under in table.under_way(0.0)] == [1]
    with pytest.raises(KeyError):
        table.seconds_stalled(0, now=1.0)
