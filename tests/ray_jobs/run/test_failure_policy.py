"""Every failure there can be has one consequence, and the table below says which."""

from __future__ import annotations

import itertools

import pytest

from ray_jobs.run.failure_policy import (
    LONGEST_WAIT,
    MAX_DEATHS,
    MAX_ERRORS,
    MAX_STARTS_LOST,
    STORAGE_TRIES,
    Action,
    Attempts,
    UnitFate,
    Where,
    WorkerFate,
    seconds_to_wait,
    what_follows,
)
from ray_jobs.workers.failures import Kind

KEEP, REPLACE, DROP = WorkerFate
STOPS = "stops"

# (kind, where) -> for each state of attempts that makes a difference: worker, unit, charged.
# "last" is the attempt that reaches the limit of its kind; "searched" is the same, after a search that found nothing.
TABLE = {
    (Kind.JOB, Where.OPENING): {"any": STOPS},
    (Kind.JOB, Where.UNIT): {"any": STOPS},
    (Kind.JOB, Where.RANGE): {"any": STOPS},
    (Kind.JOB, Where.NOTHING): {"any": STOPS},
    (Kind.LOST, Where.OPENING): {"first": (REPLACE, UnitFate.NOTHING, True), "last": STOPS},
    (Kind.LOST, Where.UNIT): {
        "first": (REPLACE, UnitFate.FIRST, True),
        "last": (REPLACE, UnitFate.SEARCH, True),
        "searched": (REPLACE, UnitFate.GIVE_UP, True),
    },
    (Kind.LOST, Where.RANGE): {"any": (REPLACE, UnitFate.RANGE_FAILS, True)},
    (Kind.LOST, Where.NOTHING): {"any": (REPLACE, UnitFate.NOTHING, False)},
    (Kind.NODE, Where.OPENING): {"any": (REPLACE, UnitFate.NOTHING, False)},
    (Kind.NODE, Where.UNIT): {"any": (REPLACE, UnitFate.FIRST, False)},
    (Kind.NODE, Where.RANGE): {"any": (REPLACE, UnitFate.FIRST, False)},
    (Kind.NODE, Where.NOTHING): {"any": (REPLACE, UnitFate.NOTHING, False)},
    (Kind.MEMORY, Where.OPENING): {"first": (DROP, UnitFate.NOTHING, True), "last": STOPS},
    (Kind.MEMORY, Where.UNIT): {
        "shared": (DROP, UnitFate.FIRST, False),
        "first": (DROP, UnitFate.FIRST, True),
        "last": (DROP, UnitFate.SEARCH, True),
        "searched": (DROP, UnitFate.GIVE_UP, True),
    },
    (Kind.MEMORY, Where.RANGE): {
        "shared": (DROP, UnitFate.FIRST, False),
        "any": (DROP, UnitFate.RANGE_FAILS, True),
    },
    (Kind.MEMORY, Where.NOTHING): {"any": (DROP, UnitFate.NOTHING, False)},
    (Kind.STORAGE, Where.OPENING): {"first": (REPLACE, UnitFate.NOTHING, True), "last": STOPS},
    (Kind.STORAGE, Where.UNIT): {"first": (KEEP, UnitFate.LATER, True), "last": (KEEP, UnitFate.GIVE_UP, True)},
    (Kind.STORAGE, Where.RANGE): {"any": (KEEP, UnitFate.FIRST, False)},
    (Kind.STORAGE, Where.NOTHING): {"any": (KEEP, UnitFate.NOTHING, False)},
    (Kind.PLACE, Where.OPENING): {"any": STOPS},
    (Kind.PLACE, Where.UNIT): {"first": (KEEP, UnitFate.LAST, True), "last": (KEEP, UnitFate.GIVE_UP, True)},
    (Kind.PLACE, Where.RANGE): {"any": (KEEP, UnitFate.FIRST, False)},
    (Kind.PLACE, Where.NOTHING): {"any": (KEEP, UnitFate.NOTHING, False)},
    (Kind.UNIT, Where.OPENING): {"any": STOPS},
    (Kind.UNIT, Where.UNIT): {
        "first": (KEEP, UnitFate.LAST, True),
        "last": (KEEP, UnitFate.SEARCH, True),
        "searched": (KEEP, UnitFate.GIVE_UP, True),
    },
    (Kind.UNIT, Where.RANGE): {"any": (KEEP, UnitFate.RANGE_FAILS, True)},
    (Kind.UNIT, Where.NOTHING): {"any": (KEEP, UnitFate.NOTHING, False)},
}

ALL_ATTEMPTS = [
    Attempts(*values)
    for values in itertools.product(
        range(MAX_DEATHS), range(MAX_ERRORS), range(STORAGE_TRIES), (False, True), range(MAX_STARTS_LOST), (False, True)
    )
]


def is_last(kind: Kind, before: Attempts, where: Where) -> bool:
    """Whether one more failure of this kind reaches its limit."""
    if where is Where.OPENING:
        return before.starts == MAX_STARTS_LOST - 1
    if kind in (Kind.LOST, Kind.MEMORY):
        return before.deaths == MAX_DEATHS - 1
    if kind is Kind.STORAGE:
        return before.storage == STORAGE_TRIES - 1
    return before.errors == MAX_ERRORS - 1


def row_of(rows: dict[str, object], kind: Kind, before: Attempts, where: Where) -> object:
    if kind is Kind.MEMORY and not before.alone and "shared" in rows:
        return rows["shared"]
    if "any" in rows:
        return rows["any"]
    if not is_last(kind, before, where):
        return rows["first"]
    return rows["searched"] if before.searched and "searched" in rows else rows["last"]


@pytest.mark.parametrize(("kind", "where"), itertools.product(Kind, Where), ids=lambda value: value.name.lower())
def test_every_combination_has_the_consequence_of_the_table(kind: Kind, where: Where) -> None:
    for before in ALL_ATTEMPTS:
        action = what_follows(kind, before, where)
        expected = row_of(dict(TABLE[kind, where]), kind, before, where)
        if expected == STOPS:
            assert action.stop, before
        else:
            assert action == Action(*expected), before  # type: ignore[misc]


def test_a_unit_whose_attempts_went_over_a_limit_meanwhile_is_not_tried_again() -> None:
    beyond = Attempts(deaths=MAX_DEATHS, errors=MAX_ERRORS, storage=STORAGE_TRIES)
    for kind in (Kind.LOST, Kind.NODE, Kind.MEMORY, Kind.UNIT):
        assert what_follows(kind, beyond, Where.UNIT).unit is UnitFate.SEARCH
    for kind in (Kind.STORAGE, Kind.PLACE):
        assert what_follows(kind, beyond, Where.UNIT).unit is UnitFate.GIVE_UP


def test_waiting_doubles_from_a_second_to_half_a_minute() -> None:
    assert [seconds_to_wait(times) for times in range(1, 8)] == [1, 2, 4, 8, 16, LONGEST_WAIT, LONGEST_WAIT]
