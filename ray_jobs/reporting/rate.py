"""Measure a run: its speed over the last minute, and what its progress is measured against.

The figures of a run at a moment are a `RunSnapshot` (`featurestore.checks.run_files`, where they are stored too); they
are taken by `run.state` and shown by the other modules here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RATE_SECONDS = 60.0  # over which speed is measured: a start-up or a lost worker does not linger in it


@dataclass(frozen=True)
class JobSize:
    """What a run is measured against.

    Attributes:
        documents: Of the whole job.
        documents_before: Done by earlier runs.
        mean_tokens: Expected tokens of a document that is still to do.
    """

    documents: int
    documents_before: int
    mean_tokens: float


class RateWindow:
    """Tokens a second over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()  # (when, tokens)

    def add(self, now: float, tokens: int) -> None:
        """So many tokens were done by now."""
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_SECONDS:
            self._seen.popleft()

    @property
    def tokens_per_second(self) -> float | None:
        """Speed over the last minute; None while there is nothing to measure."""
        if len(self._seen) < 2:
            return None
        (start, before), (stop, after) = self._seen[0], self._seen[-1]
        return (after - before) / (stop - start) if after > before and stop > start else None
