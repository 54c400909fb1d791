"""Find the documents that make a unit fail, by trying halves of it.

The unit is halved, and so is every range that fails, until single documents are left; where the first half goes well
the second is to blame and is halved untried. Each range is computed like a unit and nothing is written, so that a
document which kills its process can be found as well as one that raises. A single document is blamed only after it
failed as often as a unit may, because workers also die for reasons of their own. One document at fault costs about as
much as the unit once or twice more.

A pure account: ranges are handed out by `dispatcher`, and what counts as a failure of one is in `failure_policy`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ray_jobs.run.failure_policy import MAX_DEATHS, MAX_ERRORS

DIED = "the process that worked on this document died each time"


@dataclass(frozen=True)
class DocumentRange:
    """Documents `[start, stop)` of a unit, to be tried as if those that are blamed were not there."""

    unit: int
    start: int
    stop: int
    blamed: Mapping[int, str]


class UnitSearch:
    """The search through one unit.

    Args:
        rows: Documents in the unit.
        blamed: Those known to be at fault already: document (counted from the unit's first) -> what it did.

    Attributes:
        blamed: Those, and the ones found since.
        found: How many were found since.
    """

    def __init__(self, rows: int, blamed: Mapping[int, str] | None = None) -> None:
        self.blamed = dict(blamed or {})
        self.found = 0
        self._todo = [(0, rows)]  # the last is tried first
        self._deaths = self._errors = 0  # of the single document being tried
        self._first_half = (0, 0)
        self._halve()

    @property
    def next(self) -> tuple[int, int] | None:
        """The range `[start, stop)` to try now; None when the search is over."""
        return self._todo[-1] if self._todo else None

    def passed(self) -> None:
        """The range went well."""
        start, stop = self._todo.pop()
        self._deaths = self._errors = 0
        if self._todo and (start, stop) == self._first_half:
            self._halve()

    def failed(self, reason: str | None) -> None:
        """The range failed: it raised `reason`, or killed its worker (None)."""
        start, stop = self._todo[-1]
        if stop - start > 1:
            self._halve()
            return
        if reason is None:
            self._deaths += 1
        else:
            self._errors += 1
        if self._deaths >= MAX_DEATHS or self._errors >= MAX_ERRORS:
            self.found += start not in self.blamed  # one that fails though it is left out is no news
            self.blamed[start] = DIED if reason is None else f"the worker failed on this document: {reason}"
            self._todo.pop()
            self._deaths = self._errors = 0

    def _halve(self) -> None:
        """Replace a range that has a document at fault in it by its halves."""
        start, stop = self._todo[-1]
        if stop - start > 1:
            middle = (start + stop) // 2
            self._first_half = (start, middle)
            self._todo[-1:] = [(middle, stop), (start, middle)]


class DocumentSearches:
    """The searches of one run.

    A search ends with documents that are blamed, and the unit is then done without them; or "in vain", when each went
    well alone. No unit is searched in vain twice.
    """

    def __init__(self) -> None:
        self._searches: dict[int, UnitSearch] = {}
        self._in_vain: set[int] = set()
        self._blamed: dict[int, dict[int, str]] = {}

    def __len__(self) -> int:
        return len(self._searches)

    def __contains__(self, unit: int) -> bool:
        return unit in self._searches

    def blamed(self, unit: int) -> Mapping[int, str]:
        """Documents of a unit, counted from its first, that have been found at fault: what each did."""
        return self._blamed.get(unit, {})

    def was_in_vain(self, unit: int) -> bool:
        """Whether a unit was searched and no document found."""
        return unit in self._in_vain

    def begin(self, unit: int, rows: int) -> None:
        """Search a unit of so many documents."""
        self._searches[unit] = UnitSearch(rows, self._blamed.get(unit))

    def next_range(self, tried: Collection[int]) -> DocumentRange | None:
        """What to try next, of a unit that nobody tries now."""
        for unit, search in self._searches.items():
            if unit not in tried and (span := search.next) is not None:
                return DocumentRange(unit, *span, search.blamed)
        return None

    def passed(self, unit: int) -> int | None:
        """The unit's range went well: how many documents were found if that ends the search, None if it goes on."""
        self._searches[unit].passed()
        return self._end_if_over(unit)

    def failed(self, unit: int, reason: str | None) -> int | None:
        """The unit's range raised this, or killed its worker (None); returns as `passed` does."""
        self._searches[unit].failed(reason)
        return self._end_if_over(unit)

    def _end_if_over(self, unit: int) -> int | None:
        search = self._searches[unit]
        if search.next is not None:
            return None
        del self._searches[unit]
        if search.found:
            self._blamed[unit] = search.blamed
        else:
            self._in_vain.add(unit)
        return search.found
