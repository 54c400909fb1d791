"""Names from evidence: the words that distinguish where a feature fires from where it does not.

The log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words"): for each
word, the log odds of it among the words that the feature marks, less those among all others, and divided by the
standard deviation of the difference. The prior of both sides is all words of these documents, counted once more: it
keeps common words from leading because they are common and rare ones because they are rare. (A word that the feature
marks three times and that stands nowhere else has z 2.0, twice 1.6, once 1.1, however many other words there are.) It
needs neither a network nor another model, and it explains nothing: keywords say where a feature fires, not why, so
they are marked as such wherever they are shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featurestore.evidence.records import DocumentEvidence
from featurestore.names.table import KEYWORDS, FeatureName
from featurestore.names.words import DocumentWords, is_symbol

MOST_WORDS = 5  # of a name: what a line can show and an eye can take in
LEAST_Z = 1.645  # chance alone makes such a difference, in this direction, for one word of twenty
LEAST_DOCUMENTS = 2  # in which a keyword is marked: what one document says is its subject, not the feature's
LONGEST_WORD = 40  # characters: more are encoded data, no word


@dataclass(frozen=True)
class Keyword:
    """A word that distinguishes where a feature fires.

    Attributes:
        word: In lower case.
        z: The difference of log odds, in standard deviations.
        marked: How often it stands where the feature fires.
        unmarked: How often it stands elsewhere.
        documents: In how many documents it is marked.
    """

    word: str
    z: float
    marked: int
    unmarked: int
    documents: int


def keywords(
    documents: Iterable[DocumentEvidence], sae: str, features: Sequence[int], most: int = MOST_WORDS
) -> dict[int, tuple[Keyword, ...]]:
    """The keywords of features.

    Args:
        documents: Evidence of documents in which the features fire, and of others; each document tells about those of
            the features that its evidence has.
        sae: Whose features.
        features: Which.
        most: Words a feature, at most.

    Returns:
        Feature -> its keywords, the most distinguishing first; none where no word distinguishes. The same documents
        in any order give the same words.
    """
    counts = {feature: _Counts() for feature in features}
    for document in documents:
        there = [one for one in document.features if one.sae == sae and one.feature in counts]
        if not there:
            continue
        words = DocumentWords(document.tokens)
        for one in there:
            fires = words.marked(one.values)
            counts[one.feature].add(
                [word for word, here in zip(words.words, fires, strict=True) if here],
                [word for word, here in zip(words.words, fires, strict=True) if not here],
            )
    return {feature: tuple(counted.keywords()[:most]) for feature, counted in counts.items()}


def keyword_name(feature: int, words: Sequence[Keyword]) -> FeatureName | None:
    """The name that keywords make, marked as keywords; None without any."""
    if not words:
        return None
    text = ", ".join(f'"{word.word}"' if is_symbol(word.word) else word.word for word in words)
    return FeatureName(feature, text, "evidence", KEYWORDS)


class _Counts:
    """How often words stand where a feature fires, and elsewhere."""

    def __init__(self) -> None:
        self._marked: Counter[str] = Counter()
        self._unmarked: Counter[str] = Counter()
        self._documents: Counter[str] = Counter()
        self._firing = 0  # documents

    def add(self, marked: list[str], unmarked: list[str]) -> None:
        self._marked.update(marked)
        self._unmarked.update(unmarked)
        self._documents.update(set(marked))
        self._firing += bool(marked)

    def keywords(self) -> list[Keyword]:
        least = min(LEAST_DOCUMENTS, self._firing)  # the only document says what there is to say
        found = [
            Keyword(word, self._z(word), n, self._unmarked[word], self._documents[word])
            for word, n in self._marked.items()
            if self._documents[word] >= least and len(word) <= LONGEST_WORD
        ]
        # Rounded, so that the order does not hang on the last bit of somebody's logarithm.
        return sorted(
            (keyword for keyword in found if keyword.z >= LEAST_Z),
            key=lambda keyword: (-round(keyword.z, 6), keyword.word),
        )

    def _z(self, word: str) -> float:
        n_marked, n_unmarked = self._marked.total(), self._unmarked.total()
        here, elsewhere = self._marked[word], self._unmarked[word]
        prior, size = here + elsewhere, n_marked + n_unmarked
        if prior == size:
            return 0.0  # there is no other word
        odds = _log_odds(here + prior, n_marked + size) - _log_odds(elsewhere + prior, n_unmarked + size)
        return odds / math.sqrt(1 / (here + prior) + 1 / (elsewhere + prior))


def _log_odds(count: int, total: int) -> float:
    return math.log(count) - math.log(total - count)
