"""Near-duplicate texts, found so that a split can keep them together: else the test set holds what was learnt by heart.

Two texts are near-duplicates when the sets of their five-character shingles (after case, punctuation and spacing are
levelled) overlap by a Jaccard index of at least `SIMILAR`. Texts equal after levelling are found by hashing; the others
by MinHash signatures cut into bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3), whose candidates
are then compared exactly, so the bands can miss a pair (1 in 20,000 at the threshold, fewer above) but never invent
one. Characters instead of words, because a shingle of words needs a language with spaces.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

SHINGLE = 5  # characters: long enough that common endings do not make texts alike, short enough for one sentence
SIMILAR = 0.8  # the usual threshold of corpus deduplication; a template with another word filled in lies below it
BANDS, ROWS = 25, 5  # at an overlap of .8 a pair is missed with probability (1 - .8^5)^25 = 5e-5, at .5 half are spared
PROMISING = SIMILAR - 0.15  # estimated overlap below which no exact look is taken: four standard errors of 125 hashes
BUCKET = 64  # texts of one bucket compared with each other; the rest of a larger one is compared with these
SEED = 20_250_217  # of the hash functions: fixed, so that a rerun finds the same


def near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """Clusters of near-duplicates: chains of pairs, each alike by at least `SIMILAR`.

    Args:
        texts: N texts.

    Returns:
        int64 [N], a cluster number for each text; a text without near-duplicate has a cluster of its own. Empty texts
        are nobody's duplicates.
    """
    levelled = [_level(text) for text in texts]
    first: dict[bytes, int] = {}
    parent = np.arange(len(texts))
    unique = []
    for i, text in enumerate(levelled):
        if not text:
            continue
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if key in first:
            _join(parent, first[key], i)
        else:
            first[key] = i
            unique.append(i)
    shingles = [_shingles(levelled[i]) for i in unique]
    signatures = _signatures(shingles)
    for a, b in _candidates(signatures):
        i, j = unique[a], unique[b]
        if _find(parent, i) != _find(parent, j) and _jaccard(shingles[a], shingles[b]) >= SIMILAR:
            _join(parent, i, j)
    roots = np.array([_find(parent, i) for i in range(len(texts))], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _level(text: str) -> str:
    """Lower case, compatibility characters resolved, everything but letters and digits one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def _shingles(text: str) -> np.ndarray:
    """Sorted distinct 64-bit hashes of the text's shingles; a text shorter than one is one shingle."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = min(SHINGLE, len(codes))
    hashed = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for k in range(width):
        hashed = (hashed ^ codes[k : k + len(hashed)]) * np.uint64(0x9E3779B97F4A7C15)
        hashed ^= hashed >> np.uint64(29)
    return np.unique(hashed)


def _signatures(shingles: Sequence[np.ndarray]) -> np.ndarray:
    """MinHash signatures, uint64 [texts, BANDS * ROWS]."""
    rng = np.random.default_rng(SEED)
    factor = rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offset = rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)
    out = np.empty((len(shingles), BANDS * ROWS), dtype=np.uint64)
    for i, hashes in enumerate(shingles):
        mixed = hashes[:, None] * factor + offset
        out[i] = (mixed ^ (mixed >> np.uint64(32))).min(axis=0)
    return out


def _candidates(signatures: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that share a band and whose signatures agree enough for an exact look, each once."""
    seen: set[tuple[int, int]] = set()
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for i, row in enumerate(np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])):
            buckets[row.tobytes()].append(i)
        for members in buckets.values():
            for position, b in enumerate(members):
                for a in members[: min(position, BUCKET)]:
                    if (a, b) not in seen:
                        seen.add((a, b))
                        if (signatures[a] == signatures[b]).mean() >= PROMISING:
                            yield a, b


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def _find(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _join(parent: np.ndarray, i: int, j: int) -> None:
    a, b = sorted((_find(parent, i), _find(parent, j)))
    parent[b] = a
