"""Measure how long a device had nothing to do, by the host's clock: the time in which no batch was given to it."""

from __future__ import annotations

import time
from collections.abc import Callable


class IdleClock:
    """Runs while the device is idle, as it is at first.

    Args:
        now: A clock, in seconds.

    Attributes:
        seconds: Idle so far, the present idleness not counted.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._now = now
        self._idle_since: float | None = now()

    def busy(self) -> None:
        """The device is given something, or something more."""
        if self._idle_since is not None:
            self.seconds += self._now() - self._idle_since
            self._idle_since = None

    def idle(self) -> None:
        """The device has finished all that it was given."""
        if self._idle_since is None:
            self._idle_since = self._now()
