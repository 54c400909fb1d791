"""Encode and pool on a GPU, where the residual stream is, in torch operations alone.

The same pairs and the same rules as on the CPU (`ray_jobs.engine.pooling`), written for a device. Pairs are compacted
there (one synchronisation a chunk), their keys are sorted by construction, runs are found by comparing neighbours, and
maxima and sums are segment reductions, each of a segment in one order, so equal batches give equal bytes; sums
accumulate in float64. Only pooled rows travel to the host, in one transfer. Every operation exists on CPUs too, and
tests compare the two there.

Max pooling could be done before the cutoff (the maximum of a segment's products, then the cutoff), which would spare
the pairs where only `max` is asked for. It is not done: the pairs serve every pooling, and a second way would be one
more to get wrong.

Shapes: N tokens, D d_model, F features, C features of a chunk, B windows, K active pairs, S runs (feature, window).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from featurestore.base.poolings import top_size
from ray_jobs.engine.encoder import DEVICE_CHUNK_ELEMENTS, Inputs, SaeEncoder, grouped
from ray_jobs.engine.sparse_rows import SparseRows, empty_rows, value_dtype, without_zeros

ALIGNMENT = 16
"""Columns of a product on a GPU are a multiple of it (but for the last chunk of a top-k SAE), so that rows begin at
multiples of 64 bytes; otherwise cuBLAS on an H200 chooses kernels made for older GPUs."""

DEVICE_GROUP_PAIRS = 2**24
"""Pairs pooled at a time: 20 bytes each, and as much again while they are pooled."""


@dataclass(frozen=True)
class Pairs:
    """Active pairs sorted by feature, then token, on a device: int64 [K], int64 [K], float32 [K], all values > 0."""

    feature: torch.Tensor
    token: torch.Tensor
    value: torch.Tensor

    def where(self, kept: torch.Tensor) -> Pairs:
        """Some of the pairs, by a mask or by places."""
        return Pairs(self.feature[kept], self.token[kept], self.value[kept])

    @staticmethod
    def joined(parts: Sequence[Pairs]) -> Pairs:
        """Pairs of consecutive chunks."""
        return Pairs(
            torch.cat([part.feature for part in parts]),
            torch.cat([part.token for part in parts]),
            torch.cat([part.value for part in parts]),
        )


@torch.inference_mode()
def pool_on_device(
    encoder: SaeEncoder,
    inputs: Inputs,
    lengths: np.ndarray,
    pools: Sequence[str],
    chunk_elements: int = DEVICE_CHUNK_ELEMENTS,
    group_pairs: int = DEVICE_GROUP_PAIRS,
) -> SparseRows:
    """Encode tokens of consecutive windows with one SAE and pool them.

    Args:
        encoder: The SAE, on the device of the inputs.
        inputs: The tokens, shared by the SAEs of a layer.
        lengths: Tokens of each window, int64 [B], all >= 1; their sum is N.
        pools: Poolings to compute.
        chunk_elements: Bound on the tokens x features computed at a time.
        group_pairs: Pairs that are pooled together.

    Returns:
        One row per window, holding every feature that is not zero in all poolings; on the host.
    """
    device, n_windows = inputs.x_ND.device, len(lengths)
    lengths_B = torch.from_numpy(lengths).to(device)
    window_of_token = torch.repeat_interleave(
        torch.arange(n_windows, device=device), lengths_B, output_size=int(lengths.sum())
    )
    last_token = lengths_B.cumsum(0) - 1
    tops = {pool: size for pool in pools if (size := top_size(pool)) is not None}
    largest: Pairs | None = None
    runs: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for pairs in grouped(_active(encoder, inputs, chunk_elements), group_pairs):
        runs.append(_pool_runs(pairs, window_of_token, last_token, pools))
        if tops:
            joined = pairs if largest is None else Pairs.joined([largest, pairs])
            largest = joined.where(_largest_per_token(joined, max(tops.values())))
    if not runs:
        return empty_rows(n_windows, pools)
    key_S = torch.cat([key for key, _ in runs])  # feature * B + window, ascending
    values = {pool: torch.cat([run[pool] for _, run in runs]) for pool in pools if pool not in tops}
    for pool, size in tops.items():
        assert largest is not None
        values[pool] = _top_counts(largest.where(_largest_per_token(largest, size)), key_S, window_of_token, n_windows)
    feature_S = key_S // n_windows
    window_S, order = torch.sort(key_S - feature_S * n_windows, stable=True)
    indptr = torch.searchsorted(window_S, torch.arange(n_windows + 1, device=device))
    # everything in 32 bits, side by side: one transfer
    columns = [indptr.int(), feature_S[order].int(), *(values[pool][order].view(torch.int32) for pool in pools)]
    host = np.split(torch.cat(columns).cpu().numpy(), np.cumsum([len(column) for column in columns])[:-1])
    return without_zeros(
        SparseRows(
            host[0].astype(np.int64),
            host[1].view(np.uint32),
            {pool: column.view(value_dtype(pool)) for pool, column in zip(pools, host[2:], strict=True)},
        )
    )


def _active(encoder: SaeEncoder, inputs: Inputs, chunk_elements: int) -> Iterator[Pairs]:
    """Active pairs, chunk after chunk of ascending features; of top-k all at once."""
    x_ND = encoder.device_input(inputs)
    n_tokens, weights, features = len(x_ND), encoder.weights, encoder.features
    wanted_C = None if features is None else torch.from_numpy(features).to(x_ND.device)
    if encoder.info.k is not None:
        width = max(1, chunk_elements // n_tokens)
        width -= width % ALIGNMENT if width > ALIGNMENT else 0
        pairs = _top_k(encoder, x_ND, encoder.info.k, width)
        yield pairs if wanted_C is None else pairs.where(torch.isin(pairs.feature, wanted_C))
        return
    assert weights.cutoff_F is not None
    x_ND = _aligned(x_ND)
    n_rows = len(x_ND)
    width = max(1, chunk_elements // n_rows)
    for first in range(0, encoder.n_rows, width):
        r_CN = _product(weights.W_FD[first : first + width], x_ND.T)
        place_K = (r_CN[:, :n_tokens] > weights.cutoff_F[first : first + width, None]).flatten().nonzero().squeeze(1)
        row_K = place_K // n_tokens
        token_K = place_K - row_K * n_tokens
        feature_K, value_K = row_K + first, r_CN.flatten()[row_K * n_rows + token_K]
        if weights.scale_F is not None:  # two roundings, as when the cutoff was found; a fused operation has one
            value_K = value_K * weights.scale_F[feature_K]
        number_K = feature_K if wanted_C is None else wanted_C[feature_K]
        yield Pairs(number_K, token_K, value_K + weights.bias_F[feature_K])


def _aligned(x_ND: torch.Tensor) -> torch.Tensor:
    """The tokens, and some of zeros behind them so that they are a multiple of `ALIGNMENT`."""
    missing = -len(x_ND) % ALIGNMENT
    return torch.nn.functional.pad(x_ND, (0, 0, 0, missing)) if missing else x_ND


def _top_k(encoder: SaeEncoder, x_ND: torch.Tensor, k: int, width: int) -> Pairs:
    """The k largest positive pre-activations of each token: the best of the chunks so far against the next one."""
    n_tokens, weights = len(x_ND), encoder.weights
    value_NK = torch.empty(n_tokens, 0, device=x_ND.device)
    feature_NK = torch.empty(n_tokens, 0, device=x_ND.device, dtype=torch.int64)
    for first in range(0, encoder.info.d_sae, width):
        r_NC = _product(x_ND, weights.W_FD[first : first + width].T).add_(weights.bias_F[first : first + width])
        new_NK, place_NK = r_NC.topk(min(k, r_NC.shape[1]), dim=1, sorted=False)
        value_NK, feature_NK = torch.cat([value_NK, new_NK], dim=1), torch.cat([feature_NK, place_NK + first], dim=1)
        value_NK, best_NK = value_NK.topk(min(k, value_NK.shape[1]), dim=1, sorted=False)
        feature_NK = feature_NK.gather(1, best_NK)
    key_K, order = torch.sort((feature_NK * n_tokens + torch.arange(n_tokens, device=x_ND.device)[:, None]).flatten())
    value_K = value_NK.flatten()[order]
    feature_K = key_K // n_tokens
    return Pairs(feature_K, key_K - feature_K * n_tokens, value_K).where(value_K > 0)


def _product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """A matrix product with float32 output, whatever its operands."""
    if first.dtype == torch.float32:
        return torch.mm(first, second)
    if first.is_cuda:
        return torch.mm(first, second, out_dtype=torch.float32)
    return torch.mm(first.float(), second.float())


def _pool_runs(
    pairs: Pairs, window_of_token: torch.Tensor, last_token: torch.Tensor, pools: Sequence[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Key (feature * B + window) of each run of one group, and its pooled values; counts as int32."""
    key_K = pairs.feature * len(last_token) + window_of_token[pairs.token]
    starts = _run_starts(key_K)
    key_S = key_K[starts]
    lengths_S = torch.diff(starts, append=starts.new_full((1,), len(key_K)))
    values: dict[str, torch.Tensor] = {}
    for pool in pools:
        if pool == "max":
            values[pool] = _reduced(pairs.value, "max", lengths_S)
        elif pool == "sum":
            values[pool] = _reduced(pairs.value.double(), "sum", lengths_S).float()
        elif pool == "count":
            values[pool] = lengths_S.int()
        elif pool == "last":  # tokens ascend within a run: only its end can be the window's last token
            ends = starts + lengths_S - 1
            is_last = pairs.token[ends] == last_token[key_S % len(last_token)]
            values[pool] = torch.where(is_last, pairs.value[ends], 0.0)
    return key_S, values


def _reduced(value_K: torch.Tensor, reduction: str, lengths_S: torch.Tensor) -> torch.Tensor:
    """Reduce consecutive segments. `unsafe` spares the check that lengths add up, which they do, and its waiting."""
    return torch.segment_reduce(value_K, reduction, lengths=lengths_S, axis=0, unsafe=True)


def _run_starts(key: torch.Tensor) -> torch.Tensor:
    """Where runs of equal neighbours start."""
    changed = torch.ones_like(key, dtype=torch.bool)
    torch.ne(key[1:], key[:-1], out=changed[1:])
    return changed.nonzero().squeeze(1)


def _largest_per_token(pairs: Pairs, n: int) -> torch.Tensor:
    """Which pairs are among the `n` largest of their token; of equal ones the lower feature is."""
    # positive floats are ordered as their bits are; stable, and pairs come in ascending features
    key_K = (pairs.token << 32) | (0x7FFFFFFF - pairs.value.view(torch.int32).long())
    order = torch.sort(key_K, stable=True).indices
    token_K = pairs.token[order]
    starts = _run_starts(token_K)
    lengths_S = torch.diff(starts, append=starts.new_full((1,), len(token_K)))
    begin_K = torch.repeat_interleave(starts, lengths_S, output_size=len(token_K))
    kept = torch.empty_like(token_K, dtype=torch.bool)
    kept[order] = torch.arange(len(token_K), device=token_K.device) - begin_K < n
    return kept


def _top_counts(largest: Pairs, key_S: torch.Tensor, window_of_token: torch.Tensor, n_windows: int) -> torch.Tensor:
    key_K = largest.feature * n_windows + window_of_token[largest.token]
    starts = _run_starts(key_K)
    counts = torch.zeros(len(key_S), device=key_S.device, dtype=torch.int32)
    counts[torch.searchsorted(key_S, key_K[starts])] = torch.diff(
        starts, append=starts.new_full((1,), len(key_K))
    ).int()
    return counts
