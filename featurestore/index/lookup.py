"""Look up one document's strongest features, or the documents of one feature.

Small results for the eye and for JSON. A document costs the reading of its row group, a feature one row of the index
(`feature_index`), which the first look-up builds. Statistics over many features are left to `reading.statistics`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.errors import StoreError
from featurestore.format.rows import sparse_from_batch
from featurestore.format.schema import SaeColumns
from featurestore.index import feature_index as index
from featurestore.reader import FeatureStore
from featurestore.reading.statistics import MOST_FEATURES
from featurestore.storage.files import shown


@dataclass(frozen=True)
class Feature:
    """One feature of a document: its index and pooling -> value."""

    feature: int
    values: dict[str, float]


@dataclass(frozen=True)
class DocumentView:
    """A document: its metadata, and per SAE how many features it has and the strongest of them."""

    metadata: dict[str, Any]
    n_features: dict[str, int]
    top: dict[str, list[Feature]]


@dataclass(frozen=True)
class FeatureView:
    """A feature of one pooling: in how many documents it is active, how strongly, and where most.

    Attributes:
        sae, feature, pool: Which.
        n_documents: Documents in which it fires.
        mean: Over all documents of the store.
        maximum: Its largest value.
        top: The documents with the largest values: doc_id, row, value, and metadata (the document's other columns).
        source: "index", "new index" (built for this look-up) or "scan" (no index was used).
    """

    sae: str
    feature: int
    pool: str
    n_documents: int
    mean: float
    maximum: float
    top: list[dict[str, Any]]
    source: str


def document_view(store: FeatureStore, doc_id: str, top: int, sae: str | None = None) -> DocumentView:
    """Look at one document.

    Args:
        store: An open store.
        doc_id: Which document.
        top: Features to list for each SAE, strongest first by the SAE's first pooling.
        sae: Only this SAE; all of them if left out.

    Raises:
        StoreError: No such document or SAE.
    """
    saes = store.schema.saes if sae is None else (store.schema.sae(sae),)
    columns = [name for s in saes for name in (s.indices, *(s.column(pool) for pool in s.pools))]
    position = store.positions([doc_id])
    ((_, row),) = _rows(store, position, [*store.metadata_columns, *columns])
    n_features = {s.name: len(row.column(s.indices)[0]) for s in saes}
    top_features = {s.name: _strongest(s, row, top) for s in saes}
    return DocumentView(row.select(store.metadata_columns).to_pylist()[0], n_features, top_features)


def feature_view(
    store: FeatureStore,
    feature: int,
    top: int,
    sae: str | None = None,
    pool: str | None = None,
    before_indexing: Callable[[], None] = lambda: None,
) -> FeatureView:
    """Look at one feature.

    The first look-up in a pooling of a complete store reads all of it once and keeps an index in this machine's
    cache; later ones read that. A store still being written, or a `top` beyond what the index holds, is scanned.

    Args:
        store: An open store.
        feature: Its index, below d_sae.
        top: Documents to list, largest pooled value first; ties in input order.
        sae: Whose feature; may be left out if the store has one SAE.
        pool: By which pooling, "mean" included; the SAE's first if left out.
        before_indexing: Called before the whole store is read for an index, so that somebody waiting can be told.

    Raises:
        StoreError: No such SAE, pooling or feature, or a part is damaged.
    """
    columns = store.sae(sae)
    if not 0 <= feature < columns.d_sae:
        raise StoreError(f"SAE '{columns.name}' has no feature {feature}; it has features 0 to {columns.d_sae - 1}")
    pool = pool or columns.pools[0]
    entry, source = None, "index"
    if store.complete and top <= index.documents_kept(columns.d_sae) and columns.d_sae <= MOST_FEATURES:
        entry = index.read_entry(store, columns.name, pool, feature)
        if entry is None or not _agrees(store, columns.name, pool, feature, entry):
            before_indexing()
            entry, source = _new_index(store, columns.name, pool, feature), "new index"
    if entry is None:
        entry, source = _scan(store, columns.name, pool, feature, top), "scan"
    row, value = entry.row[:top], entry.value[:top]
    metadata = {at: batch.to_pylist()[0] for at, batch in _rows(store, row, store.metadata_columns)}
    documents = [
        {"doc_id": metadata[at].pop("doc_id"), "row": at, "value": strength, "metadata": metadata[at]}
        for at, strength in zip(row.tolist(), value.tolist(), strict=True)
    ]
    seen = (entry.document_frequency, entry.mean, entry.maximum)
    return FeatureView(columns.name, feature, pool, *seen, documents, source)


def _agrees(store: FeatureStore, sae: str, pool: str, feature: int, entry: index.FeatureEntry) -> bool:
    """Whether the part says the same as the index of the feature's strongest document."""
    mask = np.zeros(len(store), dtype=bool)
    mask[entry.row[:1]] = True
    found = store.matrix(sae, pool, rows=mask, features=[feature]).X
    return bool(np.array_equal(found.data, entry.value[:1]))


def _new_index(store: FeatureStore, sae: str, pool: str, feature: int) -> index.FeatureEntry:
    built = index.build_index(store, sae, pool)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time at the next look-up, nothing else
        index.keep_index(store, sae, pool, built)
    if (entry := index.entry_of(built, feature, len(store))) is None:
        raise StoreError(f"{shown(store.uri)}: SAE '{sae}' has values that are not finite; run verify on the store")
    return entry


def _scan(store: FeatureStore, sae: str, pool: str, feature: int, top: int) -> index.FeatureEntry:
    """The same from the parts themselves, this one feature alone."""
    X, _ = store.matrix(sae, pool, features=[feature])
    column = X.toarray()[:, 0]
    order = np.argsort(-column, kind="stable")[: min(top, X.nnz)]
    values = column.astype(np.float64)
    n = max(len(column), 1)
    moments = (float(values.sum() / n), float((values**2).sum() / n), float(column.max(initial=0)))
    return index.FeatureEntry(X.nnz, *moments, row=order, value=column[order])


def _rows(store: FeatureStore, rows: np.ndarray, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(row, a batch of this one row) of certain rows of a store, in input order."""
    mask = np.zeros(len(store), dtype=bool)
    mask[rows] = True
    for _, first, batch in store.groups(columns, mask):
        for at in np.flatnonzero(mask[first : first + batch.num_rows]).tolist():
            yield first + at, batch.slice(at, 1)


def _strongest(sae: SaeColumns, row: Any, top: int) -> list[Feature]:
    sparse = sparse_from_batch(sae, sae.pools, row)
    order = np.argsort(-sparse.values[sae.pools[0]].astype(np.float64), kind="stable")[:top]
    return [
        Feature(int(sparse.indices[i]), {pool: values[i].item() for pool, values in sparse.values.items()})
        for i in order
    ]
