"""In which documents features fire: their strongest, and some drawn at random, for many features in one pass.

The strongest documents show what a feature is at its most, and flatter it; those drawn at random show what it is as a
rule. The draw follows from the numbers of row and feature alone, so it is the same however the store is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.index.feature_index import Strongest
from featurestore.reader import FeatureStore

_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # splitmix64 (Steele, Lea and Flood 2014)


@dataclass(frozen=True)
class Firing:
    """Documents in which a feature fires.

    Attributes:
        strongest: int64, rows of the store, largest pooled value first.
        random: int64, rows drawn from all others in which it fires, each as likely as another, in the order drawn.
        n_documents: In how many it fires.
    """

    strongest: np.ndarray
    random: np.ndarray
    n_documents: int


def firing_documents(
    store: FeatureStore,
    sae: str,
    features: Sequence[int],
    strongest: int,
    random: int,
    rows: np.ndarray | None = None,
    seed: int = 0,
) -> dict[int, Firing]:
    """Find documents in which features fire.

    Args:
        store: An open store.
        sae: Whose features.
        features: Which, each once.
        strongest: How many of the strongest documents of each (at least 1), by the SAE's first pooling.
        random: How many drawn at random from the others.
        rows: bool [len(store)], the documents that count; all where None.
        seed: Of the draw.

    Raises:
        StoreError: No such SAE or feature, or a part is damaged.
    """
    numbers = np.flatnonzero(rows) if rows is not None else np.arange(len(store))
    n = len(features)
    most, drawn = Strongest(n, strongest), Strongest(n, strongest + random)  # the strongest may be among the drawn
    frequency, first = np.zeros(n, np.int64), 0
    for X, _ in store.batches(sae, store.sae(sae).pools[0], rows=rows, features=features):
        frequency += np.bincount(X.indices, minlength=n)
        most.add(X.indptr, X.indices, X.data, first)
        at = np.repeat(numbers[first : first + X.shape[0]], np.diff(X.indptr))
        drawn.add(X.indptr, X.indices, _lots(at, np.asarray(features)[X.indices], seed), first)
        first += X.shape[0]
    (top_at, top, _), (drawn_at, lots, _) = most.result(), drawn.result()
    found = {}
    for k, feature in enumerate(features):
        best = top[top_at[k] : top_at[k + 1]]
        others = lots[drawn_at[k] : drawn_at[k + 1]]
        others = others[~np.isin(others, best)][:random]
        found[int(feature)] = Firing(numbers[best], numbers[others], int(frequency[k]))
    return found


def draw(rows: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Some of these rows (int64, each once), each as likely as another; the same rows give the same draw."""
    lots = _lots(rows, np.full(len(rows), (1 << 24) - 1), seed)  # no feature's: an SAE has fewer
    return np.sort(rows[np.argsort(-lots, kind="stable")[:n]])


def _lots(rows: np.ndarray, features: np.ndarray, seed: int) -> np.ndarray:
    """float32 in (0, 1], as good as random, from rows, features and seed; the largest are drawn."""
    with np.errstate(over="ignore"):
        mixed = (rows.astype(np.uint64) << np.uint64(24)) ^ features.astype(np.uint64)
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        for shift, factor in _MIX:
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(40)).astype(np.float32) + 1) / np.float32(1 << 24)
