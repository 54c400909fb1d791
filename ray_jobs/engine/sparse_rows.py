"""Hold sparse rows of several poolings, and merge the rows of windows into rows of documents.

The pooled rows are made by `pooling` and `device_pooling`; what they mean on disk is left to `featurestore`.

Shapes: B windows, S runs (feature, window).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.base.poolings import is_count_pool


@dataclass(frozen=True)
class SparseRows:
    """Sparse rows in CSR layout.

    Attributes:
        indptr: int64 [rows + 1].
        indices: Features, uint32 [nnz], ascending within a row.
        values: Pooling -> [nnz]: float32 for max, sum and last, uint32 for count and top{N}. At least one of them is
            nonzero at each place.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: Mapping[str, np.ndarray]

    def row(self, number: int) -> SparseRows:
        """One row as a view."""
        start, stop = int(self.indptr[number]), int(self.indptr[number + 1])
        values = {pool: array[start:stop] for pool, array in self.values.items()}
        return SparseRows(np.array([0, stop - start]), self.indices[start:stop], values)


def value_dtype(pool: str) -> type[np.generic]:
    """float32 for max, sum and last; uint32 for count and top{N}."""
    return np.uint32 if is_count_pool(pool) else np.float32


def empty_rows(n_rows: int, pools: Sequence[str]) -> SparseRows:
    """Rows without features."""
    values = {pool: np.empty(0, dtype=value_dtype(pool)) for pool in pools}
    return SparseRows(np.zeros(n_rows + 1, dtype=np.int64), np.empty(0, dtype=np.uint32), values)


def gather_rows(
    parts: Sequence[SparseRows], document: np.ndarray, place: np.ndarray, n_documents: int, pools: Sequence[str]
) -> SparseRows:
    """Rows of windows, in whatever order they were made, to one row per document.

    A document's windows are merged: counts and sums add up, of `last` the last window's stays, and features that end up
    zero in every pooling are dropped. Documents of one window, usually all, are only moved.

    Args:
        parts: Rows of windows; B in all.
        document: The document of each, int64 [B]; -1 leaves a row out.
        place: Its place among the document's windows, int64 [B].
        n_documents: Rows to return; a document without windows gets an empty one.
        pools: Poolings of the rows.
    """
    if not parts:
        return empty_rows(n_documents, pools)
    rows = stack_rows(parts, pools)
    kept = np.flatnonzero(document >= 0)
    order = kept[np.lexsort((place[kept], document[kept]))]
    owner = document[order]
    n_windows = np.bincount(owner, minlength=n_documents)
    if (n_windows <= 1).all():
        indptr, source = _moved(rows.indptr, order, owner, n_documents)
        return SparseRows(indptr, rows.indices[source], {pool: rows.values[pool][source] for pool in pools})
    single = n_windows[owner] == 1
    singles = gather_rows([rows], np.where(np.isin(document, owner[single]), document, -1), place, n_documents, pools)
    merged = _merged(rows, order[~single], owner[~single], n_documents, pools)
    indptr = singles.indptr + merged.indptr
    # a document is either single or merged: where its features go is known, so both are put there
    at_single = _spread(singles.indptr, indptr)
    at_merged = _spread(merged.indptr, indptr)

    def put(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        both = np.empty(len(first) + len(second), dtype=first.dtype)
        both[at_single], both[at_merged] = first, second
        return both

    values = {pool: put(singles.values[pool], merged.values[pool]) for pool in pools}
    return SparseRows(indptr, put(singles.indices, merged.indices), values)


def stack_rows(rows: Sequence[SparseRows], pools: Sequence[str]) -> SparseRows:
    """Put rows under one another."""
    if not rows:
        return empty_rows(0, pools)
    if len(rows) == 1:
        return rows[0]
    indptr = np.zeros(1 + sum(len(part.indptr) - 1 for part in rows), dtype=np.int64)
    np.cumsum(np.concatenate([np.diff(part.indptr) for part in rows]), out=indptr[1:])
    indices = np.concatenate([part.indices for part in rows])
    return SparseRows(indptr, indices, {pool: np.concatenate([part.values[pool] for part in rows]) for pool in pools})


def without_zeros(rows: SparseRows) -> SparseRows:
    """The same rows without places that are zero in every pooling (`last` and `top{N}` leave some)."""
    if any(pool in ("max", "sum", "count") for pool in rows.values):
        return rows
    kept = np.any([values != 0 for values in rows.values.values()], axis=0)
    before = np.concatenate([[0], np.cumsum(kept)])
    return SparseRows(
        before[rows.indptr], rows.indices[kept], {pool: values[kept] for pool, values in rows.values.items()}
    )


def run_starts(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and starts of the runs of equal neighbours."""
    changed = np.empty(len(key), dtype=bool)
    changed[:1] = True
    np.not_equal(key[1:], key[:-1], out=changed[1:])
    starts = np.flatnonzero(changed)
    return key[starts], starts


def _moved(indptr: np.ndarray, order: np.ndarray, owner: np.ndarray, n_documents: int) -> tuple[np.ndarray, np.ndarray]:
    """`indptr` of the documents, and from where each of their places comes, if row order[i] belongs to owner[i]."""
    n_places = np.diff(indptr)[order]
    documents = np.zeros(n_documents + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, weights=n_places, minlength=n_documents).astype(np.int64), out=documents[1:])
    begin = np.cumsum(n_places) - n_places
    return documents, np.arange(int(n_places.sum())) + np.repeat(indptr[order] - begin, n_places)


def _spread(indptr: np.ndarray, wider: np.ndarray) -> np.ndarray:
    """Where the places of rows go in rows of which each is as long or was empty."""
    n_places = np.diff(indptr)
    return np.arange(int(indptr[-1])) + np.repeat((wider - indptr)[:-1], n_places)


def _merged(
    rows: SparseRows, order: np.ndarray, owner: np.ndarray, n_documents: int, pools: Sequence[str]
) -> SparseRows:
    """One row per document from several of each: rows `order`, of documents `owner`, sorted by document and place."""
    documents, source = _moved(rows.indptr, order, owner, n_documents)
    document = np.repeat(np.arange(n_documents), np.diff(documents))
    n_features = int(rows.indices.max(initial=0)) + 1
    key = document * n_features + rows.indices[source]
    by_key = np.argsort(key, kind="stable")  # windows stay in order
    key_S, starts = run_starts(key[by_key])
    source = source[by_key]
    final = np.repeat(np.append(owner[1:] != owner[:-1], True), np.diff(rows.indptr)[order])[by_key]
    values: dict[str, np.ndarray] = {}
    for pool in pools:
        value = rows.values[pool][source]
        if not len(value):
            values[pool] = value
        elif pool == "max":
            values[pool] = np.maximum.reduceat(value, starts)
        elif pool == "sum":
            values[pool] = np.add.reduceat(value.astype(np.float64), starts).astype(np.float32)
        elif pool == "last":  # at most one of a run is the final window's
            values[pool] = np.maximum.reduceat(np.where(final, value, np.float32(0)), starts)
        else:
            values[pool] = np.add.reduceat(value, starts, dtype=np.uint32)
    indptr = np.searchsorted(key_S, np.arange(n_documents + 1) * n_features)
    return without_zeros(SparseRows(indptr, (key_S % n_features).astype(np.uint32), values))
