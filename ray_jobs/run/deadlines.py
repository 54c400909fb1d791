"""Say how long a unit should take, and when to stop waiting for it.

Expected durations come from the latest units that came back, by their tokens. A unit that takes half as long again is
overdue, and an idle worker may do it a second time. One that takes ten times as long has missed its deadline, and so
has one that gets no further at all: its worker is replaced.
"""

from __future__ import annotations

from collections import deque

DEADLINE_FACTOR = 10.0  # times the expected duration: more than documents or machines differ
DEADLINE_SECONDS = 600.0  # and no unit is given up before that: the first one of a worker compiles
STALL_SECONDS = 900.0  # without a batch done: hung, whatever the unit's size
OVERDUE_FACTOR = 1.5  # times the expected duration, before an idle worker does a unit a second time
LATEST_UNITS = 64  # that expected durations are taken from: an hour's, not the first minute's


class UnitDurations:
    """Durations learned from units that came back."""

    def __init__(self) -> None:
        self._latest: deque[tuple[float, float]] = deque(maxlen=LATEST_UNITS)
        self._tokens = self._seconds = 0.0

    def add(self, tokens: float, seconds: float) -> None:
        """A unit of so many expected tokens took so long."""
        if len(self._latest) == LATEST_UNITS:
            old_tokens, old_seconds = self._latest[0]
            self._tokens, self._seconds = self._tokens - old_tokens, self._seconds - old_seconds
        self._latest.append((tokens, seconds))
        self._tokens, self._seconds = self._tokens + tokens, self._seconds + seconds

    def expected(self, tokens: float) -> float | None:
        """Seconds for so many tokens; None before anything came back."""
        return tokens * self._seconds / self._tokens if self._tokens > 0 else None

    def lateness(self, tokens: float, elapsed: float) -> float:
        """How many times the expected duration has passed; 0 while nothing is known."""
        expected = self.expected(tokens)
        return elapsed / max(expected, 1e-9) if expected is not None else 0.0

    def is_overdue(self, tokens: float, elapsed: float) -> bool:
        """Whether an idle worker should do it a second time."""
        return self.lateness(tokens, elapsed) >= OVERDUE_FACTOR

    def missed(self, tokens: float, elapsed: float, stalled: float) -> str | None:
        """Why to stop waiting, if it is time to.

        Args:
            tokens: Expected tokens of the unit.
            elapsed: Seconds since its worker began it.
            stalled: Seconds since it last got further.
        """
        if stalled > STALL_SECONDS:
            return f"it got no further for {stalled:,.0f} s"
        if elapsed > DEADLINE_SECONDS and self.lateness(tokens, elapsed) > DEADLINE_FACTOR:
            return f"it took {elapsed:,.0f} s, more than {DEADLINE_FACTOR:.0f} times as long as others"
        return None
