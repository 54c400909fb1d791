"""Compute attention over documents that lie end to end in one packed row, exact for soft caps and sliding windows.

Two implementations of one contract, `plan` once a batch and `attend` once a layer:

`DenseAttention` (CPU) pads documents of like length to rectangles, for the attention alone. Scores are float32, and
queries are taken in blocks, so that what the causal mask or the sliding window hides is hardly computed. The documents'
common head (the beginning-of-sequence token, or a chat template) is run once, when the model is opened, and its keys
and values are put before those of every document. Costs beside the linears: about a tenth of the time at 130 tokens a
document.

`FlexAttention` (GPU) keeps the packed row: torch's flex_attention with the soft cap as score modification and a block
mask of document, causality and window, compiled for one static shape. Scores are never written to memory. Which blocks
of keys a block of queries sees is worked out on the host, where it is a matter of a few thousand numbers.

Shapes: N packed tokens, B documents, T positions of the longest, P positions of the head, S keys, H heads, K key/value
heads, G = H / K, E head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ray_jobs.backbone import cpu_products

QUERY_BLOCK = 64
"""Queries of a document computed at a time: few enough to skip most keys that lie behind them, enough for a GEMM."""

LEAST_FILL = 0.75
"""A document joins a rectangle if it fills at least this much of its row: bounds padding, keeps rectangles few."""


FLEX_BLOCK = 128
"""Rows of a block of FlexAttention's mask, torch's default: a block of keys is loaded if any of its keys is seen."""

LARGE_TILES = {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2}
"""Of FlexAttention where they fit into a multiprocessor's shared memory (Hopper's does for Gemma 2 in bfloat16): a
quarter less time than torch's own choice, see `benchmarks.gpu_attention`."""

SPARE_SHARED_BYTES = 16 << 10
"""Of shared memory, for what a kernel keeps besides queries, keys and values."""

LARGE_KEYS = 128
"""Keys from which scores are worth a oneDNN product of their own for each document and key/value head."""


@dataclass(frozen=True)
class AttentionShape:
    """What the attention of every layer of a model has in common.

    Attributes:
        n_heads: H.
        n_kv_heads: K.
        head_dim: E.
        scale: Factor of the scores.
        softcap: Cap c of the scores, c * tanh(score / c), or None.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    scale: float
    softcap: float | None


@dataclass(frozen=True)
class Head:
    """Keys and values of the positions that every document begins with, float32 [P, K, E] and [P, K, E]."""

    k_PKE: torch.Tensor
    v_PKE: torch.Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Documents end to end.

    Attributes:
        lengths: Tokens of each document, int64 [B], all >= 1.
        ids_N: Token ids, int64; on the device, as is the next one. N may exceed the documents' tokens.
        position_N: Position of each token in its document, head included.
        starts_N: Row at which the document of each token starts, int64, on the host; each row of padding is one.
        first_position: Position of each document's first token here; not 0 where a head before it is not in the batch.
    """

    lengths: np.ndarray
    ids_N: torch.Tensor
    position_N: torch.Tensor
    starts_N: np.ndarray
    first_position: int = 0

    @property
    def n_positions(self) -> int:
        """Positions from 0 to the last of any document, known without waiting for the device."""
        return self.first_position + int(self.lengths.max())

    def on(self, device: torch.device) -> PackedBatch:
        """The batch with what is on a device on another one."""
        if device == self.ids_N.device:
            return self
        ids_N, position_N = (x_N.to(device, non_blocking=True) for x_N in (self.ids_N, self.position_N))
        return replace(self, ids_N=ids_N, position_N=position_N)


@dataclass(frozen=True)
class _Rectangle:
    """Packed rows `[start, stop)` as B documents of up to T positions; `slots` [rows] where they do not fill it."""

    start: int
    stop: int
    n_documents: int
    length: int
    slots: torch.Tensor | None


class DenseAttention:
    """Softmax attention on rectangles of documents.

    Args:
        shape: Of the model.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape

    def plan(self, batch: PackedBatch) -> list[_Rectangle]:
        """Rectangles of consecutive documents; few where lengths are sorted."""
        lengths = batch.lengths.tolist()
        rectangles: list[_Rectangle] = []
        first = row = 0
        while first < len(lengths):
            longest = shortest = lengths[first]
            last = first + 1
            while last < len(lengths):
                longest, shortest = max(longest, lengths[last]), min(shortest, lengths[last])
                if shortest < LEAST_FILL * longest:
                    break
                last += 1
            rectangles.append(_rectangle(row, lengths[first:last], batch.ids_N.device))
            row, first = rectangles[-1].stop, last
        return rectangles

    def attend(
        self,
        plan: Sequence[_Rectangle],
        window: int | None,
        head: Head | None,
        q_NHE: torch.Tensor,
        k_NKE: torch.Tensor,
        v_NKE: torch.Tensor,
    ) -> torch.Tensor:
        """Attention of one layer.

        Args:
            plan: Of this batch.
            window: Positions that a query sees, itself included; None for all before it.
            head: What comes before every document, or None.
            q_NHE: Queries, rotated, float32.
            k_NKE: Keys, rotated, float32.
            v_NKE: Values, in the compute dtype, which probabilities are rounded to.

        Returns:
            [N, H * E] in the dtype of the values.
        """
        out_ND = v_NKE.new_empty(len(q_NHE), self.shape.n_heads * self.shape.head_dim)
        for rectangle in plan:
            rows = slice(rectangle.start, rectangle.stop)
            q_BTHE, k_BTKE, v_BTKE = (_padded(x[rows], rectangle) for x in (q_NHE, k_NKE, v_NKE))
            if head is not None:
                k_BTKE, v_BTKE = _behind(head.k_PKE, k_BTKE), _behind(head.v_PKE, v_BTKE)
            o_BTD = self._rectangle(q_BTHE, k_BTKE, v_BTKE, window)
            flat = o_BTD.flatten(0, 1)
            out_ND[rows] = flat if rectangle.slots is None else flat[rectangle.slots]
        return out_ND

    def _rectangle(
        self, q_BTHE: torch.Tensor, k_BSKE: torch.Tensor, v_BSKE: torch.Tensor, window: int | None
    ) -> torch.Tensor:
        n_documents, length = q_BTHE.shape[:2]
        n_head = k_BSKE.shape[1] - length
        k_BKES, v_BKSE = k_BSKE.permute(0, 2, 3, 1), v_BSKE.transpose(1, 2)
        out_BTD = v_BSKE.new_empty(n_documents, length, self.shape.n_heads * self.shape.head_dim)
        for start in range(0, length, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, length)
            first_key = 0 if window is None else max(0, n_head + start - window + 1)
            keys = slice(first_key, n_head + stop)
            out_BTD[:, start:stop] = self._block(
                q_BTHE[:, start:stop],
                k_BKES[..., keys],
                v_BKSE[:, :, keys],
                _mask(n_head + start, stop - start, first_key, n_head + stop - first_key, window, q_BTHE.device),
            )
        return out_BTD

    def _block(
        self, q_BTHE: torch.Tensor, k_BKES: torch.Tensor, v_BKSE: torch.Tensor, mask_TS: torch.Tensor
    ) -> torch.Tensor:
        n_documents, length = q_BTHE.shape[:2]
        n_kv, n_keys = self.shape.n_kv_heads, mask_TS.shape[1]
        q_BKGTE = q_BTHE.unflatten(2, (n_kv, -1)).permute(0, 2, 3, 1, 4)
        scores = _scores(q_BKGTE.flatten(2, 3), k_BKES).view(n_documents, n_kv, -1, length, n_keys)
        scores = scores.mul_(self.shape.scale)
        if self.shape.softcap is not None:
            scores = scores.div_(self.shape.softcap).tanh_().mul_(self.shape.softcap)
        p_BKGTS = scores.add_(mask_TS).softmax(-1).to(v_BKSE.dtype)
        o_BKGTE = torch.matmul(p_BKGTS.flatten(2, 3), v_BKSE).unflatten(2, (-1, length))
        return o_BKGTE.permute(0, 3, 1, 2, 4).flatten(2)


def _scores(q_BKQE: torch.Tensor, k_BKES: torch.Tensor) -> torch.Tensor:
    """q @ k in float32, [B, K, Q, S]; one product per document and key/value head where that is faster."""
    if q_BKQE.is_cuda or k_BKES.shape[-1] < LARGE_KEYS or not cpu_products.fused():
        return torch.matmul(q_BKQE, k_BKES)
    scores_BKQS = q_BKQE.new_empty(*q_BKQE.shape[:3], k_BKES.shape[-1])
    k_BKSE = k_BKES.transpose(2, 3)
    for document in range(q_BKQE.shape[0]):
        for head in range(q_BKQE.shape[1]):
            scores_BKQS[document, head] = cpu_products.linear(q_BKQE[document, head], k_BKSE[document, head])
    return scores_BKQS


class FlexAttention:
    """torch's flex_attention over the packed row.

    Args:
        shape: Of the model.
        windows: The different sliding windows of its layers, None for full attention.
        compiled: Whether to compile; uncompiled it writes all scores to memory, which is for tests only.
    """

    def __init__(self, shape: AttentionShape, windows: Sequence[int | None], compiled: bool) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        self.shape = shape
        self._windows = tuple(windows)
        self._flex_attention: Any = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
        self._score_mod = None if shape.softcap is None else softcapped(shape.softcap)

    def plan(self, batch: PackedBatch) -> dict[int | None, Any]:
        """A block mask for each kind of layer; a window that is no shorter than every document hides nothing."""
        starts_N = moved(batch.starts_N.astype(np.int32), batch.ids_N.device)
        longest = int(batch.lengths.max())
        masks: dict[int | None, Any] = {}
        for window in self._windows:
            binding = None if window is None or window >= longest else window
            if binding not in masks:
                masks[binding] = block_mask(batch.starts_N, starts_N, binding)
            masks[window] = masks[binding]
        return masks

    def attend(
        self,
        plan: dict[int | None, Any],
        window: int | None,
        head: Head | None,
        q_NHE: torch.Tensor,
        k_NKE: torch.Tensor,
        v_NKE: torch.Tensor,
    ) -> torch.Tensor:
        """Attention of one layer; queries, keys and values in one dtype, [N, H * E] out. There is no `head`."""
        assert head is None
        tiles = LARGE_TILES if large_tiles_fit(q_NHE.shape[-1], q_NHE.element_size(), q_NHE.device) else None
        o_1HNE = self._flex_attention(
            q_NHE.transpose(0, 1)[None],
            k_NKE.transpose(0, 1)[None],
            v_NKE.transpose(0, 1)[None],
            score_mod=self._score_mod,
            block_mask=plan[window],
            scale=self.shape.scale,
            enable_gqa=self.shape.n_heads != self.shape.n_kv_heads,
            kernel_options=tiles,
        )
        return o_1HNE[0].transpose(0, 1).flatten(1)


def _rectangle(first_row: int, lengths: Sequence[int], device: torch.device) -> _Rectangle:
    length, n_rows = max(lengths), sum(lengths)
    slots = None
    if n_rows != len(lengths) * length:
        within = np.arange(n_rows) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        slots = torch.from_numpy(np.repeat(np.arange(len(lengths)) * length, lengths) + within).to(device)
    return _Rectangle(first_row, first_row + n_rows, len(lengths), length, slots)


def _padded(x_Nxx: torch.Tensor, rectangle: _Rectangle) -> torch.Tensor:
    """[rows, ...] -> [B, T, ...]; places behind a document's end are zero, and the causal mask hides them from it."""
    if rectangle.slots is not None:
        rows = x_Nxx.new_zeros(rectangle.n_documents * rectangle.length, *x_Nxx.shape[1:])
        x_Nxx = rows.index_copy_(0, rectangle.slots, x_Nxx)
    return x_Nxx.unflatten(0, (rectangle.n_documents, rectangle.length))


def _behind(head_PKE: torch.Tensor, x_BTKE: torch.Tensor) -> torch.Tensor:
    return torch.cat([head_PKE.to(x_BTKE.dtype).expand(len(x_BTKE), -1, -1, -1), x_BTKE], dim=1)


@lru_cache(maxsize=256)
def _mask(
    first_query: int, n_queries: int, first_key: int, n_keys: int, window: int | None, device: torch.device
) -> torch.Tensor:
    """0 where a query at an absolute position sees a key, else -inf; float32 [queries, keys]."""
    distance_TS = (first_query + torch.arange(n_queries))[:, None] - (first_key + torch.arange(n_keys))[None]
    hidden_TS = distance_TS < 0
    if window is not None:
        hidden_TS |= distance_TS >= window
    return torch.zeros(n_queries, n_keys).masked_fill_(hidden_TS, float("-inf")).to(device)


def softcapped(cap: float) -> Any:
    """FlexAttention's score modification: c * tanh(score / c)."""

    def score_mod(score: torch.Tensor, _b: Any, _h: Any, _q: Any, _k: Any) -> torch.Tensor:
        return torch.tanh(score / cap) * cap

    return score_mod


@lru_cache(maxsize=64)
def large_tiles_fit(head_dim: int, item_bytes: int, device: torch.device) -> bool:
    """Whether LARGE_TILES of queries, and of keys and values for each stage, fit into the device's shared memory."""
    if device.type != "cuda":
        return False
    rows = LARGE_TILES["BLOCK_M"] + 2 * LARGE_TILES["num_stages"] * LARGE_TILES["BLOCK_N"]
    properties = torch.cuda.get_device_properties(device)
    there: int = getattr(properties, "shared_memory_per_block_optin", 0)  # older torch does not tell
    return rows * head_dim * item_bytes + SPARE_SHARED_BYTES <= there


def visible_blocks(starts_N: np.ndarray, window: int | None, block: int = FLEX_BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """For each block of queries, the first block of keys that it sees in part, and the first that it sees whole.

    A query sees the keys of its document up to itself, and at most `window` of them. From one query to the next neither
    end of that run of rows moves backwards. So the blocks that a block of queries sees in part begin with the one that
    holds the first key of its first query; those that it sees whole begin no earlier than the first key of its last
    query, and end before its first query.

    Args:
        starts_N: Row at which the document of each token starts.
        window: Keys that a query sees at most, itself included; None for all.
        block: Rows of a block.

    Returns:
        Two arrays of block numbers, integers [query blocks]. From the first of them to its own, a block of queries sees
        every block at least in part. From the second to the one before its own it sees every block whole; there is none
        if the second is not before its own.
    """
    rows = np.arange(len(starts_N))
    first_N = starts_N if window is None else np.maximum(starts_N, rows - window + 1)
    begins = rows[::block]
    ends = np.minimum(begins + block, len(rows)) - 1
    return first_N[begins] // block, -(-first_N[ends] // block)


def block_mask(starts: np.ndarray, starts_N: torch.Tensor, window: int | None) -> Any:
    """The mask of one kind of layer, for FlexAttention.

    Args:
        starts: Row at which the document of each token starts, integers [N], on the host.
        starts_N: The same, int32, where the attention runs.
        window: Keys that a query sees at most, itself included; None for all.
    """
    from torch.nn.attention.flex_attention import BlockMask

    some, whole = visible_blocks(starts, window)
    own = np.arange(len(some))
    n_whole = np.maximum(own - whole, 0)
    # seen in part: the blocks before those seen whole, and the block of the queries themselves
    n_before = np.where(n_whole > 0, whole - some, own - some)
    columns = np.arange(len(some))[None]
    partly = np.where(columns < n_before[:, None], some[:, None] + columns, own[:, None])
    wholly = np.minimum(whole[:, None] + columns, len(some) - 1)
    counts_and_places = np.concatenate([(n_before + 1)[:, None], n_whole[:, None], partly, wholly], axis=1)
    on_device = moved(counts_and_places.astype(np.int32), starts_N.device)
    n_blocks = len(some)
    return BlockMask.from_kv_blocks(
        on_device[None, None, :, 0].contiguous(),
        on_device[None, None, :, 2 : 2 + n_blocks].contiguous(),
        on_device[None, None, :, 1].contiguous(),
        on_device[None, None, :, 2 + n_blocks :].contiguous(),
        BLOCK_SIZE=FLEX_BLOCK,
        mask_mod=_visible(starts_N, window),
        seq_lengths=(len(starts_N), len(starts_N)),
        compute_q_blocks=False,
    )


def _visible(starts_N: torch.Tensor, window: int | None) -> Any:
    def mask_mod(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        seen = (k >= starts_N[q]) & (k <= q)
        return seen if window is None else seen & (q - k < window)

    return mask_mod


def moved(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array as a tensor on the device; a copy to a GPU is not waited for."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
