"""Units that failed again and again, each searched for the documents at fault.

One `Search` a suspected unit. It ends with documents that are blamed, which the unit is then done without, or in vain:
each goes well alone, and the unit is tried once more as it is. No unit is searched in vain twice. Who tries a range is
the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ray_jobs.run.halving import Search


@dataclass(frozen=True)
class Probe:
    """Documents `[start, stop)` of a unit, to be tried as if those that are blamed were not there."""

    unit: int
    start: int
    stop: int
    blamed: Mapping[int, str]


class Suspects:
    """The searches of one run."""

    def __init__(self) -> None:
        self._searches: dict[int, Search] = {}
        self._in_vain: set[int] = set()
        self._blamed: dict[int, dict[int, str]] = {}

    def __len__(self) -> int:
        return len(self._searches)

    def __contains__(self, unit: int) -> bool:
        return unit in self._searches

    def blamed(self, unit: int) -> Mapping[int, str]:
        """Documents of a unit, counted from its first, that have been found at fault: what each did."""
        return self._blamed.get(unit, {})

    def is_in_vain(self, unit: int) -> bool:
        """Whether a unit was searched and no document found."""
        return unit in self._in_vain

    def add(self, unit: int, rows: int) -> None:
        """Search a unit of so many documents."""
        self._searches[unit] = Search(rows, self._blamed.get(unit))

    def next_probe(self, tried: Collection[int]) -> Probe | None:
        """What to try next, of a unit that nobody tries now."""
        for unit, search in self._searches.items():
            if unit not in tried and (span := search.next) is not None:
                return Probe(unit, *span, search.blamed)
        return None

    def passed(self, unit: int) -> int | None:
        """The unit's range went well; see `_conclude`."""
        self._searches[unit].passed()
        return self._conclude(unit)

    def failed(self, unit: int, reason: str | None) -> int | None:
        """The unit's range raised this, or killed its worker (None); see `_conclude`."""
        self._searches[unit].failed(reason)
        return self._conclude(unit)

    def _conclude(self, unit: int) -> int | None:
        """How many documents were found, if the search is over; None if it goes on."""
        search = self._searches[unit]
        if search.next is not None:
            return None
        del self._searches[unit]
        if search.found:
            self._blamed[unit] = search.blamed
        else:
            self._in_vain.add(unit)
        return search.found
