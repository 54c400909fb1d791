"""Fill templates with the columns of a row: `{question}`, or `{context.contexts}` for what lies inside a nested value.

A name alone, without braces, is a column. Lists are joined by lines; braces that are text are written twice. Nothing
but names stands between braces: no format, no index, no code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Unfilled(Exception):  # noqa: N818  (a reason, which a row gets as its error)
    """A row has no value for a template; the message says which."""


@dataclass(frozen=True)
class Template:
    """Literal texts and fields in turn.

    Attributes:
        pieces: Texts, and fields as tuples: the column, then names inside its value.
    """

    pieces: tuple[str | tuple[str, ...], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, each once, in the order in which they stand."""
        return tuple(dict.fromkeys(piece[0] for piece in self.pieces if isinstance(piece, tuple)))

    def fill(self, row: Mapping[str, Any]) -> str:
        """The text for a row.

        Args:
            row: Column -> value; nested values are JSON text, as rows keep them.

        Raises:
            Unfilled: The row has no such value, or one that is no text.
        """
        return "".join(piece if isinstance(piece, str) else _text(found_in(row, piece), piece) for piece in self.pieces)


def template_of(text: str) -> Template:
    """Read a template.

    Raises:
        ValueError: A brace without its other half, or nothing in braces.
    """
    pieces: list[str | tuple[str, ...]] = []
    end = 0
    for found in _PIECE.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        if found[0] in ("{{", "}}"):
            pieces.append(found[0][0])
        elif found[1] is None:
            raise ValueError(f"has a '{found[0]}' without its other half; write it twice where it is text")
        else:
            path = tuple(found[1].split("."))
            if not all(path):
                raise ValueError(f"has '{found[0]}', which names no column; write {{column}}, or the braces twice")
            pieces.append(path)
    pieces.append(text[end:])
    return Template(tuple(piece for piece in pieces if piece))


def column(name: str) -> Template:
    """The template that is one column."""
    return Template(((name,),))


def found_in(row: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value that a field means.

    Raises:
        Unfilled: There is none.
    """
    value = row.get(path[0])
    for depth, name in enumerate(path[1:], 1):
        value = unpacked(value)
        value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            raise Unfilled(f"the row has no '{'.'.join(path[: depth + 1])}'")
    if value is None:
        raise Unfilled(f"the row has no '{'.'.join(path)}'")
    return value


def unpacked(value: Any) -> Any:
    """A nested value that is kept as JSON text, as a list or mapping; any other value as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _text(value: Any, path: tuple[str, ...]) -> str:
    if len(path) > 1 and isinstance(value, list):
        return "\n".join(_text(item, path) for item in value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    raise Unfilled(f"'{'.'.join(path)}' is no text")
