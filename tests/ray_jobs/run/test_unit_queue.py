"""Who has which unit: nothing is lost, nothing is handed out twice, and a unit has a finite number of lives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.run.unit_queue import MAX_DEATHS, MAX_ERRORS, Ledger


def test_units_are_handed_out_in_order_and_once() -> None:
    ledger: Ledger[str] = Ledger([4, 5, 6])
    assert [ledger.take("a"), ledger.take("b"), ledger.take("a"), ledger.take("b")] == [4, 5, 6, None]
    assert ledger.held_by("a") == (4, 6)
    assert (ledger.open, ledger.waiting) == (3, 0)


def test_a_lost_workers_units_are_next_in_line_in_their_order() -> None:
    ledger: Ledger[str] = Ledger(range(5))
    for _ in range(2):
        ledger.take("a")
    ledger.lost("a")
    assert [ledger.take("b") for _ in range(5)] == [0, 1, 2, 3, 4]


def test_only_the_unit_that_was_being_computed_is_charged_for_a_death() -> None:
    ledger: Ledger[int] = Ledger([0, 1])
    for worker in range(MAX_DEATHS):
        assert not ledger.failed
        assert (ledger.take(worker), ledger.take(worker)) == (0, 1)
        ledger.lost(worker)
    assert list(ledger.failed) == [0]
    assert "died 3 times" in ledger.failed[0]
    assert ledger.take(99) == 1


def test_a_unit_that_raises_goes_last_and_fails_the_second_time() -> None:
    ledger: Ledger[str] = Ledger([0, 1])
    assert MAX_ERRORS == 2
    ledger.take("a")
    ledger.error("a", 0, "disk full")
    assert not ledger.failed
    assert [ledger.take("a"), ledger.take("a")] == [1, 0]
    ledger.error("a", 0, "disk still full")
    assert ledger.failed == {0: "disk still full"}
    assert ledger.held_by("a") == (1,)


def test_losing_an_idle_worker_changes_nothing() -> None:
    ledger: Ledger[str] = Ledger([0])
    ledger.lost("a")
    assert (ledger.open, ledger.failed) == (1, {})


@settings(deadline=None, max_examples=60)
@given(
    n_units=st.integers(0, 8),
    events=st.lists(st.tuples(st.sampled_from(["take", "commit", "error", "lost"]), st.integers(0, 2)), max_size=60),
)
def test_whatever_happens_every_unit_is_in_exactly_one_place(n_units: int, events: list[tuple[str, int]]) -> None:
    ledger: Ledger[int] = Ledger(range(n_units))
    for event, worker in events:
        held = ledger.held_by(worker)
        if event == "take":
            ledger.take(worker)
        elif event == "lost":
            ledger.lost(worker)
        elif held:
            ledger.commit(worker, held[0]) if event == "commit" else ledger.error(worker, held[0], "raised")
        assert ledger.open == n_units - len(ledger.done) - len(ledger.failed)
    in_flight = [unit for worker in range(3) for unit in ledger.held_by(worker)]
    waiting = [ledger.take(99) for _ in range(ledger.waiting)]
    assert sorted([*in_flight, *waiting, *ledger.done, *ledger.failed]) == list(range(n_units))
