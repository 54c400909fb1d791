"""Batches hold every item once, within budget, with little padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.engine.batching import pad, plan_batches
from ray_jobs.engine.tokens import Window


@given(lengths=st.lists(st.integers(1, 300)), budget=st.integers(1, 500))
def test_every_item_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(item for batch in batches for item in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[item] for item in batch) <= budget


def test_log_normal_lengths_cost_less_than_a_tenth_of_padding() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, size=600), 1, 1024).astype(int).tolist()
    fed = sum(len(batch) * max(lengths[item] for item in batch) for batch in plan_batches(lengths, 2048))
    assert fed / sum(lengths) < 1.1


def test_rows_are_padded_on_the_right_and_masked() -> None:
    windows = [Window(0, np.array([2, 5, 6], dtype=np.int32), 1, 3), Window(1, np.array([2], dtype=np.int32), 1, 1)]
    ids, mask = pad(windows, pad_id=9)
    assert ids.tolist() == [[2, 5, 6], [2, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
