"""Near-duplicate texts, found so that a split can keep them together: else the test set holds what was learnt by heart.

Two texts are near-duplicates when the sets of their five-character shingles (after case, punctuation and spacing are
levelled) overlap by a Jaccard index of at least `SIMILAR`. Texts equal after levelling are found by a hash of 128 bits;
the others by MinHash sketches cut into bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3), whose
candidates are then compared exactly, so the bands can miss a pair (1 in 20,000 at the threshold, fewer above) but never
invent one. Characters instead of words, because a shingle of words needs a language with spaces.

Texts that share a footer or a template fall into one bucket by the thousand. There a text is compared with the
`BUCKET` first ones only, exactly with the `LOOKS` likeliest of these that are not in its cluster yet, and no more when
`VAIN` such looks were in vain: time stays linear in the documents, and where the common part is itself more than about
three quarters of each text, pairs that barely pass the threshold can be missed. Texts are taken in the order of their hashes, so clusters depend on no other order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numba import njit

from training.shingles import BANDS, BINS, Sketches, agreeing, jaccard, shingle_set

SIMILAR = 0.8  # the usual threshold of corpus deduplication; a template with another word filled in lies below it
PROMISING = SIMILAR - 0.15  # estimated overlap below which no exact look is taken: four standard errors of 128 bins
BUCKET = 64  # texts of one bucket compared with each other; the rest of a larger one is compared with these
LOOKS = 2  # exact ones that such a text gets in one bucket: those of a template join at the first, others at none
VAIN = 16  # of them, over all buckets, that found nothing: the likeliest of 64 came first, eight times
CACHED = 64 << 20  # bytes of shingles kept: of some ten thousand texts, and candidates come in runs
_ENOUGH = round(PROMISING * BINS)


def near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """Clusters of near-duplicates: chains of pairs, each alike by at least `SIMILAR`.

    Args:
        texts: N texts.

    Returns:
        int64 [N], a cluster number for each text; a text without near-duplicate has a cluster of its own. Empty texts
        are nobody's duplicates.
    """
    sketches = Sketches(texts)
    parent = np.arange(len(texts))
    unique = _join_equal(sketches, parent)
    place = np.full((len(texts), BANDS), BUCKET, np.uint8)
    vain = np.zeros(len(texts), np.uint8)
    found, sets = np.empty(BUCKET, np.int64), _Sets(texts)
    for band in range(BANDS):
        member, start = _buckets(sketches.band[unique, band])
        member, at = unique[member], 0
        while at < len(member):
            at, n = _promising(member, start, at, band, parent, place, vain, sketches.band, sketches.sketch, found)
            i = member[at - 1]
            for j in found[:n]:
                if _find(parent, i) == _find(parent, j):
                    continue
                if jaccard(sets.of(i), sets.of(j)) >= SIMILAR:
                    _join(parent, i, j)
                elif place[i, band] == BUCKET:
                    vain[i] += 1
    roots = np.array([_find(parent, i) for i in range(len(texts))], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _join_equal(sketches: Sketches, parent: np.ndarray) -> np.ndarray:
    """Texts that are equal get one parent; the first of each, without empty ones, in the order of their hashes."""
    order = np.lexsort((sketches.key[:, 1], sketches.key[:, 0]))
    order = order[sketches.size[order] > 0]
    key = sketches.key[order]
    new = np.ones(len(order), bool)
    new[1:] = (key[1:] != key[:-1]).any(axis=1)
    unique = order[new]
    parent[order] = unique[np.cumsum(new) - 1]  # the sort is stable: the first of equals has the lowest number
    return unique


def _buckets(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [U], places of the keys so that equal ones are side by side; int64 [U], where the bucket of each begins)."""
    both = np.sort(key.astype(np.uint64) << np.uint64(32) | np.arange(len(key), dtype=np.uint64))  # faster than argsort
    key, at = both >> np.uint64(32), np.arange(len(both))
    new = np.ones(len(both), bool)
    new[1:] = key[1:] != key[:-1]
    return (both & np.uint64(0xFFFFFFFF)).astype(np.int64), np.maximum.accumulate(np.where(new, at, 0))


class _Sets:
    """Shingles of texts, the last ones used kept."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self._kept, self._bytes = texts, OrderedDict[int, np.ndarray](), 0

    def of(self, i: int) -> np.ndarray:
        """Those of text i."""
        there = self._kept.pop(i, None)
        if there is None:
            there = shingle_set(self._texts[i])
            self._bytes += there.nbytes
            while self._kept and self._bytes > CACHED:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[i] = there
        return there


@njit(nogil=True, cache=True)
def _promising(member, start, at, band, parent, place, vain, bands, sketch, found):  # type: ignore[no-untyped-def]
    """Go on through the buckets of a band to the next text that an exact look should be taken of.

    Args:
        member, start: int64 [U], texts and where their buckets begin.
        at: Where to go on.
        band, bands: Which band, and the keys of all; with `place`, the place of each text in its buckets up to
            BUCKET, they tell which pairs an earlier band had in the same bucket.
        parent: Of the clusters.
        vain: uint8 [N], looks in large buckets that were.
        sketch: As in `Sketches`.
        found: Gets the texts to compare `member[at - 1]` with, the likeliest first.

    Returns:
        (where to go on next, how many were found); none at the end.
    """
    alike = np.empty(BUCKET, np.int64)
    while at < len(member):
        i, first = member[at], start[at]
        inside = min(at - first, BUCKET)
        place[i, band] = inside
        at += 1
        if inside == 0 or (inside == BUCKET and vain[i] >= VAIN):
            continue
        root, n = _find(parent, i), 0
        most = LOOKS if inside == BUCKET else BUCKET
        for j in member[first : first + inside]:
            if parent[j] == root:
                continue
            same = agreeing(sketch[i], sketch[j])
            if same < _ENOUGH or _find(parent, j) == root or _met(i, j, band, place, bands):
                continue
            k = min(n, most - 1)
            if n == most and same <= alike[k]:
                continue
            while k > 0 and alike[k - 1] < same:
                alike[k], found[k] = alike[k - 1], found[k - 1]
                k -= 1
            alike[k], found[k] = same, j
            n = min(n + 1, most)
        if n:
            return at, n
    return at, 0


@njit(nogil=True, cache=True)
def _met(i, j, band, place, bands):  # type: ignore[no-untyped-def]
    """Whether two texts were compared in an earlier band."""
    for b in range(band):
        if bands[i, b] == bands[j, b] and max(place[i, b], place[j, b]) < BUCKET:
            return True
    return False


@njit(nogil=True, cache=True)
def _find(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True, cache=True)
def _join(parent, i, j):  # type: ignore[no-untyped-def]
    a, b = _find(parent, i), _find(parent, j)
    parent[max(a, b)] = min(a, b)
