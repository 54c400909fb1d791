"""A Triton kernel that encodes and pools in one pass, to be measured against the engine's chunks.

What it spares is memory traffic. The engine writes each chunk's pre-activations (float32 [C, N]) and reads them again
to pick what fires; here a tile of tokens x features stays in registers: matrix product, cutoff and bias, then max, sum
and count over the tokens of each document in the tile. Tiles and documents overlap as they like: every piece of a
document within a tile (a segment) has a row of partial results of its own, and a second kernel joins a document's
segments in order. So there are no atomics, and equal batches give equal bytes, as the engine promises. There are
N / TILE + B segments at most, each of 12 bytes a feature: 2 to 300 MB from 16k to 131k features.

Importing this needs Triton; with TRITON_INTERPRET=1 it runs on CPUs, for tests. JumpReLU and ReLU only. It moves into
the engine if it wins there.

Shapes: N tokens, D inputs, F features, B documents, S segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl

from ray_jobs.engine.encoder import Inputs, SaeEncoder
from ray_jobs.engine.sparse_rows import SparseRows


@dataclass(frozen=True)
class Tiling:
    """How a launch is cut up: tokens, features and inputs of a tile, warps, stages of its pipeline."""

    tokens: int
    features: int
    inputs: int
    warps: int
    stages: int


TILINGS = (
    Tiling(128, 128, 64, 8, 4),
    Tiling(128, 128, 64, 4, 4),
    Tiling(128, 256, 64, 8, 3),
    Tiling(64, 256, 64, 8, 4),
)
"""What is tried; the benchmark prints each."""
SMALL = (Tiling(16, 32, 32, 4, 1),)
"""For the interpreter, which takes milliseconds a tile."""

GROUP = 8
"""Tiles of tokens that share a tile of encoder rows while it is in the cache."""
JOINED = 1024
"""Features that one program of the second kernel joins."""


@dataclass(frozen=True)
class Segments:
    """Pieces of documents within tiles.

    Attributes:
        bounds_S: First row of each segment, and N; int32 [S + 1].
        of_tile: First segment of each tile, and S; int32 [tiles + 1].
        of_document: First segment of each document, and S; int32 [B + 1].
    """

    bounds_S: torch.Tensor
    of_tile: torch.Tensor
    of_document: torch.Tensor

    @classmethod
    def cut(cls, lengths: np.ndarray, tile: int, device: torch.device) -> Segments:
        """Cut consecutive documents at tiles' bounds.

        Args:
            lengths: Tokens of each document, all >= 1.
            tile: Tokens of a tile.
            device: Where the result goes.
        """
        ends = np.cumsum(lengths)
        starts, tiles = ends - lengths, np.arange(0, ends[-1], tile)
        bounds = np.unique(np.concatenate([starts, tiles]))
        n = len(bounds)

        def moved(values: np.ndarray, last: int) -> torch.Tensor:
            return torch.from_numpy(np.append(values, last).astype(np.int32)).to(device)

        return cls(
            moved(bounds, int(ends[-1])),
            moved(np.searchsorted(bounds, tiles), n),
            moved(np.searchsorted(bounds, starts), n),
        )


def fused_rows(encoder: SaeEncoder, x_ND: torch.Tensor, lengths: np.ndarray, tiling: Tiling) -> SparseRows:
    """Encode and pool (max, sum, count) consecutive documents.

    Args:
        encoder: A threshold SAE on the route `device`, without scale.
        x_ND: Residual stream, float32, on its device.
        lengths: Tokens of each document, int64 [B], all >= 1; their sum is N.
        tiling: How to cut.

    Returns:
        One row per document, holding every feature that fires in it; on the host.
    """
    weights = encoder.weights
    assert weights.cutoff_F is not None and weights.scale_F is None
    rows_ND = encoder.device_input(Inputs(x_ND)).to(weights.W_FD.dtype)
    n_features, n_documents, device = len(weights.cutoff_F), len(lengths), x_ND.device
    segments = Segments.cut(lengths, tiling.tokens, device)
    n_segments, n_tiles = len(segments.bounds_S) - 1, len(segments.of_tile) - 1
    partial = _Pooled.empty(n_segments, n_features, device)
    pooled = _Pooled.empty(n_documents, n_features, device)
    _encode_and_pool[(n_tiles * -(-n_features // tiling.features),)](
        rows_ND,
        weights.W_FD,
        weights.bias_F,
        weights.cutoff_F,
        segments.bounds_S,
        segments.of_tile,
        partial.max,
        partial.sum,
        partial.count,
        len(rows_ND),
        n_features,
        n_tiles,
        N_INPUTS=rows_ND.shape[1],
        BLOCK_N=tiling.tokens,
        BLOCK_F=tiling.features,
        BLOCK_D=tiling.inputs,
        GROUP_N=GROUP,
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )
    _join[(n_documents, -(-n_features // JOINED))](
        segments.of_document,
        partial.max,
        partial.sum,
        partial.count,
        pooled.max,
        pooled.sum,
        pooled.count,
        n_features,
        BLOCK_F=JOINED,
    )
    return pooled.rows()


@dataclass(frozen=True)
class _Pooled:
    """Max and sum float32, count int32, of documents or segments: [B, F]."""

    max: torch.Tensor
    sum: torch.Tensor
    count: torch.Tensor

    @classmethod
    def empty(cls, n_rows: int, n_features: int, device: torch.device) -> _Pooled:
        dtypes = (torch.float32, torch.float32, torch.int32)
        return cls(*(torch.empty(n_rows, n_features, dtype=dtype, device=device) for dtype in dtypes))

    def rows(self) -> SparseRows:
        """The features that fire, in one transfer."""
        place = self.count.flatten().nonzero().squeeze(1)
        n_rows, n_features = self.count.shape
        indptr = torch.searchsorted(place, torch.arange(n_rows + 1, device=place.device) * n_features)
        columns = [indptr, place % n_features]
        values = [array.flatten()[place] for array in (self.max, self.sum, self.count)]
        packed = torch.cat([*(column.int() for column in columns), *(value.view(torch.int32) for value in values)])
        host = np.split(packed.cpu().numpy(), np.cumsum([n_rows + 1, *[len(place)] * 3]))
        return SparseRows(
            host[0].astype(np.int64),
            host[1].view(np.uint32),
            {"max": host[2].view(np.float32), "sum": host[3].view(np.float32), "count": host[4].view(np.uint32)},
        )


@triton.jit
def _encode_and_pool(
    x_ptr,
    w_ptr,
    bias_ptr,
    cutoff_ptr,
    bounds_ptr,
    of_tile_ptr,
    max_ptr,
    sum_ptr,
    count_ptr,
    n_tokens,
    n_features,
    n_tiles,
    N_INPUTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP_N: tl.constexpr,
):
    """One tile: product, cutoff and bias, then max, sum and count of each segment in it."""
    program = tl.program_id(0)
    n_blocks = tl.cdiv(n_features, BLOCK_F)
    first_tile = (program // (GROUP_N * n_blocks)) * GROUP_N
    group = tl.minimum(n_tiles - first_tile, GROUP_N)
    within = program % (GROUP_N * n_blocks)
    tile = first_tile + within % group
    rows = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = (within // group) * BLOCK_F + tl.arange(0, BLOCK_F)
    inside_F = columns < n_features
    inputs = tl.arange(0, BLOCK_D)
    # rows and columns beyond the end read the last one: masks are left to the inputs, and results to the segments
    x_ptrs = x_ptr + tl.minimum(rows, n_tokens - 1).to(tl.int64)[:, None] * N_INPUTS + inputs[None, :]
    w_ptrs = w_ptr + tl.minimum(columns, n_features - 1).to(tl.int64)[None, :] * N_INPUTS + inputs[:, None]
    r = tl.zeros((BLOCK_N, BLOCK_F), dtype=tl.float32)
    for first in range(0, N_INPUTS, BLOCK_D):
        x = tl.load(x_ptrs, mask=inputs[None, :] < N_INPUTS - first, other=0.0)
        w = tl.load(w_ptrs, mask=inputs[:, None] < N_INPUTS - first, other=0.0)
        r = tl.dot(x, w, r)
        x_ptrs += BLOCK_D
        w_ptrs += BLOCK_D
    bias = tl.load(bias_ptr + columns, mask=inside_F, other=0.0)
    cutoff = tl.load(cutoff_ptr + columns, mask=inside_F, other=float("inf"))
    value = tl.where(r > cutoff[None, :], r + bias[None, :], 0.0)  # > 0 where the feature fires
    segment, last = tl.load(of_tile_ptr + tile), tl.load(of_tile_ptr + tile + 1)
    while segment < last:
        of_segment = (rows >= tl.load(bounds_ptr + segment)) & (rows < tl.load(bounds_ptr + segment + 1))
        part = tl.where(of_segment[:, None], value, 0.0)
        place = segment.to(tl.int64) * n_features + columns
        tl.store(max_ptr + place, tl.max(part, axis=0), mask=inside_F)
        tl.store(sum_ptr + place, tl.sum(part, axis=0), mask=inside_F)
        tl.store(count_ptr + place, tl.sum((part > 0.0).to(tl.int32), axis=0), mask=inside_F)
        segment += 1


@triton.jit
def _join(
    of_document_ptr,
    part_max_ptr,
    part_sum_ptr,
    part_count_ptr,
    max_ptr,
    sum_ptr,
    count_ptr,
    n_features,
    BLOCK_F: tl.constexpr,
):
    """Some features of one document, from its segments in order."""
    document = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    inside = columns < n_features
    largest = tl.zeros((BLOCK_F,), dtype=tl.float32)
    total = tl.zeros((BLOCK_F,), dtype=tl.float32)
    count = tl.zeros((BLOCK_F,), dtype=tl.int32)
    segment, last = tl.load(of_document_ptr + document), tl.load(of_document_ptr + document + 1)
    while segment < last:
        place = segment.to(tl.int64) * n_features + columns
        largest = tl.maximum(largest, tl.load(part_max_ptr + place, mask=inside, other=0.0))
        total += tl.load(part_sum_ptr + place, mask=inside, other=0.0)
        count += tl.load(part_count_ptr + place, mask=inside, other=0)
        segment += 1
    place = document.to(tl.int64) * n_features + columns
    tl.store(max_ptr + place, largest, mask=inside)
    tl.store(sum_ptr + place, total, mask=inside)
    tl.store(count_ptr + place, count, mask=inside)
