"""Finding the documents that make a unit fail, by trying halves.

The unit is halved, and so is every range that fails, until single documents are left; where the first half goes well
the second is to blame and is halved untried. Each range is computed like a unit and nothing is written, so that a
document which kills its process can be found as well as one that raises. A single document is blamed only after it
failed as often as a unit may, because workers also die for reasons of their own. One document at fault costs about as
much as the unit once or twice more.

A pure account: who tries a range, and what a failure is, is the dispatcher's business.
"""

from __future__ import annotations

from ray_jobs.run.unit_queue import MAX_DEATHS, MAX_ERRORS

DIED = "the process that worked on this document died each time"


class Search:
    """The search through one unit.

    Args:
        rows: Documents in the unit.
        blamed: Those known to be at fault already: document (counted from the unit's first) -> what it did.

    Attributes:
        blamed: Those, and the ones found since.
    """

    def __init__(self, rows: int, blamed: dict[int, str] | None = None) -> None:
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
            self.blamed[start] = DIED if reason is None else f"the worker failed on this document: {reason}"
            self.found += 1
            self._todo.pop()
            self._deaths = self._errors = 0

    def _halve(self) -> None:
        """Replace a range that has a document at fault in it by its halves."""
        start, stop = self._todo[-1]
        if stop - start > 1:
            middle = (start + stop) // 2
            self._first_half = (start, middle)
            self._todo[-1:] = [(middle, stop), (start, middle)]
