"""Tell which parts of a path that a user wrote are patterns, and which are names.

`*`, `?`, `[...]`, `**` and `{a,b}` are patterns only where the user wrote them. The directory that is put in front of
a relative path is escaped (`[` becomes `[[]`), so that one text says both and goes unchanged through records and to
clusters. That a name which exists wins over the pattern that it could be is left to `files`, which can look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice, pairwise
from pathlib import Path

from featurestore.errors import CorpusError

MAX_ALTERNATIVES = 10_000  # of one path: more are a slip, such as {1..1000000}, or for a `*`
_MAX_BRACES = 50  # two choices each are more alternatives long before, and each costs a level of recursion

_ESCAPED = re.compile(r"\[([*?\[{])\]")
_PATTERN = re.compile(r"[*?\[{]")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def escaped(literal: str) -> str:
    """The pattern that matches just this text."""
    return _PATTERN.sub(r"[\g<0>]", literal)


def unescaped(pattern: str) -> str:
    """The pattern as a person would write it; as `literal`, the name where the pattern matches just one."""
    return _ESCAPED.sub(r"\1", pattern)


def is_pattern(text: str) -> bool:
    """Whether a path, or a part of one, may match more than one name."""
    return _PATTERN.search(_ESCAPED.sub("", text)) is not None


def joined(path: str, base: str | os.PathLike[str]) -> str:
    """A path of a job or study from its file's directory on, that directory (or `~`) escaped; URLs stay as they are."""
    if "://" in path:
        return path
    first, slash, rest = path.partition("/")
    front = str(Path(first).expanduser()) if first.startswith("~") else None
    if front is not None and front != first:
        return os.path.normpath(f"{escaped(front)}{slash}{rest}")
    return os.path.normpath(os.path.join(escaped(os.fspath(base)), path))  # noqa: PTH118  (a pattern is no Path)


def matches(name: str, part: str) -> bool:
    """Whether a name is one that a part of a pattern means; hidden names only where the part begins with a dot too."""
    return fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))


def alternatives(path: str) -> list[str]:
    """The paths that a path with braces stands for, as in a shell: `{a,b}`, nested ones, and `{01..12}`.

    Raises:
        CorpusError: They are more than MAX_ALTERNATIVES.
    """
    found = [] if min(map(path.count, "{}")) > _MAX_BRACES else list(islice(_expanded(path), MAX_ALTERNATIVES + 1))
    if not 0 < len(found) <= MAX_ALTERNATIVES:
        raise CorpusError(f"'{unescaped(path)[:200]}' stands for more than {MAX_ALTERNATIVES:,} names; use * instead")
    return found


def _expanded(text: str) -> Iterator[str]:
    for start, stop, commas in _braces(text):
        if commas:
            bounds = [start, *commas, stop]
            choices = [text[a + 1 : b] for a, b in pairwise(bounds)]
        elif (span := _RANGE.fullmatch(text, start + 1, stop)) is not None:
            choices = list(islice(_numbers(span[1], span[2]), MAX_ALTERNATIVES + 1))
        else:
            continue  # `{}` and `{a}` are no choice
        for choice in choices:
            yield from _expanded(text[:start] + choice + text[stop + 1 :])
        return
    yield text


def _numbers(first: str, last: str) -> Iterator[str]:
    """The numbers from one to another, as wide as they are written."""
    low, high = int(first), int(last)
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    for number in range(low, high + 1) if low <= high else range(low, high - 1, -1):
        yield f"{number:0{width}}"


def _braces(text: str) -> Iterator[tuple[int, int, list[int]]]:
    """(opening, closing, commas between) of every pair of braces, from the left; an escaped brace is none."""
    marks = [(match.start(), match[0]) for match in re.finditer(r"\[\{\]|[{,}]", text)]
    for at, (start, mark) in enumerate(marks):
        if mark != "{":
            continue
        depth, commas = 0, []
        for i, c in marks[at:]:
            depth += {"{": 1, "}": -1}.get(c, 0)
            if c == "," and depth == 1:
                commas.append(i)
            if depth == 0:
                yield start, i, commas
                break
