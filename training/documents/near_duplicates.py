"""Find near-duplicate texts, so that a split can keep them on one side: else a test set holds what was learnt by heart.

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
BLOCK = 2048  # texts that go through all bands together: what is known of them stays near the processor
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
    sketches, sets = Sketches(texts), _Sets(texts)
    parent = np.arange(len(texts))
    unique = _join_equal(sketches, parent)
    buckets, first, place, worth = _buckets(sketches, unique)
    # Texts that are alike come soon after one another, so that the shingles of few are needed at a time.
    order = unique[worth[unique] > 0]
    order = order[np.argsort(sketches.sketch[order, 0], kind="stable")]
    tried, vain = np.full(len(texts), -1), np.zeros(len(texts), np.uint16)
    for begin in range(0, len(order), BLOCK):
        block = order[begin : begin + BLOCK]
        for band in range(BANDS):
            at = 0
            while at < len(block):
                at, missing = _compare(
                    block, at, band, buckets, first, place, worth, sketches.sketch, parent, tried, vain, *sets.kept
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


def _buckets(sketches: Sketches, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Texts with the same key in a band, side by side.

    Args:
        sketches: Of N texts; the keys are overwritten.
        texts: int64 [U], those that count.

    Returns:
        uint32 [BANDS, U], texts by bucket; uint32 [N, BANDS], where the bucket of each begins there; uint8 [N, BANDS],
        how many come before it in its bucket, up to BUCKET; uint32 [N], a bit for each band in which one of these is
        likely to be alike.
    """
    band = sketches.band
    buckets, place = np.empty((BANDS, len(texts)), np.uint32), np.full(band.shape, BUCKET, np.uint8)
    worth = np.zeros(len(band), np.uint32)
    at, new = np.arange(len(texts)), np.ones(len(texts), bool)
    for b in range(BANDS):
        # Each band begins elsewhere, so that the first texts of large buckets are others in each.
        mine = np.roll(texts, b * len(texts) // BANDS)
        both = np.sort(band[mine, b].astype(np.uint64) << np.uint64(32) | at.astype(np.uint64))  # faster than argsort
        key, member = both >> np.uint64(32), mine[(both & np.uint64(0xFFFFFFFF)).astype(np.int64)]
        new[1:] = key[1:] != key[:-1]
        start = np.maximum.accumulate(np.where(new, at, 0))
        buckets[b], band[member, b], place[member, b] = member, start, np.minimum(at - start, BUCKET)
        _mark(member, start, b, sketches.sketch, worth)
    return buckets, band, place, worth


@njit(nogil=True, cache=True)
def _mark(member, start, band, sketch, worth):  # type: ignore[no-untyped-def]
    """Set the bit of a band in `worth`; here, where a bucket's texts follow one another, estimates cost least."""
    for at in range(len(member)):
        i, first = member[at], start[at]
        for j in member[first : min(at, first + BUCKET)]:
            if agreeing(sketch[i], sketch[j]) >= _ENOUGH:
                worth[i] |= np.uint32(1) << np.uint32(band)
                break


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
def _compare(block, at, band, buckets, first, place, worth, sketch, parent, tried, vain, kept, where):  # type: ignore[no-untyped-def]
    """Compare texts with those before them in their buckets, and join those that are alike.

    Args:
        block: int64 [B], some texts.
        at: Where to go on.
        band: Which buckets.
        buckets, first, place, worth: As `_buckets` returns them.
        sketch: As in `Sketches`.
        parent: Of the clusters.
        tried: int64 [N], the last text that each was compared with in vain.
        vain: uint16 [N], how often that happened to a text in large buckets.
        kept, where: As in `_Sets`.

    Returns:
        (where to go on next, a text whose shingles are needed before that); -1 at the end.
    """
    alike, found = np.empty(BUCKET, np.int64), np.empty(BUCKET, np.int64)
    for now in range(at, len(block)):
        i = block[now]
        inside = place[i, band]
        if not worth[i] >> np.uint32(band) & np.uint32(1) or (inside == BUCKET and vain[i] >= VAIN):
            continue
        start, root, n = np.int64(first[i, band]), _find(parent, i), 0
        for j in buckets[band, start : start + inside]:
            if parent[j] == root or tried[j] == i:
                continue
            same = agreeing(sketch[i], sketch[j])
            if same < _ENOUGH or _find(parent, j) == root or _met(i, j, band, first, place):
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
            else:
                tried[j] = i
                vain[i] += inside == BUCKET
    return len(block), -1


@njit(nogil=True, cache=True)
def _met(i, j, band, first, place):  # type: ignore[no-untyped-def]
    """Whether the buckets of an earlier band have two texts compared."""
    for b in range(band):  # noqa: SIM110  (numba compiles no generators)
        if first[i, b] == first[j, b] and min(place[i, b], place[j, b]) < BUCKET:
            return True
    return False


@njit(nogil=True, cache=True)
def _find(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
