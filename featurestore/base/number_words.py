"""Put numbers into words: counts with their nouns, bytes, times, money, shares, and the kind of an error.

Every command says a number as these functions do. Where the words go on a page is left to `terminal`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_KIND_CHARACTERS = 300  # of a sentence that tell its kind; a foreign one may be a page
_BRACKETS, _QUOTED = re.compile(r"\s*\([^()]*\)"), re.compile(r"(?<!\w\w)'[^']*'|\"[^\"]*\"")
_NAME = (
    r"\b(?:(?:[A-Z]{2,}|utf|iso|latin|windows)(?:-\d+)+|(?:u?int|b?float|sha|base|cp|latin|utf)\d+)\b"  # UTF-8, int64
)
_NAME_OR_NUMBER = re.compile(rf"({_NAME})|\d[\d,.]*")


def counted(n: int, noun: str) -> str:
    """`counted(1, "part")` is "1 part", `counted(1200, "part")` is "1,200 parts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def there(n: int) -> str:
    """`there(1)` is "1 is there", `there(1200)` is "1,200 are there"."""
    return f"{n:,} {'is' if n == 1 else 'are'} there"


def size(n_bytes: float) -> str:
    """Bytes in the unit that suits them: "0 bytes", "812 bytes", "1.2 kB", "3.4 TB"."""
    if n_bytes < 1000:
        return counted(round(n_bytes), "byte")
    for unit in ("kB", "MB", "GB"):
        n_bytes /= 1000
        if n_bytes < 999.95:
            return f"{n_bytes:,.1f} {unit}"
    return f"{n_bytes / 1000:,.1f} TB"


def span(seconds: float) -> str:
    """A length of time to plan with: "under a second", "42 s", "3.5 min", "1,240 hours"."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("hours", 3600, float("inf"))):
        number = seconds / length
        if number < 1:
            return "under a second"
        if number < most:
            return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
    raise ValueError(f"{seconds} is no length of time")


def money(amount: float, currency: str | None = None) -> str:
    """An amount of money: "0.00 USD", "under 0.01 USD", "1,234.50"."""
    text = "under 0.01" if 0 < amount < 0.01 else f"{amount:,.2f}"
    return f"{text} {currency}" if currency else text


def share(part: int, whole: int) -> str:
    """A share in percent that says none or all only where it is: "0%", "under 0.1%", "12.5%", "over 99.9%", "100%"."""
    if part in (0, whole):
        return "100%" if part else "0%"
    return "under 0.1%" if part / whole < 0.001 else "over 99.9%" if part / whole > 0.999 else f"{part / whole:.1%}"


def told_apart(numbers: Iterable[float]) -> dict[float, str]:
    """Each number in words: six digits at most (`0.2`), and all that it has where another of them would read alike."""
    short = {number: f"{number:g}" for number in numbers}
    said = Counter(short.values())
    return {n: word if said[word] == 1 else repr(float(n)).removesuffix(".0") for n, word in short.items()}


def about(figure: str) -> str:
    """A figure that is an estimate; "under ..." says so itself."""
    return figure if figure.startswith("under") else f"about {figure}"


def error_kind(sentence: str) -> str:
    """What errors that differ only in names and numbers have in common.

    `error_kind("the line is not JSON (Expecting value, column 1)")` is "the line is not JSON", and that of
    "the text in 'body' is 3 MB" is "the text in '...' is N MB". An apostrophe (the image's) opens no name.
    """
    text = _BRACKETS.sub("", sentence[:_KIND_CHARACTERS])
    text = _NAME_OR_NUMBER.sub(lambda found: found[1] or "N", _QUOTED.sub("'...'", text))
    return text.strip() or sentence[:_KIND_CHARACTERS].strip()


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
