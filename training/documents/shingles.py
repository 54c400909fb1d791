"""Texts as sets of five-character shingles, and MinHash sketches that estimate how far two such sets overlap.

A text is levelled (case, punctuation and spacing) and its shingles are hashed. The sketch keeps `BINS` numbers of the
hashes; two texts agree in each with the probability of their Jaccard index. This is MinHash by one permutation (Li,
Owen, Zhang 2012): one walk over the text, whatever the number of bins. A bin that no shingle falls into takes the
minimum under a permutation of its own, so that short texts obey the same law. The loops are compiled by numba.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numba import njit

SHINGLE = 5  # characters: long enough that common endings do not make texts alike, short enough for one sentence
BANDS, ROWS = 25, 5  # at an overlap of .8 a pair is missed with probability (1 - .8^5)^25 = 5e-5, at .5 half are spared
BINS = 128  # BANDS * ROWS, and three that only the estimate uses: a power of two, so that top bits choose the bin
FEW = 1024  # shingles above which repeats are taken out before bins are filled up: ten million may be one, repeated
BATCH = 1 << 15  # characters hashed at once: half a megabyte, so that they stay near the processor
SEED = np.uint64(0x2545F4914F6CDD1D)  # of the permutations: fixed, so that a rerun finds the same
_SEVEN, _ONES = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x0101010101010101)
_ODD, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


class Sketches:
    """Of N texts: what finds equal ones, what makes candidates, and what estimates an overlap.

    Attributes:
        key: uint64 [N, 2], equal for texts that are equal after levelling.
        size: int64 [N], shingles, repeats included; 0 for a text without letters and digits.
        band: uint32 [N, BANDS], hashes of ROWS bins each.
        sketch: uint64 [N, BINS / 8], eight bits of each bin, as many as an estimate needs.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        n = len(texts)
        self.key, self.size = np.empty((n, 2), np.uint64), np.empty(n, np.int64)
        self.band, self.sketch = np.empty((n, BANDS), np.uint32), np.zeros((n, BINS // 8), np.uint64)
        for first, folded in _batches(texts):
            codes, end = _codes("".join(folded)), np.cumsum([len(text) for text in folded])
            last, hashes = first + len(folded), np.empty(len(codes), np.uint64)
            rows = (a[first:last] for a in (self.key, self.size, self.band, self.sketch))
            _sketch_all(codes, end, _letters_of(codes), hashes, *rows)


def shingle_set(text: str) -> np.ndarray:
    """Sorted distinct 64-bit hashes of the text's shingles; a text shorter than one is one shingle."""
    codes = _codes(_fold(text))
    hashes = np.empty(len(codes), np.uint64)
    hashes = hashes[: _hash(codes, 0, _level(codes, 0, len(codes), _letters_of(codes)), hashes)]
    hashes.sort()
    return hashes[: _distinct(hashes)].copy()


@njit(nogil=True, cache=True)
def jaccard(a, b):  # type: ignore[no-untyped-def]
    """Jaccard index of two sorted sets."""
    i = j = both = 0
    while i < len(a) and j < len(b):
        x, y = a[i], b[j]
        both += x == y
        i += x <= y
        j += y <= x
    return both / (len(a) + len(b) - both)


@njit(nogil=True, cache=True)
def agreeing(a, b):  # type: ignore[no-untyped-def]
    """How many bins of two sketches agree; of bins that differ, one in 256 seems to."""
    differ = np.uint64(0)
    for w in range(len(a)):
        x = a[w] ^ b[w]
        x = ((x & _SEVEN) + _SEVEN | x) >> np.uint64(7) & _ONES  # 1 in each byte that is not zero
        differ += x
    return BINS - np.int64(differ * _ONES >> np.uint64(56))  # each byte of `differ` counts to 16 at most, all to 128


def _fold(text: str) -> str:
    """Lower case, compatibility characters resolved."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(number of the first, folded texts) of about BATCH characters, or one text that is longer."""
    first, n, batch = 0, 0, list[str]()
    for i, text in enumerate(texts):
        folded = _fold(text)
        if batch and n + len(folded) > BATCH:
            yield first, batch
            first, n, batch = i, 0, []
        batch.append(folded)
        n += len(folded) + 1  # empty texts are work too
    if batch:
        yield first, batch


def _codes(text: str) -> np.ndarray:
    """uint32 code points, to be written to."""
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), np.uint32)


def _letters_of(codes: np.ndarray) -> np.ndarray:
    """bool [code points], which are letters or digits; of ASCII alone if there is nothing else."""
    return _letters(128 if not len(codes) or codes.max() < 128 else 0x110000)


@cache
def _letters(n: int) -> np.ndarray:
    return np.fromiter((chr(c).isalnum() for c in range(n)), bool, n)


@njit(nogil=True, cache=True)
def _level(codes, start, end, letter):  # type: ignore[no-untyped-def]
    """Everything but letters and digits becomes one space, in place; none at the ends. The new length."""
    to, gap = start, False
    for i in range(start, end):
        c = codes[i]
        if letter[c]:
            if gap and to > start:
                codes[to] = 32
                to += 1
            codes[to] = c
            to += 1
            gap = False
        else:
            gap = True
    return to - start


@njit(nogil=True, cache=True)
def _hash(codes, start, length, out):  # type: ignore[no-untyped-def]
    """Hashes of the shingles of a levelled text, in order, into `out`; how many."""
    if length == 0:
        return 0
    width = min(SHINGLE, length)
    n = length - width + 1
    if width == SHINGLE:  # a loop of fixed length is unrolled
        for i in range(n):
            h = np.uint64(0)
            for k in range(SHINGLE):
                h = (h ^ np.uint64(codes[start + i + k])) * _ODD
                h ^= h >> np.uint64(29)
            out[i] = h
        return n
    h = np.uint64(0)
    for k in range(width):
        h = (h ^ np.uint64(codes[start + k])) * _ODD
        h ^= h >> np.uint64(29)
    out[0] = h
    return n


@njit(nogil=True, cache=True)
def _distinct(hashes):  # type: ignore[no-untyped-def]
    """Take repeats out of sorted hashes, in place; how many are left."""
    to = 0
    for i in range(len(hashes)):
        if i == 0 or hashes[i] != hashes[i - 1]:
            hashes[to] = hashes[i]
            to += 1
    return to


@njit(nogil=True, cache=True)
def _mixed(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * _MIX
    return h ^ (h >> np.uint64(32))


@njit(nogil=True, cache=True)
def _sketch_all(codes, end, letter, hashes, key, size, band, sketch):  # type: ignore[no-untyped-def]
    start, low = 0, np.empty(BINS, np.uint64)
    for i in range(len(end)):
        n = _hash(codes, start, _level(codes, start, end[i], letter), hashes)
        start, size[i] = end[i], n
        one, two = np.uint64(n), SEED
        for k in range(n):
            one, two = one * _ODD + hashes[k], two * _MIX + (hashes[k] ^ hashes[k] >> np.uint64(32))
        key[i, 0], key[i, 1] = one, two
        _fill(hashes[:n], low)
        for b in range(BANDS):
            h = np.uint64(b)
            for r in range(b * ROWS, (b + 1) * ROWS):
                h = _mixed((h ^ low[r]) * _ODD)
            band[i, b] = h >> np.uint64(32)
        for b in range(BINS):
            sketch[i, b >> 3] = sketch[i, b >> 3] << np.uint64(8) | (low[b] * _ODD) >> np.uint64(56)


@njit(nogil=True, cache=True)
def _fill(hashes, low):  # type: ignore[no-untyped-def]
    """The lowest hash that falls into each bin; where none does, the lowest under the bin's own permutation."""
    empty = np.uint64(0xFFFFFFFFFFFFFFFF)
    low[:] = empty
    for k in range(len(hashes)):
        h = _mixed(hashes[k] ^ SEED)
        b = h >> np.uint64(57)
        low[b] = min(low[b], h)
    if len(hashes) > FEW and (low == empty).any():
        hashes.sort()
        hashes = hashes[: _distinct(hashes)]
    for b in range(BINS):
        if low[b] == empty:
            own = _mixed(np.uint64(b + 1) * _ODD)
            for k in range(len(hashes)):
                low[b] = min(low[b], _mixed(hashes[k] ^ own))
