"""Show how far something is in a notebook, in one place that is rewritten; elsewhere it goes to stderr as ever."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any, TextIO, cast

from featurestore.base.live import WIPE

KEPT_LINES = 200  # of what was said; more is no longer read


def stream() -> TextIO:
    """Where progress goes to."""
    return cast(TextIO, NotebookStream()) if in_notebook() else sys.stderr


def moving() -> bool | None:
    """Whether a line can be written over: yes in a notebook; None where its stream has to say so."""
    return True if in_notebook() else None


def in_notebook() -> bool:
    """Whether a notebook runs this: IPython with a kernel, and not its prompt on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class NotebookStream(io.TextIOBase):
    """A terminal with one output of a notebook as its screen: lines that stay, and below them the line that moves."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line = ""
        self._screen: Any = None

    def isatty(self) -> bool:
        """Yes: a line can be written over."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take text as a terminal does, as far as our live lines need it."""
        for number, piece in enumerate(text.split("\n")):
            if number:
                self._lines = [*self._lines, self._line][-KEPT_LINES:]
                self._line = ""
            *_, last = f"{self._line}{piece}".split(WIPE)
            self._line = last
        return len(text)

    def flush(self) -> None:
        """Show what was written."""
        data = {"text/plain": "\n".join([*self._lines, self._line]).strip("\n")}
        if self._screen is not None:
            self._screen.update(data, raw=True)
        elif data["text/plain"]:
            self._screen = import_module("IPython.display").display(data, raw=True, display_id=True)
