"""Divide sampling units of any size into parts of given shares, where a plain stratified draw fails on large units.

The algorithm is greedy multiway number partitioning (Graham 1969), with classes. Units are placed one after the other,
large ones first, in an order that the seed shuffles. Each goes to the part whose counts of its classes it brings
nearest to their shares. When only as many units of a class are left as there are parts that need one, they go to
these. Several orders are tried until nothing is missing and no share is far off; otherwise the best try counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

PLACED = 100_000  # units placed in all tries, a blink of an eye; a first try is good unless units are few
SHUFFLES = (8.0, 64.0, 512.0)  # units whose sizes differ by up to such a factor come in any order: so seeds differ, and
# what large ones first cannot reach is tried too
OFF = 0.25  # a share that is off by as much of itself is far off


class Tally(NamedTuple):
    """What B parts hold of C classes: documents int64 [B, C], and in how many of their units each class occurs."""

    documents: np.ndarray
    units: np.ndarray


def unit_counts(code: np.ndarray, unit: np.ndarray, n_codes: int) -> Any:
    """CSR int64 [U, n_codes], documents of each code (of a class, say) in each unit.

    Args:
        code: int64 [n], below n_codes.
        unit: int64 [n], below U.
        n_codes: How many codes there are.
    """
    from scipy.sparse import coo_array

    shape = (int(unit.max()) + 1, n_codes)
    return coo_array((np.ones(len(unit), dtype=np.int64), (unit, code)), shape=shape).tocsr()


def tally(counts: Any, part: np.ndarray, n_parts: int) -> Tally:
    """Count what parts hold.

    Args:
        counts: CSR int64 [U, C], documents of each class in each unit.
        part: int64 [U], below
        n_parts: B.
    """
    from scipy.sparse import coo_array

    shape = (n_parts, len(part))
    member = coo_array((np.ones(len(part), dtype=np.int64), (part, np.arange(len(part)))), shape=shape).tocsr()
    return Tally((member @ counts).toarray(), (member @ (counts > 0).astype(np.int64)).toarray())


def far_off(have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether counts of documents are off by a quarter of the wanted ones, and by more than rounding explains."""
    return np.abs(have - wanted) >= np.maximum(OFF * wanted, 1.0)


def divide(counts: Any, share: np.ndarray, need: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which part each unit comes to.

    Args:
        counts: CSR int64 [U, C], documents of each class in each unit.
        share: float64 [B], of all documents that each part is to have; they sum to one.
        need: int64 [B, C], units of each class that each part is to have at least.
        rng: Decides the order.

    Returns:
        int64 [U], parts below B.
    """
    from training.documents.greedy import place

    wanted = share[:, None] * np.asarray(counts.sum(axis=0))
    best, least = np.zeros(counts.shape[0], dtype=np.int64), (np.inf, np.inf)
    size = np.asarray(counts.sum(axis=1))
    for attempt in range(int(np.clip(PLACED // len(size), 2, 100))):
        shuffle = rng.uniform(0.0, np.log(SHUFFLES[attempt % len(SHUFFLES)]), len(size))
        order = np.argsort(-np.log(size) - shuffle)
        part = place(counts.indptr, counts.indices, counts.data, order, wanted, need)
        have = tally(counts, part, len(share))
        missing = np.maximum(need - have.units, 0).sum()
        if not missing and not far_off(have.documents, wanted).any():
            return part
        cost = (missing, ((have.documents - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())
        if cost < least:
            best, least = part, cost
    return best
