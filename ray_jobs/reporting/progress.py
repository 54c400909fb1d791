"""Show how far a run is: one live line on a terminal, an occasional line in a log.

Everything goes to stderr; stdout belongs to results. Time left counts tokens and not documents, because units begin
with their longest documents.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from featurestore.base.text import counted, duration
from featurestore.checks.run_files import RunSnapshot
from ray_jobs.reporting.rate import JobSize

LIVE_SECONDS = 0.5  # a line that moves faster cannot be read
LOG_SECONDS = 30.0  # two lines a minute: a day's log stays a page or two for `less`


class Progress:
    """Prints how far a run is.

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
        self._on_screen = False

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._wipe()
        print(text, file=self._stream, flush=True)

    def update(self, now: RunSnapshot, job: JobSize) -> None:
        """Show how far the run is, if it is time to."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + (LIVE_SECONDS if self._live else LOG_SECONDS)
        line = describe(now, job)
        if self._live:
            self._stream.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            self._stream.flush()
            self._on_screen = True
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the live line off the screen."""
        self._wipe()

    def _wipe(self) -> None:
        if self._on_screen:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._on_screen = False


def describe(now: RunSnapshot, job: JobSize) -> str:
    """One line about a run, e.g. "1,204 of 3,728 documents (32 %) · 4,120 tokens/s · 0:41 left · 2 workers"."""
    done = job.documents_before + now.documents + sum(unit.documents for unit in now.under_way)
    percent = 100 * done // max(job.documents, 1)
    parts = [f"{done:,} of {job.documents:,} documents ({percent} %)"]
    if now.tokens_per_second is not None:
        left = (job.documents - done) * job.mean_tokens / now.tokens_per_second
        parts += [f"{now.tokens_per_second:,.0f} tokens/s", f"{duration(left)} left"]
    if now.workers < now.workers_wanted:
        parts.append(f"{now.workers} of {counted(now.workers_wanted, 'worker')} ready")
    else:
        parts.append(counted(now.workers, "worker"))
    if now.errors:
        parts.append(counted(now.errors, "error"))
    return " · ".join(parts)
