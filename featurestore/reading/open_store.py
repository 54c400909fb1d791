"""Say as a type what reading needs of an open store; `featurestore.reader.FeatureStore` is one.

`FeatureStore` calls the functions of this room, so they cannot import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from featurestore.format.schema import SaeColumns
    from featurestore.format.store_plan import StorePlan
    from featurestore.reading.matrices import Matrix


class OpenStore(Protocol):
    """An open store; its members are described at `FeatureStore`."""

    uri: str
    plan: StorePlan
    units: tuple[int, ...]
    complete: bool

    def __len__(self) -> int:
        """Documents in the parts that are there."""
        ...

    def documents(self) -> pl.LazyFrame:
        """The documents' metadata."""
        ...

    def sae(self, name: str | None = None) -> SaeColumns:
        """The columns of an SAE."""
        ...

    def mask(self, rows: pl.Expr | np.ndarray) -> np.ndarray:
        """bool [len(store)]: a row selection, applied."""
        ...

    def batches(self, sae: str | None = None, pool: str = "max", *, rows: np.ndarray | None = None) -> Iterator[Matrix]:
        """The rows of `matrix`, some at a time."""
        ...

    def part_bytes(self, unit: int) -> int:
        """Size of the part of a unit that is there."""
        ...
