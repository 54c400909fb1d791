"""Print pages for people on a terminal: tables, and facts behind their labels, broken so that they fit its width.

Where stdout is no terminal lines stay as long as they are, so that a page reads the same in every file and log. A
terminal of 60 columns shows everything that a wide one does. JSON for machines is left to `json_text`.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence

from featurestore.base.visible import columns

LABEL = 11  # columns that a label takes, with the space behind it
_LEAST = 30  # columns for what stands behind a label; narrower terminals break lines themselves
_GAP = "  "  # between the columns of a table


def page_width() -> int:
    """Columns that a line of stdout may take."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def print_facts(facts: Iterable[tuple[str, str]], margin: int = 0) -> None:
    """Print (label, text) pairs, each on lines of its own; an empty label goes on with the label before.

    Args:
        facts: The text of a fact is one line.
        margin: Spaces before the labels.
    """
    room = max(page_width() - margin - LABEL, _LEAST)
    for label, text in facts:
        first, *others = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        print(f"{'':<{margin}}{label:<{LABEL}}{first}")
        for line in others:
            print(f"{'':<{margin + LABEL}}{line}")


def table_lines(rows: Sequence[Sequence[str]], left: Collection[int], naming: int = 1) -> list[str]:
    """A table; where it is wider than the page, each row as a block of lines, a cell a line.

    Args:
        rows: The header, then the rows, all of equal length.
        left: Columns that are set to the left: names. The others, numbers, are set to the right.
        naming: How many columns at the beginning say what a row is about: the first line of its block.
    """
    widths = [max(_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > page_width():
        return [line for row in rows[1:] for line in _block(rows[0], row, naming)]
    lines = [
        _GAP.join(_padded(cell, w, i in left) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.insert(1, "-" * max(map(_width, lines)))
    return [line.rstrip() for line in lines]


def _width(text: str) -> int:
    return sum(map(columns, text))


def _padded(cell: str, width: int, left: bool) -> str:
    space = " " * (width - _width(cell))
    return cell + space if left else space + cell


def _block(header: Sequence[str], row: Sequence[str], naming: int) -> Iterator[str]:
    yield _GAP.join(cell for cell in row[:naming] if cell)
    label = max(map(_width, header[naming:]), default=0)
    for name, cell in zip(header[naming:], row[naming:], strict=True):
        if cell:
            yield f"    {_padded(name, label, True)}  {cell}"
