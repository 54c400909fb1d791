"""Tell whether a written answer is right: the same text as one of several, or the same but for what hardly matters.

The second is the rule of SQuAD's own script: case, punctuation, the articles a, an and the, and blanks do not count.
Punctuation is what Unicode calls so, letters are compared in compatibility form; an answer of which nothing would be
left (`A`, `?`) keeps its articles and marks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def cut_off(text: str, stops: Sequence[str]) -> str:
    """The answer in what a model wrote: without blanks around it, and up to the first of some texts."""
    text = text.lstrip()
    for stop in stops:
        text = text.partition(stop)[0]
    return text.strip()


def normalised(text: str) -> str:
    """A text without what does not count."""
    whole = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(" " if char in "-–—/" else char for char in whole if char in "-–—/" or not _is_mark(char))
    plain = " ".join(_ARTICLES.sub(" ", plain).split())
    return plain or " ".join(whole.split())


def grade(answer: str, right: Sequence[str]) -> tuple[bool, bool]:
    """(The same as one of the right answers, the same but for what does not count)."""
    same = answer in {one.strip() for one in right}
    return same, same or normalised(answer) in {normalised(one) for one in right}


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("P")
