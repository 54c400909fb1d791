"""Keep the queue of units: which wait, which worker has which, which are done and which were given up.

A pure account, without a clock and without opinions: where a unit that did not come back goes (to the front, to the
end, to a later time) is told to it by `state`. Two workers may have the same unit, and the first to commit it wins.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

_LOOK_AHEAD = 8  # units among which one is sought that did not fail here; more would only shuffle the order


class UnitQueue:
    """The units of one run.

    Args:
        units: The units to do, in the order to hand them out.

    Attributes:
        done: Units that were committed.
        failed: Unit -> why it was given up.
    """

    def __init__(self, units: Iterable[int]) -> None:
        self._waiting = deque(units)
        self._later: list[tuple[float, int]] = []  # (not before, unit), a heap
        self._in_flight: dict[int, list[int]] = {}  # worker -> units
        self._holders: dict[int, list[int]] = {}  # unit -> workers
        self._outrun: set[int] = set()  # units that are done and still in the hands of the slower of two workers
        self._avoid: dict[int, str] = {}  # unit -> the host where it did not work
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

    def held_by(self, worker: int) -> tuple[int, ...]:
        """The units a worker has, the one it is computing first."""
        return tuple(self._in_flight.get(worker, ()))

    def holders(self, unit: int) -> tuple[int, ...]:
        """The workers that have a unit, the first to get it first."""
        return tuple(self._holders.get(unit, ()))

    def is_settled(self, unit: int) -> bool:
        """Whether a unit is done, or some worker may still do it."""
        return unit in self._holders or unit in self.done

    def take(self, worker: int, now: float = 0.0, host: str | None = None) -> int | None:
        """Hand the next unit to a worker; None if none may be handed out.

        Args:
            worker: Who gets it.
            now: The time.
            host: Where the worker is; units that failed there are left to others while there is something else.
        """
        while self._later and self._later[0][0] <= now:
            self._waiting.appendleft(heapq.heappop(self._later)[1])
        if not self._waiting:
            return None
        choice = 0
        if host is not None and self._avoid.get(self._waiting[0]) == host:
            ahead = range(min(_LOOK_AHEAD, len(self._waiting)))
            choice = next((i for i in ahead if self._avoid.get(self._waiting[i]) != host), 0)
        unit = self._waiting[choice]
        del self._waiting[choice]
        self.take_again(worker, unit)
        return unit

    def take_again(self, worker: int, unit: int) -> None:
        """Hand a unit that somebody may have already to a worker."""
        self._in_flight.setdefault(worker, []).append(unit)
        self._holders.setdefault(unit, []).append(worker)

    def release(self, worker: int, unit: int) -> None:
        """Take a unit from a worker; if nobody else has it, say next where it goes."""
        self._in_flight[worker].remove(unit)
        holders = self._holders[unit]
        holders.remove(worker)
        if not holders:
            del self._holders[unit]
            self._outrun.discard(unit)

    def commit(self, worker: int, unit: int) -> bool:
        """A worker reported its unit written; whether it was the first to do so."""
        self.release(worker, unit)
        first = unit not in self.done
        self.done.add(unit)
        if unit in self._holders:
            self._outrun.add(unit)
        return first

    def put_first(self, unit: int) -> None:
        """Let a unit be the next to be handed out."""
        self._waiting.appendleft(unit)

    def put_last(self, unit: int) -> None:
        """Let a unit wait behind all others."""
        self._waiting.append(unit)

    def put_later(self, unit: int, not_before: float, avoid: str) -> None:
        """Let a unit wait until a time, and then go to another host than this one if there is any."""
        self._avoid[unit] = avoid
        heapq.heappush(self._later, (not_before, unit))
