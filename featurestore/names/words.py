"""Words in the tokens of a document, and which of them a feature marks.

A tokenizer cuts words into pieces; people read words. Tokens are put back onto the characters they stand for, the
characters are grouped to words, and a word is marked where any of its tokens is. Characters are grouped by Unicode:
runs of letters, marks and digits (with an apostrophe between letters), and runs of one sign, which features fire on as
well. Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan write no spaces between words: there the tokens
themselves, which a large vocabulary makes about as long as words, are taken for words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, pairwise

import numpy as np

from featurestore.evidence.records import Token

_UNSPACED = (  # code points of scripts that put no spaces between words
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x20000, 0x323AF),
)
_APOSTROPHES = "'’"


class DocumentWords:
    """The words of a document's pooled tokens, in order.

    Attributes:
        words: In lower case, NFC.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        """Group tokens to words."""
        chars, owners = _characters(tokens)
        self.words: list[str] = []
        word_of: list[int] = []
        token_of: list[int] = []
        for text, of_tokens in _words(chars, owners):
            word_of += [len(self.words)] * len(of_tokens)
            token_of += of_tokens
            self.words.append(unicodedata.normalize("NFC", text).lower())
        self._word_of, self._token_of = np.array(word_of, np.int64), np.array(token_of, np.int64)

    def marked(self, values: Sequence[float]) -> np.ndarray:
        """bool [words], whether a feature with these activations, one for each token, fires in a word."""
        fires = np.zeros(len(self.words), dtype=bool)
        if len(self.words):
            fires[self._word_of[np.asarray(values)[self._token_of] > 0]] = True
        return fires


def text_words(text: str) -> list[str]:
    """The words of a text without tokens, as `DocumentWords` has them; a run of an unspaced script stays whole."""
    return [unicodedata.normalize("NFC", word).lower() for word, _ in _words(list(text), [(0,)] * len(text))]


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script that puts no spaces between words."""
    return bool(word) and _kind(word[0]) == "unspaced"


def is_symbol(word: str) -> bool:
    """Whether a word is punctuation or another symbol."""
    return bool(word) and _kind(word[0]) not in ("word", "unspaced")


def _characters(tokens: Sequence[Token]) -> tuple[list[str], list[tuple[int, ...]]]:
    """The characters that pooled tokens stand for, a space where some are left out, and the tokens of each."""
    text: dict[int, str] = {}
    owners: dict[int, tuple[int, ...]] = {}
    for at, token in enumerate(tokens):
        if not token.pooled:
            continue
        # A character of several tokens (bytes) belongs to each; one without characters belongs to what is before it.
        for offset, char in enumerate(token.text[: token.stop - token.start], token.start):
            text[offset] = char
            owners[offset] = (*owners.get(offset, ()), at)
        if token.start == token.stop and token.start - 1 in owners:
            owners[token.start - 1] += (at,)
    found: list[tuple[str, tuple[int, ...]]] = []
    for offset in sorted(text):
        if offset - 1 not in text:
            found.append((" ", ()))
        found.append((text[offset], owners[offset]))
    return [char for char, _ in found], [of for _, of in found]


def _words(chars: list[str], owners: list[tuple[int, ...]]) -> list[tuple[str, list[int]]]:
    """(text, tokens) of each word."""
    found = []
    kinds = [_kind(char) for char in chars]
    for at in range(1, len(chars) - 1):
        if chars[at] in _APOSTROPHES and kinds[at - 1] == kinds[at + 1] == "word":
            kinds[at] = "word"
    for kind, run in groupby(range(len(chars)), kinds.__getitem__):
        if kind == "":
            continue
        found += [
            ("".join(chars[at] for at in piece), sorted({token for at in piece for token in owners[at]}))
            for piece in (_pieces(list(run), owners) if kind == "unspaced" else [list(run)])
        ]
    return found


def _pieces(run: list[int], owners: list[tuple[int, ...]]) -> list[list[int]]:
    """A run of characters cut where no token goes on."""
    pieces = [run[:1]]
    for before, at in pairwise(run):
        if set(owners[before]) & set(owners[at]):
            pieces[-1].append(at)
        else:
            pieces.append([at])
    return pieces


@lru_cache(maxsize=1 << 16)
def _kind(char: str) -> str:
    """What a character makes a word with: "word", "unspaced", a symbol only with itself, "" nothing."""
    point = ord(char)
    category = unicodedata.category(char)
    if any(low <= point <= high for low, high in _UNSPACED) and category[0] in "LMN":
        return "unspaced"
    if category[0] in "LMN" or char == "_":
        return "word"
    return char if category[0] in "PS" else ""
