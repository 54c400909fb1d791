"""Batches hold every window once, within budget, full but for the last; padding is put where it is masked."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.backbone.batching import fill_batches, pad
from ray_jobs.backbone.tokens import Window


def windows_of(lengths: list[int]) -> list[Window]:
    return [Window(number, np.zeros(n, dtype=np.int32), 0, n) for number, n in enumerate(lengths)]


@given(lots=st.lists(st.lists(st.integers(1, 300)), max_size=6), budget=st.integers(1, 500))
def test_every_window_is_in_one_batch_within_the_budget(lots: list[list[int]], budget: int) -> None:
    lengths = [length for lot in lots for length in lot]
    windows = windows_of(lengths)
    starts = np.cumsum([0, *map(len, lots)])
    given_lots = [windows[start : start + len(lot)] for start, lot in zip(starts, lots, strict=False)]
    batches = list(fill_batches(given_lots, lambda: budget))
    assert sorted(window.document for batch in batches for window in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(len(window.ids) for window in batch) <= budget


@given(lengths=st.lists(st.integers(1, 50), min_size=20), budget=st.integers(100, 500))
def test_batches_but_the_last_have_no_room_for_their_successor(lengths: list[int], budget: int) -> None:
    batches = list(fill_batches([windows_of(lengths)], lambda: budget))
    for batch, following in itertools.pairwise(batches):
        assert sum(len(window.ids) for window in batch) + len(following[0].ids) > budget


def test_what_does_not_fill_a_batch_waits_for_the_next_lot() -> None:
    lots = [windows_of([10] * 7), windows_of([10] * 7), windows_of([10] * 7)]
    sizes = [sum(len(window.ids) for window in batch) for batch in fill_batches(lots, lambda: 100)]
    assert sizes == [100, 100, 10]


def test_the_budget_is_asked_for_each_batch() -> None:
    budgets = iter([100] * 2 + [50] * 20)
    sizes = [len(batch) for batch in fill_batches([windows_of([10] * 30)], lambda: next(budgets))]
    assert sizes == [10, 5, 5, 5, 5]


def test_rows_are_padded_on_the_right_and_masked() -> None:
    windows = [Window(0, np.array([2, 5, 6], dtype=np.int32), 1, 3), Window(1, np.array([2], dtype=np.int32), 1, 1)]
    ids, mask = pad(windows, pad_id=9)
    assert ids.tolist() == [[2, 5, 6], [2, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
