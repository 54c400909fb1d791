"""Small tables as HTML for notebooks: everything is escaped, what cannot be seen of a text is spelled out.

A notebook brings its own style, light or dark, and may keep nothing of a style sheet; so there is none here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from featurestore.base.hostile_text import shortened

CHARACTERS = 120  # of a cell: an error sentence fits, a document does not fill the screen
SENTENCE = 500  # of what stands behind a label


def cell(value: object) -> str:
    """A value as HTML, cut where it is long; nothing for None."""
    return "" if value is None else escape(shortened(value, CHARACTERS))


def facts_html(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """A title over labels and what stands behind them; an empty label goes on with the label before."""
    left = ' style="text-align:left"'
    rows = "".join(
        f"<tr><th{left}>{escape(label)}</th><td{left}>{escape(shortened(text, SENTENCE))}</td></tr>"
        for label, text in facts
    )
    return f"<div><b>{cell(title)}</b><table>{rows}</table></div>"


def table_html(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a header; values are shown as `cell` shows them."""
    head = "".join(f"<th>{cell(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
