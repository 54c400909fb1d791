"""From active (feature, token) pairs to one sparse row per window, and from windows to documents.

All poolings come from the pairs themselves, which arrive sorted by feature and token, so a feature of a window is one
contiguous run: segment reductions, no dense [windows x features], no sorting of pairs. Sums accumulate in float64.
Tokens x d_sae never exists beyond the encoder's chunk.

Shapes: B windows, K active pairs, S runs (feature, window).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_jobs.engine.encoder import Active

FLOAT_POOLS = ("max", "sum", "last")


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


def pool_windows(chunks: Iterable[Active], lengths: np.ndarray, pools: Sequence[str]) -> SparseRows:
    """Pool tokens of consecutive windows.

    Args:
        chunks: Active pairs, chunk after chunk of ascending features.
        lengths: Tokens of each window, all >= 1; their sum is the number of tokens.
        pools: Poolings to compute.

    Returns:
        One row per window, holding every feature that is active somewhere in it.
    """
    n_windows = len(lengths)
    window_of_token = np.repeat(np.arange(n_windows), lengths)
    last_token = np.cumsum(lengths) - 1
    tops = {pool: size for pool in pools if (size := top_size(pool)) is not None}
    largest: Active | None = None
    runs: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for active in chunks:
        if not len(active.value):
            continue
        runs.append(_pool_runs(active, window_of_token, last_token, pools))
        if tops:
            joined = active if largest is None else _join(largest, active)
            largest = _largest_per_token(joined, max(tops.values()))
    if not runs:
        return empty_rows(n_windows, pools)
    key_S = np.concatenate([key for key, _ in runs])  # feature * n_windows + window, ascending
    values = {pool: np.concatenate([run[pool] for _, run in runs]) for pool in pools if pool not in tops}
    for pool, size in tops.items():
        assert largest is not None
        values[pool] = _top_counts(_largest_per_token(largest, size), key_S, window_of_token)
    window_S = key_S % n_windows
    order = np.argsort(window_S, kind="stable")
    indptr = np.zeros(n_windows + 1, dtype=np.int64)
    np.cumsum(np.bincount(window_S, minlength=n_windows), out=indptr[1:])
    indices = (key_S // n_windows)[order].astype(np.uint32)
    return SparseRows(indptr, indices, {pool: values[pool][order] for pool in pools})


def merge_windows(windows: Sequence[SparseRows], pools: Sequence[str]) -> SparseRows:
    """Join the windows of one document (each a single row, in order) into its row.

    Features that are zero in every one of `pools` are dropped: where only `last` is stored, the rest of the document
    leaves no trace.
    """
    indices = windows[0].indices
    values = dict(windows[0].values)
    if len(windows) > 1:
        feature = np.concatenate([window.indices for window in windows])
        order = np.argsort(feature, kind="stable")
        indices, starts = _run_starts(feature[order])
        for pool in pools:
            joined = np.concatenate([window.values[pool] for window in windows])[order]
            if pool == "last":
                values[pool] = np.zeros(len(indices), dtype=np.float32)
                values[pool][np.searchsorted(indices, windows[-1].indices)] = windows[-1].values[pool]
            elif not len(joined):
                values[pool] = joined
            elif pool == "max":
                values[pool] = np.maximum.reduceat(joined, starts)
            elif pool == "sum":
                values[pool] = np.add.reduceat(joined, starts, dtype=np.float64).astype(np.float32)
            else:
                values[pool] = np.add.reduceat(joined, starts, dtype=np.uint32)
    kept = np.zeros(len(indices), dtype=bool)
    for pool in pools:
        kept |= values[pool] != 0
    values = {pool: values[pool][kept] for pool in pools}
    return SparseRows(np.array([0, int(kept.sum())], dtype=np.int64), indices[kept], values)


def stack_rows(rows: Sequence[SparseRows], pools: Sequence[str]) -> SparseRows:
    """Put single rows under one another."""
    if not rows:
        return empty_rows(0, pools)
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row.indices) for row in rows], out=indptr[1:])
    indices = np.concatenate([row.indices for row in rows])
    return SparseRows(indptr, indices, {pool: np.concatenate([row.values[pool] for row in rows]) for pool in pools})


def _pool_runs(
    active: Active, window_of_token: np.ndarray, last_token: np.ndarray, pools: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Key (feature * B + window) of each run of one chunk, and its pooled values."""
    key_K = active.feature * len(last_token) + window_of_token[active.token]
    key_S, starts = _run_starts(key_K)
    ends = np.append(starts[1:], len(key_K)) - 1
    values: dict[str, np.ndarray] = {}
    for pool in pools:
        if pool == "max":
            values[pool] = np.maximum.reduceat(active.value, starts)
        elif pool == "sum":
            values[pool] = np.add.reduceat(active.value, starts, dtype=np.float64).astype(np.float32)
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


def _join(first: Active, second: Active) -> Active:
    return Active(
        np.concatenate([first.feature, second.feature]),
        np.concatenate([first.token, second.token]),
        np.concatenate([first.value, second.value]),
    )


def _largest_per_token(active: Active, n: int) -> Active:
    """The `n` largest activations of each token, all of them > 0; of equal ones the lower feature comes first."""
    order = np.lexsort((active.feature, -active.value, active.token))
    _, starts = _run_starts(active.token[order])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    kept = order[rank < n]
    return Active(active.feature[kept], active.token[kept], active.value[kept])


def _top_counts(largest: Active, key_S: np.ndarray, window_of_token: np.ndarray) -> np.ndarray:
    n_windows = int(window_of_token[-1]) + 1
    key, count = np.unique(largest.feature * n_windows + window_of_token[largest.token], return_counts=True)
    counts = np.zeros(len(key_S), dtype=np.uint32)
    counts[np.searchsorted(key_S, key)] = count
    return counts
