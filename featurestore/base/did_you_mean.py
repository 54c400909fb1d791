"""Guess the name that was meant: one answer for keys, columns, SAEs, hardware, commands and files.

A slip of the pen comes first (`lable` is `label`), then shared words (`text` is `comment_text` or `review_text`, and
`lang` is `language`), then looser likeness. Letters alone would find `threat` for `text`: names that share neither a
word nor most letters are never suggested.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_SLIP = 0.8  # one letter wrong, missing, added or swapped in a word of five
_LIKE = 0.65  # `txet` and `text` (0.75), `y` and `yy`; below lie `threat` and `text` (0.6)
_MOST = 3  # suggestions; more are a list, which a sentence gives anyway
_BEGINNING, _END = 3, 4  # letters that tell a longer word: `lang` and `language`, `text` and `fulltext`
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


def nearest(name: str, names: Iterable[str], slips_only: bool = False) -> list[str]:
    """Those of `names` that `name` was probably meant to be: equally likely ones, at most three, often none.

    Args:
        name: What was written.
        names: What there is.
        slips_only: Whether to leave out names that only share words with it or are loosely like it.
    """
    scored = [(score, other) for other in dict.fromkeys(names) if (score := _likeness(name, other)) is not None]
    if slips_only:
        scored = [found for found in scored if found[0][0] >= _SLIPPED]
    best = max((score for score, _ in scored), default=None)
    if best is None:
        return []
    return [other for score, other in scored if score == best][:_MOST]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """For the end of a sentence: `; did you mean 'label'?` (or `'a', 'b' or 'c'?`), nothing where no name is near."""
    found = [f"'{other}'" for other in nearest(name, names)]
    if not found:
        return ""
    return f"; did you mean {' or '.join([', '.join(found[:-1]), found[-1]] if found[1:] else found)}?"


def did_you_mean_file(path: str | os.PathLike[str]) -> str:
    """The same for a local file or directory that is not there, among what lies beside it."""
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100  (a Path would follow nothing either, at more cost)
    try:
        return did_you_mean(name, os.listdir(folder))  # noqa: PTH208
    except OSError:
        return ""


_LOOSE, _SHARED, _SLIPPED, _SAME = range(4)


def _likeness(name: str, other: str) -> tuple[int, float] | None:
    """(kind of likeness, how much of it); None for names that are not alike."""
    from difflib import SequenceMatcher  # only mistakes need it

    mine, theirs = _words(name), _words(other)
    if mine and "".join(mine) == "".join(theirs):
        return _SAME, 1.0
    letters = SequenceMatcher(None, name.lower(), other.lower()).ratio()
    if len(name) > 1 and sorted(name.lower()) == sorted(other.lower()):  # `sea` for `sae`
        return _SLIPPED, 1.0
    if letters >= _SLIP and len(mine) == len(theirs):
        return _SLIPPED, letters
    common = sum(any(_same_word(word, that) for that in theirs) for word in mine)
    if common and common >= min(len(mine), len(theirs)):  # all words of the shorter name
        return _SHARED, common / max(len(mine), len(theirs))
    return (_LOOSE, letters) if letters >= _LIKE else None


def _words(name: str) -> list[str]:
    """The words of a name in lower case and without a plural's s: `commentTexts` and `comment_text` are the same."""
    return [word.removesuffix("s") if len(word) > 2 else word for word in map(str.lower, _WORDS.findall(name))]


def _same_word(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    begins, ends = len(short) >= _BEGINNING and long.startswith(short), len(short) >= _END and long.endswith(short)
    return short == long or begins or ends
