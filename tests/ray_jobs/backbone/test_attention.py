"""Which blocks of keys FlexAttention is told to load, against the mask written out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.backbone.attention import (
    FLEX_BLOCK,
    AttentionShape,
    FlexAttention,
    PackedBatch,
    block_mask,
    large_tiles_fit,
    visible_blocks,
)

BLOCK = 8


def written_out(starts_N: np.ndarray, window: int | None) -> np.ndarray:
    """Whether a query sees a key, bool [N, N], by the definition."""
    seen = np.zeros((len(starts_N), len(starts_N)), dtype=bool)
    for q in range(len(starts_N)):
        for k in range(len(starts_N)):
            seen[q, k] = starts_N[q] == starts_N[k] and k <= q and (window is None or q - k < window)
    return seen


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.none() | st.integers(1, 50))
def test_blocks_are_those_of_the_mask(lengths: list[int], window: int | None) -> None:
    starts_N = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    seen = written_out(starts_N, window)
    some, whole = visible_blocks(starts_N, window, BLOCK)
    for number in range(len(some)):
        rows = seen[number * BLOCK : (number + 1) * BLOCK]
        blocks = [rows[:, first : first + BLOCK] for first in range(0, len(starts_N), BLOCK)]
        assert [j for j, block in enumerate(blocks) if block.any()] == list(range(some[number], number + 1))
        assert [j for j, block in enumerate(blocks[:number]) if block.all()] == list(range(whole[number], number))


@pytest.mark.parametrize("lengths", [[100, 300, 5, 700, 175], [128, 256, 384, 3], [1, 1, 1, 40]])
@pytest.mark.parametrize("window", [None, 200])
def test_the_mask_of_flex_attention_has_every_block_once(lengths: list[int], window: int | None) -> None:
    starts_N = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    mask = block_mask(starts_N, torch.from_numpy(starts_N.astype(np.int32)), window)
    seen = written_out(starts_N, window)
    for row in range(-(-len(starts_N) // FLEX_BLOCK)):
        partly = mask.kv_indices[0, 0, row, : mask.kv_num_blocks[0, 0, row]].tolist()
        wholly = mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].tolist()
        of_row = seen[row * FLEX_BLOCK : (row + 1) * FLEX_BLOCK]
        blocks = [of_row[:, first : first + FLEX_BLOCK] for first in range(0, len(starts_N), FLEX_BLOCK)]
        assert sorted([*partly, *wholly]) == [number for number, block in enumerate(blocks) if block.any()]
        assert wholly == [number for number, block in enumerate(blocks[:row]) if block.all()]


def test_a_window_that_no_document_is_longer_than_is_none_however_the_row_is_filled_up() -> None:
    attention = FlexAttention(AttentionShape(4, 2, 16, 0.25, None), [40, None], compiled=False)
    starts_N = np.concatenate([np.repeat([0, 30], [30, 20]), np.arange(50, 512)])
    nothing = torch.zeros(512, dtype=torch.int64)
    plan = attention.plan(PackedBatch(np.array([30, 20]), nothing, nothing, starts_N))
    assert plan[40] is plan[None]
    assert attention.plan(PackedBatch(np.array([30, 41]), nothing, nothing, starts_N))[40] is not plan[None]


@pytest.mark.parametrize(
    ("item_bytes", "shared_bytes", "fits"), [(2, 232_448, True), (4, 232_448, False), (2, 166_912, False)]
)
def test_large_tiles_are_for_gpus_with_room_for_them(
    monkeypatch: pytest.MonkeyPatch, item_bytes: int, shared_bytes: int, fits: bool
) -> None:
    large_tiles_fit.cache_clear()
    there = SimpleNamespace(shared_memory_per_block_optin=shared_bytes)  # of an H100 and of an A100
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: there)
    assert large_tiles_fit(256, item_bytes, torch.device("cuda", 0)) is fits
    assert not large_tiles_fit(256, item_bytes, torch.device("cpu"))
    large_tiles_fit.cache_clear()
