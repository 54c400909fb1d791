"""Spell out what a terminal cannot show of a stranger's text: what moves the cursor, turns the writing, or is not seen.

Letters, marks and signs that are seen stay as they are; everything else becomes an escape, the number of its character.
"""

from __future__ import annotations

import unicodedata

UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and signs to Unicode, and nothing to the eye."""
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """The text with line breaks, control, bidi and invisible characters as escapes (`\\n`, `\\u202e`)."""
    return "".join(map(_shown, text))


def visible_lines(text: str) -> str:
    """The same of a text of several lines, which stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def shortened(value: object, characters: int) -> str:
    """A value as a line can show it: spelled out as `visible` does, and cut to so many characters of its own."""
    text = str(value)
    return visible(text[:characters]) + ("..." if len(text) > characters else "")


def running(text: str) -> str:
    """Running text in one line: any white space is one space, the rest as `visible` shows it."""
    return visible(" ".join(text.split()))


def columns(char: str) -> int:
    """Columns that a visible character takes on a terminal: none for combining marks, two for wide letters."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _shown(char: str) -> str:
    if char.isprintable() and char not in UNSEEN:
        return char
    number = ord(char)
    escape = f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
    return _NAMED.get(char, escape)
