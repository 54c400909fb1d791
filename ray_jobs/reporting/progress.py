"""How far a run is: one live line on a terminal, an occasional line in a log.

Speed is measured over the last minute, not over the whole run, so that a start-up or a lost worker does not linger in
the time left. Time left counts tokens and not documents, because units begin with their longest documents. Everything
goes to stderr; stdout belongs to results.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from featurestore.base.text import duration as duration

LIVE_SECONDS = 0.5  # a line that moves faster cannot be read
LOG_SECONDS = 30.0  # two lines a minute: a day's log stays a page or two for `less`
WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        documents: Documents done, those of earlier runs and of units under way included.
        total: Documents of the whole job.
        tokens: Tokens pooled by this run so far.
        mean_tokens: Expected tokens of a document that is still to do.
        workers: Workers that are ready.
        wanted: Workers that were asked for.
        errors: Documents stored with an error so far.
    """

    documents: int
    total: int
    tokens: int
    mean_tokens: float
    workers: int
    wanted: int
    errors: int = 0


class Progress:
    """Prints the standing of a run.

    Args:
        stream: Where to; stderr where not given.
        live: One line that is rewritten (True) or lines one below another (False); by default as `stream` can.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() if live is None else live
        self._clock = clock
        self._next = clock()
        self._seen: deque[tuple[float, int]] = deque()  # (when, tokens)
        self._on_screen = False

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._wipe()
        print(text, file=self._stream, flush=True)

    def update(self, standing: Standing) -> None:
        """Take note of the standing, and show it if it is time to."""
        now = self._clock()
        if standing.workers or standing.tokens:
            self._seen.append((now, standing.tokens))
            while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_SECONDS:
                self._seen.popleft()
        if now < self._next:
            return
        self._next = now + (LIVE_SECONDS if self._live else LOG_SECONDS)
        line = describe(standing, self.tokens_per_second)
        if self._live:
            self._stream.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            self._stream.flush()
            self._on_screen = True
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the live line off the screen."""
        self._wipe()

    @property
    def tokens_per_second(self) -> float | None:
        """Speed over the last minute; None while there is nothing to measure."""
        if len(self._seen) < 2:
            return None
        (start, before), (stop, after) = self._seen[0], self._seen[-1]
        return (after - before) / (stop - start) if after > before and stop > start else None

    def _wipe(self) -> None:
        if self._on_screen:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._on_screen = False


def describe(standing: Standing, tokens_per_second: float | None) -> str:
    """One line about a run, e.g. "1,204 of 3,728 documents (32 %) · 4,120 tokens/s · 0:41 left · 2 workers"."""
    percent = 100 * standing.documents // max(standing.total, 1)
    parts = [f"{standing.documents:,} of {standing.total:,} documents ({percent} %)"]
    if tokens_per_second is not None:
        left = (standing.total - standing.documents) * standing.mean_tokens / tokens_per_second
        parts += [f"{tokens_per_second:,.0f} tokens/s", f"{duration(left)} left"]
    if standing.workers < standing.wanted:
        parts.append(f"{standing.workers} of {_counted(standing.wanted, 'worker')} ready")
    else:
        parts.append(_counted(standing.workers, "worker"))
    if standing.errors:
        parts.append(_counted(standing.errors, "error"))
    return " · ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
