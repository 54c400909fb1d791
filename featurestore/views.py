"""Looking at a store by hand: the features of one document, the documents of one feature.

Small answers for the eye and for JSON, read a row group at a time. Statistics over many features belong to studies.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import StoreError
from featurestore.files import shown
from featurestore.reader import FeatureStore
from featurestore.rows import sparse_from_batch
from featurestore.schema import SaeColumns


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
    """A feature: in how many documents it is active, and those where its pooled value is largest."""

    sae: str
    feature: int
    pool: str
    n_documents: int
    top: list[dict[str, Any]]


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
    metadata = ["doc_id", *(name for name, _ in store.schema.keep), "n_tokens", "truncated", "error"]
    columns = [name for s in saes for name in (s.indices, *(s.column(pool) for pool in s.pools))]
    for _, _, batch in store.groups([*metadata, *columns]):
        rows = np.flatnonzero(batch.column("doc_id").to_numpy(zero_copy_only=False) == doc_id)
        if rows.size:
            row = batch.slice(int(rows[0]), 1)
            n_features = {s.name: len(row.column(s.indices)[0]) for s in saes}
            top_features = {s.name: _strongest(s, row, top) for s in saes}
            return DocumentView(row.select(metadata).to_pylist()[0], n_features, top_features)
    raise StoreError(f"no document '{doc_id}' in {shown(store.uri)}; `documents()` and `show` list the ids there are")


def feature_view(
    store: FeatureStore, feature: int, top: int, sae: str | None = None, pool: str | None = None
) -> FeatureView:
    """Look at one feature.

    Args:
        store: An open store.
        feature: Its index, below d_sae.
        top: Documents to list, largest pooled value first; ties in input order.
        sae: Whose feature; may be left out if the store has one SAE.
        pool: By which pooling, "mean" included; the SAE's first if left out.

    Raises:
        StoreError: No such SAE, pooling or feature.
    """
    columns = store.sae(sae)
    if not 0 <= feature < columns.d_sae:
        raise StoreError(f"SAE '{columns.name}' has no feature {feature}; it has features 0 to {columns.d_sae - 1}")
    pool = pool or columns.pools[0]
    best: list[tuple[float, int, str]] = []  # value, -row, id: so ties go to the earlier row
    active = before = 0
    for X, doc_id in store.batches(columns.name, pool):
        hits = np.flatnonzero(X.indices == feature)
        active += len(hits)
        rows = np.searchsorted(X.indptr, hits, side="right") - 1
        found = ((float(X.data[hit]), -(before + int(row)), doc_id[row]) for hit, row in zip(hits, rows, strict=True))
        best = heapq.nlargest(top, [*best, *found])
        before += len(doc_id)
    documents = [{"doc_id": doc_id, "row": -negative, "value": value} for value, negative, doc_id in best]
    return FeatureView(columns.name, feature, pool, active, documents)


def _strongest(sae: SaeColumns, row: Any, top: int) -> list[Feature]:
    sparse = sparse_from_batch(sae, sae.pools, row)
    order = np.argsort(-sparse.values[sae.pools[0]].astype(np.float64), kind="stable")[:top]
    return [
        Feature(int(sparse.indices[i]), {pool: values[i].item() for pool, values in sparse.values.items()})
        for i in order
    ]
