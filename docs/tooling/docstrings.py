"""Read docstrings: first paragraph, the rest, and sections such as `Attributes:` with an entry for each name."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
UNNAMED = ("Returns", "Yields")
_ENTRY = re.compile(r"([\w, ]+?)(?: \([^)]*\))?: (.*)")


@dataclass
class Docstring:
    """A docstring in pieces.

    Attributes:
        summary: Its first paragraph, in one line.
        body: What follows, up to the sections, as it stands there.
        entries: Section -> name -> what is said of it, in one line; of a section without names the name is "".
    """

    summary: str = ""
    body: str = ""
    entries: dict[str, dict[str, str]] = field(default_factory=dict)


def docstring_of(documented: object) -> Docstring:
    """The docstring of a class, function or module; empty where there is none."""
    text = inspect.getdoc(documented) or ""
    head, sections = _cut(text)
    summary, _, body = head.strip().partition("\n\n")
    entries = {name: _entries(lines, name not in UNNAMED) for name, lines in sections.items()}
    return Docstring(" ".join(summary.split()), body.strip(), entries)


def _cut(text: str) -> tuple[str, dict[str, list[str]]]:
    head: list[str] = []
    sections: dict[str, list[str]] = {}
    here = head
    for line in text.splitlines():
        if found := _SECTION.fullmatch(line):
            here = sections.setdefault(found[1], [])
        elif here is head or line.startswith("    ") or not line:
            here.append(line)
        else:
            here = head
            head.append(line)
    return "\n".join(head), sections


def _entries(lines: list[str], named: bool = True) -> dict[str, str]:
    """The entries of a section, whose names stand four blanks in and whose further lines stand deeper."""
    found: dict[str, str] = {}
    names = [""]
    for line in lines:
        entry = _ENTRY.fullmatch(line.strip())
        if named and entry and line.startswith("    ") and not line.startswith("     "):
            names = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(names, entry[2])
        elif line.strip():
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found
