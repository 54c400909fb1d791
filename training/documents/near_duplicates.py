"""Near-duplicate texts, found so that a split can keep them together: else the test set holds what was learnt by heart.

Two texts are near-duplicates when the sets of their five-character shingles (after case, punctuation and spacing are
levelled) overlap by a Jaccard index of at least `SIMILAR`. Texts equal after levelling are found by a hash of 128 bits;
the others by MinHash sketches cut into bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3), whose
candidates are then compared exactly, so the bands can miss a pair (1 in 20,000 at the threshold, fewer above) but never
invent one. Characters instead of words, because a shingle of words needs a language with spaces.

Texts that share a footer or a template fall into one bucket by the thousand. There a text is compared with `BUCKET`
others of each bucket only, the likeliest first, until `VAIN` comparisons have been in vain: time stays linear in the
documents, and where the common part is itself more than about three quarters of each text, pairs that barely pass the
threshold can be missed. Texts are taken in the order of their hashes, so clusters depend on no other order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from training.documents.shingles import BANDS, BINS, Sketches, agreeing, jaccard, shingle_set

SIMILAR = 0.8  # the usual threshold of corpus deduplication; a template with another word filled in lies below it
PROMISING = SIMILAR - 0.15  # estimated overlap below which no exact look is taken: four standard errors of 128 bins
BUCKET = 64  # texts of one bucket compared with each other; the rest of a larger one is compared with these
VAIN = 1000  # exact looks without success after which a text of large buckets gets no more: a millisecond
KEPT = 8 << 20  # shingles kept, 64 MB: of some ten thousand texts, and the same ones are needed again and again
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
    place, vain = np.full((len(texts), BANDS), BUCKET, np.uint8), np.zeros(len(texts), np.uint16)
    sets = _Sets(texts)
    for band in range(BANDS):
        # Each band begins elsewhere, so that the first texts of large buckets are others in each.
        mine = np.roll(unique, band * len(unique) // BANDS)
        member, start = _buckets(sketches.band[mine, band])
        member, at = mine[member], 0
        while at < len(member):
            at, missing = _compare(
                member, start, at, band, parent, place, vain, sketches.band, sketches.sketch, *sets.kept
            )
            if missing >= 0:
                sets.add(missing)
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
    """int64 [U], places of the keys so that equal ones are side by side, and int64 [U], where each's bucket begins."""
    both = np.sort(key.astype(np.uint64) << np.uint64(32) | np.arange(len(key), dtype=np.uint64))  # faster than argsort
    key, at = both >> np.uint64(32), np.arange(len(both))
    new = np.ones(len(both), bool)
    new[1:] = key[1:] != key[:-1]
    return (both & np.uint64(0xFFFFFFFF)).astype(np.int64), np.maximum.accumulate(np.where(new, at, 0))


class _Sets:
    """Shingles of the texts that were looked at last, where compiled code finds them.

    Attributes:
        kept: Shingles one text after the other; int64 [N, 2], where those of a text begin and end, -1 if not there.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self._used = texts, 0
        self.kept = np.empty(KEPT, np.uint64), np.full((len(texts), 2), -1)

    def add(self, i: int) -> None:
        """Keep those of text i; when there is no room left, all others go."""
        (kept, where), found = self.kept, shingle_set(self._texts[i])
        if self._used + len(found) > len(kept):
            where[:], self._used = -1, 0
            if 2 * len(found) > len(kept):  # any two have room
                self.kept = kept, where = np.empty(2 * len(found), np.uint64), where
        where[i] = self._used, self._used + len(found)
        kept[slice(*where[i])] = found
        self._used = where[i, 1]


@njit(nogil=True, cache=True)
def _compare(member, start, at, band, parent, place, vain, bands, sketch, kept, where):  # type: ignore[no-untyped-def]
    """Go on through the buckets of a band, comparing texts and joining those that are alike.

    Args:
        member, start: int64 [U], texts and where their buckets begin.
        at: Where to go on.
        band, bands: Which band, and the keys of all; with `place`, the place of each text in its buckets up to
            BUCKET, they tell which pairs an earlier band had in the same bucket.
        parent: Of the clusters.
        vain: uint16 [N], looks in large buckets that were.
        sketch: As in `Sketches`.
        kept, where: As in `_Sets`.

    Returns:
        (where to go on next, a text whose shingles are needed before that); -1 when the band is done.
    """
    alike, found = np.empty(BUCKET, np.int64), np.empty(BUCKET, np.int64)
    for now in range(at, len(member)):
        i, first = member[now], start[now]
        inside = min(now - first, BUCKET)
        place[i, band] = inside
        root, n = _find(parent, i), 0
        for j in member[first : first + inside]:
            if parent[j] == root:
                continue
            same = agreeing(sketch[i], sketch[j])
            if same < _ENOUGH or _find(parent, j) == root or _met(i, j, band, place, bands):
                continue
            k = n
            while k > 0 and alike[k - 1] < same:
                alike[k], found[k] = alike[k - 1], found[k - 1]
                k -= 1
            alike[k], found[k] = same, j
            n += 1
        for j in found[:n]:
            if inside == BUCKET and vain[i] >= VAIN:
                break
            if _find(parent, j) == _find(parent, i):
                continue
            for t in (i, j):
                if where[t, 0] < 0:
                    return now, t
            if jaccard(kept[where[i, 0] : where[i, 1]], kept[where[j, 0] : where[j, 1]]) >= SIMILAR:
                a, b = _find(parent, i), _find(parent, j)
                parent[max(a, b)] = min(a, b)
            elif inside == BUCKET:
                vain[i] += 1
    return len(member), -1


@njit(nogil=True, cache=True)
def _met(i, j, band, place, bands):  # type: ignore[no-untyped-def]
    """Whether two texts were compared in an earlier band."""
    for b in range(band):  # noqa: SIM110  (numba compiles no generators)
        if bands[i, b] == bands[j, b] and min(place[i, b], place[j, b]) < BUCKET:
            return True
    return False


@njit(nogil=True, cache=True)
def _find(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
