"""The state of a run: its accounts agree whatever happens, and a unit has a finite number of lives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.writing.writer import PartRecord
from ray_jobs.planning.units import Unit
from ray_jobs.reporting.rate import JobSize
from ray_jobs.run.failure_policy import MAX_DEATHS, MAX_ERRORS, Where, what_follows
from ray_jobs.run.state import RunState
from ray_jobs.workers.failures import Failure, Kind
from ray_jobs.workers.worker import Report

ROWS = 8


def state_of(n_units: int, n_workers: int) -> RunState:
    state = RunState([Unit(i, i * ROWS, (i + 1) * ROWS, ()) for i in range(n_units)], JobSize(n_units * ROWS, 0, 10.0))
    for _ in range(n_workers):
        state.worker_opened(state.add_worker(), "host", 0.0)
    return state


def fail(state: RunState, worker: int, kind: Kind, where: Where = Where.UNIT) -> int | None:
    """What a worker is at fails, with the consequence that the policy names."""
    unit = state.workers.computing.get(worker, (-1, 0.0))[0]
    failure = Failure(kind, "why")
    action = what_follows(kind, state.attempts(unit), state.where(worker, where, kind))
    return state.apply(action, failure, worker, unit, 0.0)


def report(unit: int) -> Report:
    return Report(PartRecord(unit, ROWS, 0, 100, 1000, "ab"), 1.0)


def test_a_lost_workers_units_are_next_in_line_in_their_order() -> None:
    state = state_of(5, 2)
    assert state.give_units(0, 0.0) == [0, 1]
    fail(state, 0, Kind.LOST)
    assert state.workers.started == {1}
    assert state.give_units(1, 0.0) == [0, 1]


def test_only_the_unit_that_was_being_computed_is_charged_for_a_death() -> None:
    state = state_of(9, MAX_DEATHS + 1)
    for worker in range(MAX_DEATHS):
        assert not state.queue.failed
        assert state.give_units(worker, 0.0) == [0, 1]
        fail(state, worker, Kind.LOST)
    assert state.queue.failed == {0: "its worker died 3 times"}
    assert 0 in state.searches and not state.given_up
    assert state.attempts(1).deaths == 0


def test_a_unit_that_raises_goes_last_and_is_searched_the_second_time() -> None:
    state = state_of(2, 1)
    assert MAX_ERRORS == 2
    assert state.give_units(0, 0.0) == [0, 1]
    fail(state, 0, Kind.UNIT)
    assert state.queue.held_by(0) == (1,)
    assert not state.queue.failed
    state.committed(0, 1, report(1), 0.0)
    assert state.give_units(0, 0.0) == [0]
    fail(state, 0, Kind.UNIT)
    assert state.queue.failed == {0: "why"}
    assert (state.open, 0 in state.searches) == (1, True)


def test_losing_an_idle_worker_changes_nothing() -> None:
    state = state_of(1, 1)
    fail(state, 0, Kind.LOST)
    assert (state.open, state.queue.failed) == (1, {})


def test_a_unit_that_was_searched_in_vain_has_one_life_left() -> None:
    state = state_of(1, 1)
    for _ in range(MAX_ERRORS):
        assert state.give_units(0, 0.0) == [0]
        fail(state, 0, Kind.UNIT)
    while (tried := state.next_range(0)) is not None:
        state.give_range(0, tried.unit, 0.0)
        found = state.range_passed(0, 0.0)
    assert found == 0
    assert state.give_units(0, 0.0) == [0]
    fail(state, 0, Kind.UNIT)
    assert state.given_up == {0: "why"}


def test_a_unit_that_another_worker_still_does_is_not_put_back() -> None:
    state = state_of(1, 2)
    state.give_units(0, 0.0)
    state.give_again(1, 0, 0.0)
    fail(state, 0, Kind.UNIT)
    assert (state.queue.waiting, state.attempts(0).errors) == (0, 0)
    fail(state, 1, Kind.UNIT)
    assert (state.queue.waiting, state.attempts(0).errors) == (1, 1)


def test_speed_counts_what_is_under_way_and_begins_with_the_first_worker() -> None:
    state = state_of(2, 0)
    assert state.snapshot(0.0, 1, None).tokens_per_second is None
    state.worker_opened(state.add_worker(), "host", 50.0)
    state.give_units(0, 50.0)
    assert state.snapshot(50.0, 1, None).tokens_per_second is None
    state.worker_answered(0, (0, 5, 50, 0), 60.0)
    assert state.snapshot(60.0, 1, None).tokens_per_second == 5.0
    state.committed(0, 0, report(0), 70.0)
    now = state.snapshot(70.0, 1, None)
    assert (now.tokens_per_second, now.documents, now.units_done, now.workers) == (5.0, ROWS, 1, 1)


def test_documents_that_are_only_tried_are_no_progress() -> None:
    state = state_of(1, 1)
    for _ in range(MAX_ERRORS):
        state.give_units(0, 0.0)
        fail(state, 0, Kind.UNIT)
    state.give_range(0, 0, 0.0)
    state.worker_answered(0, (0, 4, 40, 0), 1.0)
    assert [(unit.documents, unit.tokens) for unit in state.snapshot(2.0, 1, None).under_way] == [(0, 0)]


@settings(max_examples=80)
@given(
    n_units=st.integers(0, 6),
    events=st.lists(
        st.tuples(st.sampled_from(["give", "commit", "abandon", "pass", *Kind]), st.integers(0, 2)), max_size=60
    ),
)
def test_whatever_happens_every_unit_is_in_exactly_one_place(
    n_units: int, events: list[tuple[str | Kind, int]]
) -> None:
    state = state_of(n_units, 3)
    serial = [0, 1, 2]
    for event, slot in events:
        worker = serial[slot]
        held, searching = state.queue.held_by(worker), worker in state.workers.searching
        if event == "give" and not searching:
            if (tried := state.next_range(worker)) is not None:
                state.give_range(worker, tried.unit, 0.0)
            else:
                state.give_units(worker, 0.0)
        elif event == "pass" and searching:
            state.range_passed(worker, 0.0)
        elif event in ("commit", "abandon") and held:
            state.committed(worker, held[0], report(held[0]) if event == "commit" else None, 0.0)
        elif isinstance(event, Kind) and event is not Kind.JOB and (held or searching):
            fail(state, worker, event, Where.RANGE if searching else Where.UNIT)
            if worker not in state.workers.started:
                serial[slot] = state.add_worker()
                state.worker_opened(serial[slot], "host", 0.0)
        queue = state.queue
        assert queue.open == n_units - len(queue.done) - len(queue.failed)
        assert state.given_up.keys() == {unit for unit in queue.failed if unit not in state.searches}
        for each in serial:
            computing = state.workers.computing.get(each, (None,))[0]
            doing = state.workers.searching.get(each, next(iter(queue.held_by(each)), None))
            assert computing == doing
            assert (each in state.workers.idle) == (doing is None)
    in_flight = [unit for worker in serial for unit in state.queue.held_by(worker)]
    waiting = [state.queue.take(99, now=1e9) for _ in range(state.queue.waiting)]
    assert sorted([*in_flight, *waiting, *state.queue.done, *state.queue.failed]) == list(range(n_units))
