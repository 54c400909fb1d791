"""One line that says how far something is: rewritten on a terminal, now and then a line of its own in a log.

It goes to stderr; stdout belongs to results. A terminal that cannot move its cursor is a log.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from featurestore.base.hostile_text import visible, visible_lines
from featurestore.base.terminal import cut_to, is_dumb

LIVE_SECONDS = 0.5  # a line that moves faster cannot be read
LOG_SECONDS = 30.0  # two lines a minute: a day's log stays a page or two for `less`
WIPE = "\r\x1b[K"  # back to the start of the line, and wipe it


class LiveLine:
    """A line that moves, with lines that stay above it.

    Args:
        stream: Where to; stderr where not given.
        live: One line that is rewritten (True) or lines one below another (False); by default as `stream` can.
        clock: Seconds that only grow.
        at_once: Whether a log gets its first line at once, or when it has waited for one.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        at_once: bool = True,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() and not is_dumb() if live is None else live
        self._clock = clock
        self._next = clock() + (0.0 if at_once or self._live else LOG_SECONDS)
        self._on_screen = False

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._wipe()
        print(visible_lines(text), file=self._stream, flush=True)

    def show(self, line: Callable[[], str]) -> None:
        """Show a line, which is only made if it is time to."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + (LIVE_SECONDS if self._live else LOG_SECONDS)
        if self._live:
            self._stream.write(f"{WIPE}{cut_to(visible(line()), shutil.get_terminal_size().columns - 1)}")
            self._stream.flush()
            self._on_screen = True
        else:
            print(visible(line()), file=self._stream, flush=True)

    def close(self) -> None:
        """Take the live line off the screen."""
        self._wipe()

    def _wipe(self) -> None:
        if self._on_screen:
            self._stream.write(WIPE)
            self._stream.flush()
            self._on_screen = False
