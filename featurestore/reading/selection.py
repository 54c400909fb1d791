"""Describe what of a store goes into a matrix: which SAE and pooling, which documents, which features, which form.

A `Selection` is checked when it is made, against the schema and before anything is read, so that a mistake is one
sentence and not an error in the middle of a stream. Reading is left to `matrices`, arithmetic to `csr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import MEAN, stored_pool
from featurestore.errors import StoreError
from featurestore.format.schema import SaeColumns

_TABLE_WIDTH = 1 << 24  # features: 64 MB of table; wider SAEs (none is known) are searched, which takes longer
_DTYPES = ("float32", "float64")
_BINARY_DTYPES = (*_DTYPES, "bool", "int8", "uint8", "int32", "int64")  # 0 and 1 fit all of them


@dataclass(frozen=True)
class Selection:
    """One matrix.

    Attributes:
        sae: Whose features.
        pool: A stored pooling or "mean".
        binarize: Threshold above which a value becomes 1, or None.
        dtype: Of the values.
        features: int64 [K], the features that become columns, in this order; None for all of them.
        rows: bool [documents of the store], the documents that become rows; None for all of them.
    """

    sae: SaeColumns
    pool: str
    binarize: float | None
    dtype: np.dtype
    features: np.ndarray | None
    rows: np.ndarray | None

    @classmethod
    def of(
        cls,
        sae: SaeColumns,
        pool: str,
        binarize: float | None,
        dtype: DTypeLike,
        features: Sequence[int] | np.ndarray | None,
        rows: np.ndarray | None,
    ) -> Selection:
        """Check and settle what a caller asked for.

        Raises:
            StoreError: A pooling that is not stored, a negative threshold, a dtype that cannot hold the values, or
                features that are not distinct whole numbers below d_sae.
        """
        there = [*sae.pools, *([MEAN] if "sum" in sae.pools else [])]
        if pool not in there:
            raise StoreError(
                f"no pooling '{pool}' of SAE '{sae.name}' in this store; it holds: {', '.join(there)}"
                f"{did_you_mean(pool, there)}"
            )
        if binarize is not None and not (isinstance(binarize, int | float | np.number) and binarize >= 0):
            raise StoreError(f"binarize must be a threshold >= 0, not {binarize!r}")
        allowed = _DTYPES if binarize is None else _BINARY_DTYPES
        try:
            settled = np.dtype(dtype)
        except TypeError:
            raise StoreError(f"dtype {dtype!r} is unknown; use one of {', '.join(allowed)}") from None
        if settled.name not in allowed:
            only = "" if binarize is not None else " (others only with binarize)"
            raise StoreError(f"dtype {settled.name} cannot hold these values; use one of {', '.join(allowed)}{only}")
        return cls(sae, pool, binarize, settled, None if features is None else _features(sae, features), rows)

    @property
    def stored(self) -> str:
        """The pooling that is read."""
        return stored_pool(self.pool)

    @property
    def n_columns(self) -> int:
        """Columns of the matrix."""
        return self.sae.d_sae if self.features is None else len(self.features)

    def columns(self, indices: np.ndarray) -> np.ndarray:
        """The column of each of these features, plus 1; 0 where it is left out.

        Args:
            indices: Features below d_sae, [n].

        Returns:
            int32 [n]. `features` must not be None.
        """
        assert self.features is not None
        if self.sae.d_sae <= _TABLE_WIDTH:
            return self._table[indices]
        order = np.argsort(self.features)
        place = np.searchsorted(self.features, indices, sorter=order)
        order = np.append(order, -1)  # beyond the last
        found = order[place]
        at_all = (found >= 0) & (np.append(self.features, -1)[found] == indices)
        return np.where(at_all, found + 1, 0).astype(np.int32)

    @cached_property
    def _table(self) -> np.ndarray:
        """int32 [d_sae]: feature -> its column + 1, 0 where it is left out."""
        assert self.features is not None
        table = np.zeros(self.sae.d_sae, dtype=np.int32)
        table[self.features] = np.arange(1, len(self.features) + 1, dtype=np.int32)
        return table

    @cached_property
    def keeps_order(self) -> bool:
        """Whether columns stand in the order of the features, so that sorted indices stay sorted."""
        return self.features is None or bool((np.diff(self.features) > 0).all())


def _features(sae: SaeColumns, features: Sequence[int] | np.ndarray) -> np.ndarray:
    chosen = np.asarray(features)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise StoreError("features must be a flat list of whole numbers, the features to take")
    chosen = chosen.astype(np.int64)
    if (outside := chosen[(chosen < 0) | (chosen >= sae.d_sae)]).size:
        raise StoreError(f"SAE '{sae.name}' has no feature {outside[0]}; it has features 0 to {sae.d_sae - 1}")
    if len(np.unique(chosen)) != len(chosen):
        raise StoreError("features names a feature twice; each becomes one column")
    return chosen


def runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """[start, stop) of every run of True in a bool array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
