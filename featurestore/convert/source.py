"""What an export writes: one SAE's features of a store, read batch by batch as often as a format needs.

The rows are those of `FeatureStore.matrix`, in input order. Formats are left to the modules that write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class Source:
    """What is exported; `blocks` reads it from the start each time."""

    store: FeatureStore
    sae: str
    pool: str
    binarize: float | None
    d_sae: int
    label: str | None

    def blocks(self) -> Iterator[csr_matrix]:
        """CSR matrices [rows of a batch, d_sae], in input order."""
        for X, _ in self.store.batches(self.sae, self.pool, binarize=self.binarize):
            yield X

    def indptr(self) -> np.ndarray:
        """int64 [rows + 1]: where each row's non-zeros begin."""
        pieces = [np.zeros(1, np.int64), *(np.diff(X.indptr).astype(np.int64) for X in self.blocks())]
        return np.cumsum(np.concatenate(pieces))
