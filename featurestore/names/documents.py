"""Which documents names are made from: for each feature some where it fires, and the same others for all of them.

The documents of a feature do not depend on which other features are asked for, so its name does not either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.index.firing import Firing, draw, firing_documents
from featurestore.reader import FeatureStore

STRONGEST = RANDOM = 20  # of each feature: seconds of a small model, and enough that a word can stand out
OTHERS = 40  # drawn from all, where most features are silent: what is common here


def name_documents(
    store: FeatureStore, sae: str, features: Sequence[int], rows: np.ndarray | None = None, seed: int = 0
) -> tuple[dict[int, Firing], dict[int, list[int]]]:
    """Choose documents.

    Args:
        store: An open store.
        sae: Whose features.
        features: Which, each once.
        rows: bool [len(store)], the documents that count; all where None.
        seed: Of what is drawn.

    Returns:
        Feature -> where it fires; and row -> the features that it tells about, in the order of rows.

    Raises:
        StoreError: No such SAE or feature, or a part is damaged.
    """
    firing = firing_documents(store, sae, features, STRONGEST, RANDOM, rows, seed)
    counted = store.documents().select("n_tokens").collect()["n_tokens"].to_numpy() > 0  # failed ones have none
    others = draw(np.flatnonzero(counted if rows is None else counted & rows), OTHERS, seed)
    told: dict[int, list[int]] = {row: list(features) for row in others.tolist()}
    for feature, one in firing.items():
        for row in [*one.strongest.tolist(), *one.random.tolist()]:
            if feature not in (about := told.setdefault(row, [])):
                about.append(feature)
    return firing, dict(sorted(told.items()))
