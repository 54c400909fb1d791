"""Put several stores of one corpus side by side, so that row i of each is the same document.

Another layer, another model or another SAE of a corpus is another store beside the first. `align` matches them by
`doc_id`; order and units of the stores need not agree. What a store lacks is reported, and documents are left out only
where that was asked for. Reading each store is left to `reader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StoreError
from featurestore.reader import FeatureStore, Matrix
from featurestore.reading.documents import IdReport, id_report, stored_ids
from featurestore.storage.files import shown
from featurestore.tables.same_value import match_ids

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class AlignedStores:
    """Stores matched by id; make one with `align`.

    Attributes:
        stores: Name -> store, in the order given.
        doc_id: object array of N strings: the documents that all stores have, in the order of the first.
        position: Name -> int64 [N], the row of each of these documents in that store.
        reports: Name -> what that store lacks of the first store's ids, and has beyond them.
    """

    stores: Mapping[str, FeatureStore]
    doc_id: np.ndarray
    position: Mapping[str, np.ndarray]
    reports: Mapping[str, IdReport]

    def matrix(self, name: str, sae: str | None = None, pool: str = "max", **options: Any) -> Matrix:
        """Features of the N documents from one store.

        Args:
            name: Which store.
            sae, pool: As for `FeatureStore.matrix`.
            options: Its `binarize`, `features` and `dtype`.

        Returns:
            A `Matrix` [N, d_sae or features] in the order of `doc_id`.
        """
        store, position = self._store(name), self.position[name]
        mask = np.zeros(len(store), dtype=bool)
        mask[position] = True
        X = store.matrix(sae, pool, rows=None if mask.all() else mask, **options).X
        if (np.diff(position) < 0).any():  # stores of one job order their documents alike, and then nothing is copied
            X = X[np.searchsorted(np.flatnonzero(mask), position)]
        return Matrix(X, self.doc_id)

    def concatenated(self, blocks: Sequence[tuple[str, str | None, str]], **options: Any) -> Concatenated:
        """Features of several stores as one matrix.

        Args:
            blocks: (store, SAE, pooling) of each block of columns; the SAE may be None if its store has only one.
            options: `binarize` and `dtype`, for all of them.

        Returns:
            The columns of the first block, then those of the second, and so on.
        """
        from scipy.sparse import hstack

        parts = [self.matrix(name, sae, pool, **options).X for name, sae, pool in blocks]
        start = np.concatenate([[0], np.cumsum([X.shape[1] for X in parts])]).astype(np.int64)
        return Concatenated(hstack(parts, format="csr"), self.doc_id, start)

    def same_encoder(self, first: tuple[str, str], second: tuple[str, str]) -> bool | None:
        """Whether two SAEs, each given as (store, SAE), are one encoder, so that feature f of both is the same feature.

        Returns:
            By their sha256s; None where a store does not say, as stores of earlier versions do not.
        """
        one, other = (self._store(name).encoders[self._store(name).sae(sae).name] for name, sae in (first, second))
        return None if one is None or other is None else one == other

    def dense(self, name: str, column: str) -> np.ndarray:
        """float32 [N, dim] of a dense column of one store, in the order of `doc_id`; see `FeatureStore.dense`."""
        return self._store(name).dense(column)[self.position[name]]

    def _store(self, name: str) -> FeatureStore:
        if name not in self.stores:
            hint = did_you_mean(name, self.stores)
            raise StoreError(f"no store is called '{name}' here; there are: {', '.join(self.stores)}{hint}")
        return self.stores[name]


@dataclass(frozen=True)
class Concatenated:
    """Blocks of columns put together.

    Attributes:
        X: scipy.sparse.csr_matrix [N, columns].
        doc_id: object array of N strings.
        start: int64 [blocks + 1]; block b has the columns start[b]:start[b + 1], its feature f is column start[b] + f.
    """

    X: csr_matrix
    doc_id: np.ndarray
    start: np.ndarray


def align(stores: Mapping[str, FeatureStore], common: bool = False) -> AlignedStores:
    """Match stores by `doc_id`, as ids compare everywhere (`featurestore.tables.same_value`).

    Args:
        stores: Name -> store; at least one. Stores opened with `partial=True` take part with what they have.
        common: Whether to go on with the documents that all have, where their ids differ.

    Raises:
        StoreError: Ids differ and `common` is false (the message counts and names them), or no document is common.
    """
    if not stores:
        raise StoreError("align: give at least one store")
    for name, store in stores.items():
        if not isinstance(store, FeatureStore):
            raise StoreError(f"align: '{name}' must be an open store, not {type(store).__name__}; open it first")
    ids = {name: stored_ids(store) for name, store in stores.items()}
    first, *others = stores
    found = {name: match_ids(ids[first], ids[name]) for name in stores}
    if clash := next((name for name in stores if found[name].clash), None):
        where = f"{shown(stores[first].uri)} and {shown(stores[clash].uri)}"
        raise StoreError(f"{where} cannot be aligned: {found[clash].clash}; write each id in one way")
    reports = {name: id_report(ids[first], ids[name], found[name]) for name in stores}
    different = [name for name in others if not reports[name].same]
    if different and not common:
        what = "; ".join(f"{shown(stores[name].uri)} has {reports[name]}" for name in different)
        raise StoreError(
            f"ids differ from those of {shown(stores[first].uri)}: {what}; align with common=True to go on with the "
            "documents that all have"
        )
    position = {name: _places(match.row, len(ids[first])) for name, match in found.items()}
    shared = np.logical_and.reduce([row >= 0 for row in position.values()])
    if not shared.any() and any(len(column) for column in ids.values()):
        raise StoreError(f"{' and '.join(shown(store.uri) for store in stores.values())} have no document in common")
    doc_id = ids[first].filter(shared).to_numpy()
    return AlignedStores(dict(stores), doc_id, {name: row[shared] for name, row in position.items()}, reports)


def _places(row: np.ndarray, n: int) -> np.ndarray:
    """int64 [n]: where each of n ids stands in a column of which `row` says which of the n each is; -1 for nowhere."""
    place = np.full(n, -1, dtype=np.int64)
    place[row[row >= 0]] = np.flatnonzero(row >= 0)
    return place
