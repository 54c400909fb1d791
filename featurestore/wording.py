"""Numbers with their nouns, as people read them: what every command prints is put together here once."""

from __future__ import annotations

import re

_KIND_CHARACTERS = 300  # of a sentence that tell its kind; a foreign one may be a page
_BRACKETS, _QUOTED, _NUMBER = re.compile(r"\s*\([^()]*\)"), re.compile(r"'[^']*'|\"[^\"]*\""), re.compile(r"\d[\d,.]*")


def counted(n: int, noun: str) -> str:
    """`counted(1, "part")` is "1 part", `counted(1200, "part")` is "1,200 parts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def error_kind(sentence: str) -> str:
    """What errors that differ only in names and numbers have in common.

    `error_kind("the line is not JSON (Expecting value, column 1)")` is "the line is not JSON", and that of
    "the text in 'body' is 3 MB" is "the text in '...' is N MB".
    """
    text = _BRACKETS.sub("", sentence[:_KIND_CHARACTERS])
    return _NUMBER.sub("N", _QUOTED.sub("'...'", text)).strip() or sentence[:_KIND_CHARACTERS].strip()


def first_line(exc: BaseException) -> str:
    """What another library's error says, as far as it fits into a sentence of ours."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


def duration(seconds: float) -> str:
    """Seconds as m:ss, h:mm:ss or days and hours."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
