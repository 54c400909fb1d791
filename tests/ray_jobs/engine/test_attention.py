"""Which blocks of keys FlexAttention is told to load, against the mask written out."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.engine.attention import _block_mask, visible_blocks

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


def test_the_mask_of_flex_attention_is_complete() -> None:
    lengths = [100, 300, 5, 700, 175]
    starts_N = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths).astype(np.int32)
    for window in (None, 200):
        mask = _block_mask(starts_N, torch.from_numpy(starts_N), window)
        seen = written_out(starts_N, window).reshape(10, 128, 10, 128)
        np.testing.assert_array_equal(mask.to_dense()[0, 0].numpy() > 0, seen.any(axis=(1, 3)))
        wholly = np.zeros((10, 10), dtype=bool)
        for row in range(10):
            wholly[row, mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].tolist()] = True
        below = np.tri(10, k=-1, dtype=bool)
        np.testing.assert_array_equal(wholly, seen.all(axis=(1, 3)) & below)
