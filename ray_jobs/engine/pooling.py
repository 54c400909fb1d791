"""Pool the active features of tokens to one sparse row per window and SAE, on the CPU.

All poolings come from the active (feature, token) pairs themselves. They arrive sorted by feature and token, so a
feature of a window is one contiguous run: segment reductions, no dense [windows x features], no sorting of pairs. Sums
accumulate in float64. Tokens x d_sae never exists beyond the encoder's chunk: a layer's tokens are taken in blocks of
whole windows, and SAEs that normalise and centre alike share that work. On a GPU the same is done there
(`ray_jobs.engine.device_pooling`), and only pooled rows leave it.

Shapes: N tokens, D d_model, B windows, K active pairs, S runs (feature, window).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from featurestore.base.poolings import top_size
from ray_jobs.engine.device_pooling import pool_on_device
from ray_jobs.engine.encoder import Active, Inputs, SaeEncoder, grouped, largest_per_token
from ray_jobs.engine.sparse_rows import (
    SparseRows,
    empty_rows,
    run_starts,
    stack_rows,
    without_zeros,
)

BLOCK_TOKENS = 2**11
"""Tokens encoded at a time on the CPU, at most, unless a window is longer. With half as many a token costs a twentieth
more time, with a quarter as many a fifth: matrices are narrower, and weights are widened for fewer tokens."""

GROUP_PAIRS = 2**18
"""Pairs pooled at a time: enough that numpy's calls do not count, few enough for any number of features."""


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
    key_S, starts = run_starts(active.feature * len(last_token) + window_of_token[active.token])
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


def _top_counts(largest: Active, key_S: np.ndarray, window_of_token: np.ndarray) -> np.ndarray:
    n_windows = int(window_of_token[-1]) + 1
    key, starts = run_starts(largest.feature * n_windows + window_of_token[largest.token])
    counts = np.zeros(len(key_S), dtype=np.uint32)
    counts[np.searchsorted(key_S, key)] = np.diff(np.append(starts, len(largest.value)))
    return counts
