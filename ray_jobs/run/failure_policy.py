"""Decide what becomes of a unit and its worker when either fails or dies: one pure function, no side effects.

Nothing is done here: `what_follows` answers with an `Action`, and the dispatcher has it done. Of which kind an
exception is was told before, beside the exception (`failures`); which document of a unit is at fault is found
afterwards (`document_search`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ray_jobs.workers.failures import Kind

MAX_DEATHS = 3  # workers that one unit may cost: two can be bad luck (preemption), three point at the unit
MAX_ERRORS = 2  # an error that comes twice will come again
MAX_STARTS_LOST = 3  # workers lost in a row before any of them could open the model
STORAGE_TRIES = 6  # of one unit: with the waiting between them, half a minute of an outage beyond what clients bridge
LONGEST_WAIT = 30.0  # seconds between two tries at storage; waiting doubles from one second up


class Where(Enum):
    """What was being done when it failed."""

    OPENING = "opening"
    """A worker was opening the model."""
    UNIT = "unit"
    """A worker was doing a unit."""
    RANGE = "range"
    """A worker was trying some documents of a unit, to find those at fault."""
    NOTHING = "nothing"
    """No unit: the worker had none, or could not say how far it is."""


@dataclass(frozen=True)
class Attempts:
    """What has failed before, the failure at hand not counted.

    Attributes:
        deaths: Workers that the unit has cost.
        errors: Exceptions that the unit has raised.
        storage: Times that storage did not answer while the unit was done.
        searched: Whether its documents have been tried and each went well alone.
        starts: Workers lost in a row before they could work.
        alone: Whether no more than one worker is allowed, for want of memory.
    """

    deaths: int = 0
    errors: int = 0
    storage: int = 0
    searched: bool = False
    starts: int = 0
    alone: bool = False


class WorkerFate(Enum):
    """What becomes of the worker."""

    KEEP = "keep"
    REPLACE = "replace"
    """It is ended, and another one may be started."""
    DROP = "drop"
    """It is ended, and from now on one less is allowed."""


class UnitFate(Enum):
    """What becomes of the unit that it was doing, or of the range of one."""

    NOTHING = "nothing"
    FIRST = "first"
    """It is done next, by any free worker."""
    LATER = "later"
    """The unit is done after some waiting, on another host if there is one."""
    LAST = "last"
    """The unit is done after all others."""
    SEARCH = "search"
    """The documents that make the unit fail are sought."""
    RANGE_FAILS = "range fails"
    """One of the documents that were tried is at fault."""
    GIVE_UP = "give up"
    """The unit is not tried again by this run."""


@dataclass(frozen=True)
class Action:
    """What follows from a failure.

    Attributes:
        worker: For the worker.
        unit: For the unit, or the range of one, that it was doing.
        charged: Whether the failure counts against that: as a death, an error or a failed try at storage of the unit,
            or as a start that was lost.
        stop: Whether the run stops; then the others say nothing.
    """

    worker: WorkerFate = WorkerFate.KEEP
    unit: UnitFate = UnitFate.NOTHING
    charged: bool = False
    stop: bool = False


STOP = Action(stop=True)
NOTHING = Action()


def what_follows(kind: Kind, before: Attempts, where: Where) -> Action:
    """Decide what follows from one failure."""
    if kind is Kind.JOB:
        return STOP
    if where is Where.OPENING:
        return _of_a_start(kind, before)
    if kind in (Kind.LOST, Kind.NODE, Kind.MEMORY):
        return _of_a_lost_worker(kind, before, where)
    if where is Where.NOTHING:
        return NOTHING
    if where is Where.RANGE:  # only what the documents do themselves says anything about them
        at_fault = kind is Kind.UNIT
        return Action(unit=UnitFate.RANGE_FAILS if at_fault else UnitFate.FIRST, charged=at_fault)
    if kind is Kind.STORAGE:
        return Action(unit=UnitFate.LATER if before.storage + 1 < STORAGE_TRIES else UnitFate.GIVE_UP, charged=True)
    if before.errors + 1 < MAX_ERRORS:
        return Action(unit=UnitFate.LAST, charged=True)
    searchable = kind is Kind.UNIT and not before.searched
    return Action(unit=UnitFate.SEARCH if searchable else UnitFate.GIVE_UP, charged=True)


def _of_a_start(kind: Kind, before: Attempts) -> Action:
    """A worker that fails to start would fail everywhere, unless its machine, its node or storage was at fault."""
    if kind in (Kind.UNIT, Kind.PLACE):
        return STOP
    charged = kind is not Kind.NODE
    if charged and before.starts + 1 >= MAX_STARTS_LOST:
        return STOP
    return Action(WorkerFate.DROP if kind is Kind.MEMORY else WorkerFate.REPLACE, charged=charged)


def _of_a_lost_worker(kind: Kind, before: Attempts, where: Where) -> Action:
    """A node that went says nothing about the unit, nor does a host whose memory several workers shared."""
    charged = kind is Kind.LOST or (kind is Kind.MEMORY and before.alone)
    worker = WorkerFate.DROP if kind is Kind.MEMORY else WorkerFate.REPLACE
    if where is Where.NOTHING:
        return Action(worker)
    if where is Where.RANGE:
        return Action(worker, UnitFate.RANGE_FAILS if charged else UnitFate.FIRST, charged)
    if before.deaths + charged < MAX_DEATHS:
        return Action(worker, UnitFate.FIRST, charged)
    return Action(worker, UnitFate.GIVE_UP if before.searched else UnitFate.SEARCH, charged)


def seconds_to_wait(times: int) -> float:
    """Seconds before the next try after so many failures: 1, 2, 4, ... and no more than LONGEST_WAIT."""
    return float(min(2.0 ** (times - 1), LONGEST_WAIT))
