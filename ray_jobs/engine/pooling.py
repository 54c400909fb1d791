"""From tokens to one sparse row per window and SAE, and from rows of windows to rows of documents.

All poolings come from the active (feature, token) pairs themselves, which arrive sorted by feature and token, so a
feature of a window is one contiguous run: segment reductions, no dense [windows x features], no sorting of pairs. Sums
accumulate in float64. Tokens x d_sae never exists beyond the encoder's chunk: on the CPU a layer's tokens are taken in
blocks of whole windows, and SAEs that read them alike share what is done to them. On a GPU the same is done there
(`ray_jobs.engine.device_pooling`) and only pooled rows leave it.

Shapes: N tokens, D d_model, B windows, K active pairs, S runs (feature, window).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ray_jobs.engine.encoder import Active, Inputs, SaeEncoder, largest_per_token

FLOAT_POOLS = ("max", "sum", "last")

BLOCK_TOKENS = 2**11
"""Tokens encoded at a time on the CPU, at most, unless a window is longer. Half as many cost a twentieth more time a
token, a quarter as many a fifth more: products of narrow matrices, and rows that are widened for fewer tokens."""

GROUP_PAIRS = 2**18
"""Pairs pooled at a time: enough that numpy's calls do not count, few enough for any number of features."""


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
    return np.float32 if pool in FLOAT_POOLS else np.uint32


def top_size(pool: str) -> int | None:
    """N of `top{N}`, None for other poolings."""
    return int(pool[3:]) if pool.startswith("top") else None


def empty_rows(n_rows: int, pools: Sequence[str]) -> SparseRows:
    """Rows without features."""
    values = {pool: np.empty(0, dtype=value_dtype(pool)) for pool in pools}
    return SparseRows(np.zeros(n_rows + 1, dtype=np.int64), np.empty(0, dtype=np.uint32), values)


def pool_saes(
    encoders: Sequence[SaeEncoder], x_ND: torch.Tensor, lengths: np.ndarray, pools: Sequence[str]
) -> dict[str, SparseRows]:
    """Encode and pool the tokens of consecutive windows.

    Args:
        encoders: All SAEs of one layer.
        x_ND: Residual stream of the windows' counted tokens, float32, finite, on the encoders' device.
        lengths: Tokens of each window, int64 [B], all >= 1; their sum is N.
        pools: Poolings to compute.

    Returns:
        SAE name -> one row per window, holding every feature that is not zero in all poolings.
    """
    if all(encoder.route == "device" for encoder in encoders):
        from ray_jobs.engine.device_pooling import pool_on_device

        inputs = Inputs(x_ND)
        return {encoder.info.name: pool_on_device(encoder, inputs, lengths, pools) for encoder in encoders}
    parts: dict[str, list[SparseRows]] = {encoder.info.name: [] for encoder in encoders}
    for windows, tokens in _blocks(lengths):
        inputs = Inputs(x_ND[tokens])
        for encoder in encoders:
            parts[encoder.info.name].append(pool_windows(encoder.active(inputs), lengths[windows], pools))
    return {name: stack_rows(rows, pools) for name, rows in parts.items()}


def pool_windows(chunks: Iterable[Active], lengths: np.ndarray, pools: Sequence[str]) -> SparseRows:
    """Pool tokens of consecutive windows.

    Args:
        chunks: Active pairs, chunk after chunk of ascending features.
        lengths: Tokens of each window, all >= 1; their sum is the number of tokens.
        pools: Poolings to compute.

    Returns:
        One row per window, holding every feature that is not zero in all poolings.
    """
    n_windows, n_tokens = len(lengths), int(lengths.sum())
    window_of_token = np.repeat(np.arange(n_windows), lengths)
    last_token = np.cumsum(lengths) - 1
    tops = {pool: size for pool in pools if (size := top_size(pool)) is not None}
    largest: Active | None = None
    runs: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for active in grouped(chunks, GROUP_PAIRS):
        runs.append(_pool_runs(active, window_of_token, last_token, pools))
        if tops:
            joined = active if largest is None else Active.joined([largest, active])
            largest = joined.where(largest_per_token(joined, n_tokens, max(tops.values()))[0])
    if not runs:
        return empty_rows(n_windows, pools)
    key_S = np.concatenate([key for key, _ in runs])  # feature * n_windows + window, ascending
    values = {pool: np.concatenate([run[pool] for _, run in runs]) for pool in pools if pool not in tops}
    for pool, size in tops.items():
        assert largest is not None
        values[pool] = _top_counts(largest.where(largest_per_token(largest, n_tokens, size)[0]), key_S, window_of_token)
    feature_S = key_S // n_windows
    window_S = key_S - feature_S * n_windows
    order = np.argsort(window_S.astype(np.uint16) if n_windows <= 2**16 else window_S, kind="stable")  # 16 bits: radix
    indptr = np.zeros(n_windows + 1, dtype=np.int64)
    np.cumsum(np.bincount(window_S, minlength=n_windows), out=indptr[1:])
    rows = SparseRows(indptr, feature_S.astype(np.uint32)[order], {pool: values[pool][order] for pool in pools})
    return without_zeros(rows)


class SortedPairs(Protocol):
    """Active pairs sorted by feature, then token, on the host or on a device."""

    @property
    def value(self) -> Any:
        """The activations, of some length."""
        ...

    @staticmethod
    def joined(parts: Sequence[Any]) -> Any:
        """Pairs of consecutive chunks."""
        ...


SomePairs = TypeVar("SomePairs", bound=SortedPairs)


def grouped(chunks: Iterable[SomePairs], n_pairs: int) -> Iterator[SomePairs]:
    """The same pairs in groups of `n_pairs` or more, all but the last; none is empty."""
    group: list[SomePairs] = []
    for pairs in chunks:
        if len(pairs.value):
            group.append(pairs)
        if sum(len(part.value) for part in group) >= n_pairs:
            yield pairs.joined(group)
            group = []
    if group:
        yield group[0].joined(group)


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


def _blocks(lengths: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Windows and tokens of blocks of like size, about BLOCK_TOKENS tokens at most; no window is divided."""
    if not len(lengths):
        return
    ends = np.cumsum(lengths)
    n_blocks = -(-int(ends[-1]) // BLOCK_TOKENS)
    block_of_window = (ends - 1) * n_blocks // ends[-1]
    first = start = 0
    for stop in (*(np.flatnonzero(np.diff(block_of_window)) + 1).tolist(), len(lengths)):
        yield slice(first, stop), slice(start, int(ends[stop - 1]))
        first, start = stop, int(ends[stop - 1])


def _pool_runs(
    active: Active, window_of_token: np.ndarray, last_token: np.ndarray, pools: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Key (feature * B + window) of each run of one group, and its pooled values."""
    key_S, starts = _run_starts(active.feature * len(last_token) + window_of_token[active.token])
    ends = np.append(starts[1:], len(active.value)) - 1
    values: dict[str, np.ndarray] = {}
    for pool in pools:
        if pool == "max":
            values[pool] = np.maximum.reduceat(active.value, starts)
        elif pool == "sum":
            values[pool] = np.add.reduceat(active.value.astype(np.float64), starts).astype(np.float32)
        elif pool == "count":
            values[pool] = (ends - starts + 1).astype(np.uint32)
        elif pool == "last":  # tokens ascend within a run: only its end can be the window's last token
            is_last = active.token[ends] == last_token[key_S % len(last_token)]
            values[pool] = np.where(is_last, active.value[ends], np.float32(0))
    return key_S, values


def _run_starts(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and starts of the runs of equal neighbours."""
    changed = np.empty(len(key), dtype=bool)
    changed[:1] = True
    np.not_equal(key[1:], key[:-1], out=changed[1:])
    starts = np.flatnonzero(changed)
    return key[starts], starts


def _top_counts(largest: Active, key_S: np.ndarray, window_of_token: np.ndarray) -> np.ndarray:
    n_windows = int(window_of_token[-1]) + 1
    key, starts = _run_starts(largest.feature * n_windows + window_of_token[largest.token])
    counts = np.zeros(len(key_S), dtype=np.uint32)
    counts[np.searchsorted(key_S, key)] = np.diff(np.append(starts, len(largest.value)))
    return counts


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
    key_S, starts = _run_starts(key[by_key])
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
