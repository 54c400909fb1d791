"""Stores from Python: open one, and read what its features mean in words. No Ray and no torch is needed for either."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from featurestore.reader import FeatureStore
from sparsemill.quiet_calls import path_of

if TYPE_CHECKING:
    import polars as pl


def open(place: str | os.PathLike[str], partial: bool = False) -> FeatureStore:
    """Open a store for reading.

    Args:
        place: Its directory or URL.
        partial: Whether to accept one that is still being written.

    Raises:
        StoreError: There is none, it was edited, or it is incomplete and `partial` is false.
    """
    return FeatureStore.open(path_of(place, "a store"), partial)


def names(
    store: FeatureStore | str | os.PathLike[str],
    sae: str | None = None,
    features: Sequence[int] | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> pl.DataFrame:
    """Names of an SAE's features that were imported, fetched or made on this machine.

    Args:
        store: An open store, or its place.
        sae: Which SAE; may be left out if the store has only one.
        features: Of these only.
        directory: Where tables of names lie; this machine's cache where None.

    Returns:
        A row for each name, the best of a feature first: `feature`, `text`, `source`, `explainer`, `method`, `licence`,
        `origin`. None where nothing was named yet.

    Raises:
        StoreError: No such store or SAE.
        NamesError: The table is damaged, or the store does not record which encoder it is.
    """
    import polars as pl

    from featurestore.names.table import NameTable
    from featurestore.names.which_sae import sae_of_store

    opened = store if isinstance(store, FeatureStore) else FeatureStore.open(path_of(store, "a store"), partial=True)
    which = sae_of_store(opened, sae)
    rows = NameTable.open(which.sha256, which.d_sae, directory).names(features)
    texts = dict.fromkeys(("text", "source", "explainer", "method", "licence", "origin"), pl.String)
    return pl.DataFrame([asdict(row) for row in rows], schema={"feature": pl.Int64, **texts})
