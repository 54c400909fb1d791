"""Who has which unit: nothing is lost, and nothing is handed out twice unless that was asked for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.run.unit_queue import UnitQueue


def test_units_are_handed_out_in_order_and_once() -> None:
    queue = UnitQueue([4, 5, 6])
    assert [queue.take(0), queue.take(1), queue.take(0), queue.take(1)] == [4, 5, 6, None]
    assert queue.held_by(0) == (4, 6)
    assert (queue.open, queue.waiting) == (3, 0)


def test_a_unit_goes_to_the_front_or_to_the_end_as_it_is_told() -> None:
    queue = UnitQueue(range(4))
    for put in (queue.put_last, queue.put_first):
        unit = queue.take(7)
        assert unit is not None
        queue.release(7, unit)
        put(unit)
    assert [queue.take(8) for _ in range(4)] == [1, 2, 3, 0]


def test_a_unit_that_is_put_off_waits_its_time_and_then_for_another_host() -> None:
    queue = UnitQueue([0, 1, 2])
    assert queue.take(7, now=0.0, host="a") == 0
    queue.release(7, 0)
    queue.put_later(0, not_before=5.0, avoid="a")
    assert queue.waiting == 3
    assert queue.take(7, now=4.0, host="a") == 1
    assert queue.take(7, now=6.0, host="a") == 2
    assert queue.take(7, now=6.0, host="a") == 0, "there is nothing else"


def test_of_two_workers_with_one_unit_the_first_to_commit_wins() -> None:
    queue = UnitQueue([0])
    queue.take(1)
    queue.take_again(2, 0)
    assert queue.holders(0) == (1, 2)
    assert queue.commit(2, 0)
    assert (queue.open, queue.is_settled(0), queue.handed_out) == (0, True, set())
    assert not queue.commit(1, 0)
    assert (queue.open, queue.holders(0), queue.done) == (0, (), {0})


@settings(max_examples=60)
@given(
    n_units=st.integers(0, 8),
    events=st.lists(st.tuples(st.sampled_from(["take", "commit", "again", "fail"]), st.integers(0, 2)), max_size=60),
)
def test_whatever_happens_every_unit_is_in_exactly_one_place(n_units: int, events: list[tuple[str, int]]) -> None:
    queue = UnitQueue(range(n_units))
    for event, worker in events:
        held = queue.held_by(worker)
        if event == "take":
            queue.take(worker)
        elif held and event == "commit":
            queue.commit(worker, held[0])
        elif held:
            queue.release(worker, held[0])
            if event == "again":
                queue.put_last(held[0])
            else:
                queue.failed[held[0]] = "raised"
        assert queue.open == n_units - len(queue.done) - len(queue.failed)
    in_flight = [unit for worker in range(3) for unit in queue.held_by(worker)]
    waiting = [queue.take(99) for _ in range(queue.waiting)]
    assert sorted([*in_flight, *waiting, *queue.done, *queue.failed]) == list(range(n_units))
