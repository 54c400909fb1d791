"""Pooling of sparse pairs equals pooling of the dense activations, however windows and chunks are cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.engine.encoder import Active
from ray_jobs.engine.pooling import SparseRows, empty_rows, merge_windows, pool_windows, stack_rows
from tests.reference import assert_row_equals

POOLS = ("max", "sum", "count", "last", "top2", "top5")


def random_acts(n_tokens: int, n_features: int, density: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    acts = rng.gamma(2.0, 1.0, size=(n_tokens, n_features)).astype(np.float32)
    return acts * (rng.random(acts.shape) < density)


def chunks_of(acts: np.ndarray, width: int) -> Iterator[Active]:
    for first in range(0, acts.shape[1], width):
        feature, token = np.nonzero(acts[:, first : first + width].T)
        yield Active(feature + first, token, acts[token, feature + first])


def bounds(lengths: list[int]) -> list[tuple[int, int]]:
    ends = np.cumsum(lengths)
    return list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    n_features=st.integers(1, 40),
    width=st.integers(1, 50),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_each_window_is_pooled_like_its_dense_activations(
    lengths: list[int], n_features: int, width: int, density: float, seed: int
) -> None:
    acts = random_acts(sum(lengths), n_features, density, seed)
    rows = pool_windows(chunks_of(acts, width), np.array(lengths), POOLS)
    assert len(rows.indptr) == len(lengths) + 1
    for number, (start, stop) in enumerate(bounds(lengths)):
        row = rows.row(number)
        assert row.indices.dtype == np.uint32
        assert np.all(np.diff(row.indices.astype(np.int64)) > 0)
        assert_row_equals(row, acts[start:stop], POOLS, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    density=st.sampled_from([0.0, 0.05, 0.4]),
    pools=st.sets(st.sampled_from(POOLS), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
    seed=st.integers(0, 99),
)
def test_windows_merge_into_the_pooling_of_the_whole_document(
    lengths: list[int], density: float, pools: tuple[str, ...], seed: int
) -> None:
    acts = random_acts(sum(lengths), 30, density, seed)
    rows = pool_windows(chunks_of(acts, 11), np.array(lengths), pools)
    merged = merge_windows([rows.row(number) for number in range(len(lengths))], pools)
    assert_row_equals(merged, acts, pools, rtol=1e-6)


def test_of_equal_activations_the_lower_feature_is_in_the_top() -> None:
    acts = np.array([[1.0, 3.0, 3.0, 3.0]], dtype=np.float32)
    for width in (1, 2, 4):
        merged = merge_windows([pool_windows(chunks_of(acts, width), np.array([1]), ("top2",)).row(0)], ("top2",))
        assert merged.indices.tolist() == [1, 2]


def test_rows_stack_in_order_and_empty_ones_stay() -> None:
    one = SparseRows(np.array([0, 1]), np.array([7], dtype=np.uint32), {"max": np.array([0.5], dtype=np.float32)})
    stacked = stack_rows([one, empty_rows(1, ("max",)), one], ("max",))
    assert stacked.indptr.tolist() == [0, 1, 1, 2]
    assert stacked.row(2).indices.tolist() == [7]
    assert stacked.row(1).values["max"].dtype == np.float32
