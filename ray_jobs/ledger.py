"""Who has which unit, and what becomes of a unit that did not come back.

A pure account of a run: units wait, are in flight with a worker, are done, or have failed for good. A lost worker is
the cluster's fault, so its units wait again, and only the one it was computing is charged; an exception is the unit's
fault and is tried once more. Starting workers, waiting and talking to Ray are the driver's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

WorkerT = TypeVar("WorkerT", bound=Hashable)

MAX_DEATHS = 3  # workers that one unit may cost: two can be bad luck (preemption), three point at the unit
MAX_ERRORS = 2  # a full disk or a lost connection may pass; an error that comes twice will come again


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
        self._in_flight: dict[WorkerT, list[int]] = {}
        self._deaths: dict[int, int] = {}
        self._errors: dict[int, int] = {}
        self.done: set[int] = set()
        self.failed: dict[int, str] = {}

    @property
    def waiting(self) -> int:
        """How many units nobody has."""
        return len(self._waiting)

    @property
    def open(self) -> int:
        """How many units are neither done nor given up."""
        return len(self._waiting) + sum(map(len, self._in_flight.values()))

    def held_by(self, worker: WorkerT) -> tuple[int, ...]:
        """The units a worker has, the one it is computing first."""
        return tuple(self._in_flight.get(worker, ()))

    def take(self, worker: WorkerT) -> int | None:
        """Hand the next unit to a worker; None if none waits."""
        if not self._waiting:
            return None
        unit = self._waiting.popleft()
        self._in_flight.setdefault(worker, []).append(unit)
        return unit

    def commit(self, worker: WorkerT, unit: int) -> None:
        """A worker reported its unit written."""
        self._in_flight[worker].remove(unit)
        self.done.add(unit)

    def error(self, worker: WorkerT, unit: int, reason: str) -> None:
        """A unit raised an exception: it goes to the end of the queue, or fails the second time."""
        self._in_flight[worker].remove(unit)
        self._errors[unit] = self._errors.get(unit, 0) + 1
        if self._errors[unit] >= MAX_ERRORS:
            self.failed[unit] = reason
        else:
            self._waiting.append(unit)

    def lost(self, worker: WorkerT) -> None:
        """A worker died: its units go to the front of the queue, or the one it was computing fails the third time."""
        units = self._in_flight.pop(worker, [])
        if units:
            self._deaths[units[0]] = self._deaths.get(units[0], 0) + 1
            if self._deaths[units[0]] >= MAX_DEATHS:
                self.failed[units[0]] = f"its worker died {MAX_DEATHS} times"
                units = units[1:]
        self._waiting.extendleft(reversed(units))
