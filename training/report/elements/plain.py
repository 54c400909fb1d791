"""Text of strangers as a page may show it: what cannot be seen is spelled out, nothing changes what stands around it.

Escaping keeps markup from being markup, and the template does that. This module deals with what escaping leaves:
control characters, marks that turn the direction of a line, letters that take no room, halves of surrogate pairs. Each
is shown by its code point, so that a reader sees that it is there. Joiners and variation selectors between the letters
and pictures that need them stay as they are.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

from featurestore.base.hostile_text import UNSEEN

_HIDDEN = frozenset(
    ["Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"]
)  # categories that draw nothing, or what nobody can foresee
_JOINERS = frozenset("\u200c\u200d")
_SPACE = re.compile(r"[ \t\r\n]+")  # not what else counts as white space: U+2028 is to be seen
_SCRIPTS = 0x0590  # from here on letters join by rules of their own (Arabic, Indic), and pictures are put together
MARKS = 4  # accents on one letter, more than any script has; a tower of hundreds covers the lines around it


def hidden_at(text: str, i: int) -> bool:
    """Whether the character at i has to be spelled out for a reader to know of it."""
    char = text[i]
    if char in "\n\t":
        return False
    if char in _JOINERS:
        around = (text[i - 1] if i else "", text[i + 1] if i + 1 < len(text) else "")
        return not all(c and ord(c) >= _SCRIPTS and unicodedata.category(c) not in _HIDDEN for c in around)
    if 0xFE00 <= ord(char) <= 0xFE0F:
        return not i or text[i - 1].isspace() or (text[i - 1].isalpha() and text[i - 1].isascii())
    if unicodedata.combining(char):
        return i >= MARKS and all(map(unicodedata.combining, text[i - MARKS : i]))
    return char in UNSEEN or unicodedata.category(char) in _HIDDEN or 0xE0100 <= ord(char) <= 0xE01EF


def plain(value: object) -> str:
    """A value as text without a hidden character, for attributes, titles and labels of charts: `U+202E` in brackets."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    shown = [f"⟨U+{ord(c):04X}⟩" if hidden_at(text, i) or c in "\n\t" else c for i, c in enumerate(text)]
    return "".join(shown)


def visible(value: object) -> Markup:
    """A value as HTML: escaped, hidden characters marked as such, the direction of its letters kept to itself."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return escape(text)
    parts, start = [], 0
    for i in range(len(text)):
        if hidden_at(text, i):
            parts += [escape(text[start:i]), Markup("<i class=u>U+{:04X}</i>").format(ord(text[i]))]
            start = i + 1
    return Markup("").join([*parts, escape(text[start:])])


def cut(text: str, most: int) -> str:
    """A text on one line, at most `most` characters long."""
    text = _SPACE.sub(" ", text).strip(" ")
    return text if len(text) <= most else f"{text[: most - 1]}…"
