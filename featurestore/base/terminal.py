"""Print pages for people on a terminal: tables, facts behind their labels and lines, broken so that they fit its width.

Where stdout is no terminal lines stay as long as they are, so that a page reads the same in every file and log. A
terminal of 40 columns shows everything that a wide one does; only what has no space in it (a path, a hash) is left to
the terminal to break. Colour says nothing that words do not, and is there only where a person looks. Whatever a page is
given, it cannot move the cursor: what a terminal would obey is spelled out here, as `visible` does. JSON for machines
is left to `json_text`, lines that move to `live`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TextIO

from featurestore.base.hostile_text import columns, visible, visible_lines

LABEL = 11  # columns that a label takes, with the space behind it
_LEAST = 24  # columns for what stands behind a label; narrower terminals break lines themselves
_GAP = "  "  # between the columns of a table
_FURTHER = 4  # columns that a line which goes on is set in
_RESET = "\x1b[0m"
_COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m"}
_OF_LABELS = {"error": "red", "failed": "red", "WRONG": "red", "ok": "green", "warning": "yellow", "note": "yellow"}


def page_width() -> int:
    """Columns that a line of stdout may take."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def is_dumb() -> bool:
    """Whether the terminal says that it knows neither colours nor lines that move."""
    return os.environ.get("TERM", "dumb") == "dumb"


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def painted(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour (`red`, `green`, `yellow`) where a person looks, and as it is elsewhere."""
    return f"{_COLOURS[colour]}{text}{_RESET}" if has_colours(stream or sys.stdout) else text


def say(text: str) -> None:
    """Print lines of progress beside the result, on stderr, at once."""
    print(visible_lines(text), file=sys.stderr, flush=True)


def print_page(text: str) -> None:
    """Print text whose lines are broken at spaces where they are wider than the page, and go on further in."""
    for line in page_lines(text):
        print(line)


def page_lines(text: str) -> Iterator[str]:
    """The lines of `print_page`."""
    for line in map(visible, text.split("\n")):
        inner = len(line) - len(line.lstrip(" "))
        yield from _broken(line, page_width(), min(inner + _FURTHER, 2 * _FURTHER))


def print_facts(facts: Iterable[tuple[str, str]], margin: int = 0) -> None:
    """Print (label, text) pairs, each on lines of its own; an empty label goes on with the label before.

    Args:
        facts: The text of a fact is one line.
        margin: Spaces before the labels.
    """
    for line in fact_lines(facts, margin):
        print(line)


def fact_lines(facts: Iterable[tuple[str, str]], margin: int = 0) -> Iterator[str]:
    """The lines of `print_facts`."""
    room = max(page_width() - margin - LABEL, _LEAST)
    for label, text in ((visible(label), visible(text)) for label, text in facts):
        first, *others = _broken(text, room, 0)
        said = painted(label, _OF_LABELS[label]) if label in _OF_LABELS else label
        yield f"{'':<{margin}}{said}{' ' * max(LABEL - width_of(label), 0)}{first}".rstrip()
        yield from (f"{'':<{margin + LABEL}}{line}" for line in others)


def table_lines(rows: Sequence[Sequence[str]], left: Collection[int], naming: int = 1) -> list[str]:
    """A table; where it is wider than the page, each row as a block of lines, a cell a line.

    Args:
        rows: The header, then the rows, all of equal length.
        left: Columns that are set to the left: names. The others, numbers, are set to the right.
        naming: How many columns at the beginning say what a row is about: the first line of its block.
    """
    rows = [list(map(visible, row)) for row in rows]
    widths = [max(width_of(row[i]) for row in rows) for i in range(len(rows[0]))]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > page_width():
        return [line for row in rows[1:] for line in _block(rows[0], row, naming)]
    lines = [
        _GAP.join(_padded(cell, w, i in left) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.insert(1, "-" * max(map(width_of, lines)))
    return [line.rstrip() for line in lines]


def width_of(text: str) -> int:
    """Columns that a text takes."""
    return sum(map(columns, text))


def cut_to(text: str, width: int) -> str:
    """As much of a text as so many columns hold; an ellipsis says where it was cut."""
    if width_of(text) <= width:
        return text
    taken = 0
    for place, char in enumerate(text):
        taken += columns(char)
        if taken > width - 1:
            return f"{text[:place]}…"
    return text


def _broken(line: str, room: int, indent: int) -> Iterator[str]:
    """The pieces of a line, each at most `room` columns wide where its words are; all but the first are set in."""
    if width_of(line) <= room:
        yield line.rstrip()
        return
    inset = " " * min(indent, max(room - _LEAST, 0))
    current = ""
    for word in re.findall(r" *[^ ]+", line):
        if current.strip() and width_of(current + word) > room:
            yield current
            current = inset + word.lstrip(" ")
        else:
            current += word
    yield current


def _padded(cell: str, width: int, left: bool) -> str:
    space = " " * (width - width_of(cell))
    return cell + space if left else space + cell


def _block(header: Sequence[str], row: Sequence[str], naming: int) -> Iterator[str]:
    yield from _broken(_GAP.join(cell for cell in row[:naming] if cell), page_width(), _FURTHER)
    label = max(map(width_of, header[naming:]), default=0)
    room = max(page_width() - 4 - label - len(_GAP), _LEAST)
    for name, cell in zip(header[naming:], row[naming:], strict=True):
        if cell:
            first, *others = _broken(cell, room, 0)
            yield f"    {_padded(name, label, True)}  {first}"
            yield from (f"    {'':<{label}}  {more}" for more in others)
