"""What the made pages share: their first line, tables, and text that is safe in a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

MADE = "<!-- Made by `python -m docs.tooling`; a test fails where it is stale. -->"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, without the columns in which nothing stands."""
    wanted = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[header[i] for i in wanted], ["---"] * len(wanted), *([row[i] for i in wanted] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(text: str) -> str:
    """Prose in one cell of a table: bars and angles are text, but between ticks as they are."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = [piece if piece.startswith("`") else piece.replace("<", "&lt;").replace("*", "\\*") for piece in pieces]
    return "".join(plain).replace("|", "\\|")
