"""Who has which unit, and what becomes of a unit that did not come back.

A pure account of a run: a unit waits, waits until a certain time, is in flight with one worker or two, is done, or has
been given up. A lost worker is the cluster's fault, so its units wait again, and only the one it was computing is
charged; an exception is the unit's fault and is tried once more. Of two workers with one unit, the first to commit
wins. Starting workers, waiting and deciding what a failure means are the dispatcher's business.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

WorkerT = TypeVar("WorkerT", bound=Hashable)

MAX_DEATHS = 3  # workers that one unit may cost: two can be bad luck (preemption), three point at the unit
MAX_ERRORS = 2  # an error that comes twice will come again
_LOOK_AHEAD = 8  # units among which one is sought that did not fail here; more would only shuffle the order


class Ledger(Generic[WorkerT]):
    """The account of one run.

    Args:
        units: The units to do, in the order to hand them out.

    Attributes:
        done: Units that were committed.
        failed: Unit -> why it was given up.
    """

    def __init__(self, units: Iterable[int]) -> None:
        self._waiting = deque(units)
        self._later: list[tuple[float, int]] = []  # (not before, unit), a heap
        self._in_flight: dict[WorkerT, list[int]] = {}
        self._holders: dict[int, list[WorkerT]] = {}
        self._outrun: set[int] = set()  # units that are done and still in the hands of the slower of two workers
        self._deaths: dict[int, int] = {}
        self._errors: dict[int, int] = {}
        self._avoid: dict[int, str] = {}
        self.done: set[int] = set()
        self.failed: dict[int, str] = {}

    @property
    def waiting(self) -> int:
        """How many units nobody has."""
        return len(self._waiting) + len(self._later)

    @property
    def open(self) -> int:
        """How many units are neither done nor given up."""
        return self.waiting + len(self._holders) - len(self._outrun)

    @property
    def handed_out(self) -> set[int]:
        """The open units that some worker has."""
        return self._holders.keys() - self._outrun

    def held_by(self, worker: WorkerT) -> tuple[int, ...]:
        """The units a worker has, the one it is computing first."""
        return tuple(self._in_flight.get(worker, ()))

    def holders(self, unit: int) -> tuple[WorkerT, ...]:
        """The workers that have a unit, the first to get it first."""
        return tuple(self._holders.get(unit, ()))

    def take(self, worker: WorkerT, now: float = 0.0, place: str | None = None) -> int | None:
        """Hand the next unit to a worker; None if none may be handed out.

        Args:
            worker: Who gets it.
            now: The time.
            place: Where the worker is; units that failed there are left to others while there is something else.
        """
        while self._later and self._later[0][0] <= now:
            self._waiting.appendleft(heapq.heappop(self._later)[1])
        if not self._waiting:
            return None
        choice = 0
        if place is not None and self._avoid.get(self._waiting[0]) == place:
            ahead = range(min(_LOOK_AHEAD, len(self._waiting)))
            choice = next((i for i in ahead if self._avoid.get(self._waiting[i]) != place), 0)
        unit = self._waiting[choice]
        del self._waiting[choice]
        self._give(worker, unit)
        return unit

    def twin(self, worker: WorkerT, unit: int) -> None:
        """Hand a unit that somebody has already to a second worker."""
        self._give(worker, unit)

    def commit(self, worker: WorkerT, unit: int) -> bool:
        """A worker reported its unit written; whether it was the first to do so."""
        self._release(worker, unit)
        first = unit not in self.done
        self.done.add(unit)
        if unit in self._holders:
            self._outrun.add(unit)
        return first

    def error(self, worker: WorkerT, unit: int, reason: str, most: int = MAX_ERRORS) -> None:
        """A unit raised an exception: it goes to the end of the queue, or fails, by default the second time."""
        self._release(worker, unit)
        if self._settled(unit):
            return
        self._errors[unit] = self._errors.get(unit, 0) + 1
        if self._errors[unit] >= most:
            self.failed[unit] = reason
        else:
            self._waiting.append(unit)

    def postpone(self, worker: WorkerT, unit: int, not_before: float, place: str | None = None) -> None:
        """A unit could not be done then and there, through no fault of its own.

        Args:
            worker: Who had it.
            unit: The unit.
            not_before: When it may be handed out again.
            place: Where it should not go again, if there is anywhere else.
        """
        self._release(worker, unit)
        if self._settled(unit):
            return
        if place is not None:
            self._avoid[unit] = place
        heapq.heappush(self._later, (not_before, unit))

    def give_back(self, worker: WorkerT, unit: int) -> None:
        """A worker stopped a unit through no fault of the unit's: it is next in line, unless another has or did it."""
        self._release(worker, unit)
        if not self._settled(unit):
            self._waiting.appendleft(unit)

    def lost(self, worker: WorkerT, charged: bool = True) -> None:
        """A worker died: its units go to the front of the queue, or the one it was computing fails the third time."""
        units = list(self._in_flight.get(worker, ()))
        for unit in units:
            self._release(worker, unit)
        if units and charged:
            self._deaths[units[0]] = self._deaths.get(units[0], 0) + 1
        for unit in reversed(units):
            if self._settled(unit):
                continue
            if self._deaths.get(unit, 0) >= MAX_DEATHS:
                self.failed[unit] = f"its worker died {MAX_DEATHS} times"
            else:
                self._waiting.appendleft(unit)
        self._in_flight.pop(worker, None)

    def reopen(self, unit: int, lives: int = 1) -> None:
        """Let a unit that was given up wait at the front; it is given up again after so many deaths or errors."""
        del self.failed[unit]
        self._deaths[unit], self._errors[unit] = MAX_DEATHS - lives, MAX_ERRORS - lives
        self._waiting.appendleft(unit)

    def _settled(self, unit: int) -> bool:
        """Whether a unit is done, or another worker may still do it."""
        return unit in self._holders or unit in self.done

    def _give(self, worker: WorkerT, unit: int) -> None:
        self._in_flight.setdefault(worker, []).append(unit)
        self._holders.setdefault(unit, []).append(worker)

    def _release(self, worker: WorkerT, unit: int) -> None:
        self._in_flight[worker].remove(unit)
        holders = self._holders[unit]
        holders.remove(worker)
        if not holders:
            del self._holders[unit]
            self._outrun.discard(unit)
