"""Pooling of sparse pairs equals pooling of the dense activations, however windows and chunks are cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.backbone.bundle import SaeInfo
from ray_jobs.backbone.sae_families import SaeWeights
from ray_jobs.engine import device_pooling, pooling
from ray_jobs.engine.encoder import Active, Inputs, SaeEncoder
from ray_jobs.engine.pooling import pool_saes, pool_windows
from ray_jobs.engine.sparse_rows import SparseRows, empty_rows, gather_rows, stack_rows, value_dtype
from tests.reference import assert_row_equals

torch.set_num_threads(1)

POOLS = ("max", "sum", "count", "last", "top2", "top5")


def random_acts(n_tokens: int, n_features: int, density: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    acts = rng.gamma(2.0, 1.0, size=(n_tokens, n_features)).astype(np.float32)
    return acts * (rng.random(acts.shape) < density)


def chunks_of(acts: np.ndarray, width: int) -> Iterator[Active]:
    for first in range(0, acts.shape[1], width):
        feature, token = np.nonzero(acts[:, first : first + width].T)
        yield Active(feature + first, token, acts[token, feature + first])


def encoder_of(seed: int, route: str, n_features: int = 60, d_in: int = 12, k: int | None = None) -> SaeEncoder:
    """An SAE with a feature in ten active on standard normal inputs."""
    W_FD = torch.randn(n_features, d_in, generator=torch.Generator().manual_seed(seed)) / d_in**0.5
    kind, cutoff_F = ("jumprelu", torch.full((n_features,), 1.3)) if k is None else ("topk", None)
    info = SaeInfo(f"s{seed}", 2, "resid_post", d_in, n_features, kind, False, {"path": "/s"}, (), (), k=k)
    zeros = torch.zeros(n_features)
    return SaeEncoder.of(info, SaeWeights(W_FD, zeros, cutoff_F, None, torch.zeros(d_in)), route)  # type: ignore[arg-type]


def dense(encoder: SaeEncoder, x_ND: torch.Tensor) -> np.ndarray:
    """Activations [tokens, features] by the definition of an SAE with these weights."""
    r_NF = (x_ND @ encoder.weights.W_FD.T).numpy()
    if encoder.info.k is None:
        return np.where(r_NF > 1.3, r_NF, np.float32(0))
    kth_N1 = np.sort(r_NF, axis=1)[:, -encoder.info.k, None]
    return np.where((r_NF >= kth_N1) & (r_NF > 0), r_NF, np.float32(0))


def assert_same(first: SparseRows, second: SparseRows, rtol: float = 0) -> None:
    np.testing.assert_array_equal(first.indptr, second.indptr)
    np.testing.assert_array_equal(first.indices, second.indices)
    assert first.indices.dtype == second.indices.dtype == np.uint32
    assert list(first.values) == list(second.values)
    for pool, values in first.values.items():
        assert values.dtype == second.values[pool].dtype
        np.testing.assert_allclose(values, second.values[pool], rtol=rtol)


def bounds(lengths: list[int]) -> list[tuple[int, int]]:
    ends = np.cumsum(lengths)
    return list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))


@settings(max_examples=60)
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


@settings(max_examples=60)
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
    merged = gather_rows([rows], np.zeros(len(lengths), dtype=int), np.arange(len(lengths)), 1, pools)
    assert_row_equals(merged, acts, pools, rtol=1e-6)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    pools=st.sets(st.sampled_from(POOLS), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
    route=st.sampled_from(["prefiltered", "plain", "device"]),
    k=st.sampled_from([None, 4]),
    block_tokens=st.integers(1, 60),
    group_pairs=st.sampled_from([1, 20, 10**6]),
    seed=st.integers(0, 99),
)
def test_every_route_pools_like_dense_activations(
    lengths: list[int],
    pools: tuple[str, ...],
    route: str,
    k: int | None,
    block_tokens: int,
    group_pairs: int,
    seed: int,
) -> None:
    x_ND = torch.randn(sum(lengths), 12, generator=torch.Generator().manual_seed(seed))
    encoders = [encoder_of(number, route, k=k) for number in (seed, seed + 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "BLOCK_TOKENS", block_tokens)
        patch.setattr(pooling, "GROUP_PAIRS", group_pairs)
        if route == "device":
            inputs, counts = Inputs(x_ND), np.array(lengths)
            found = {
                encoder.info.name: device_pooling.pool_on_device(
                    encoder, inputs, counts, pools, chunk_elements=block_tokens * 20, group_pairs=group_pairs
                )
                for encoder in encoders
            }
        else:
            found = pool_saes(encoders, x_ND, np.array(lengths), pools)
    for encoder in encoders:
        rows, acts = found[encoder.info.name], dense(encoder, x_ND)
        assert len(rows.indptr) == len(lengths) + 1
        assert rows.indptr.dtype == np.int64
        for number, (start, stop) in enumerate(bounds(lengths)):
            assert_row_equals(rows.row(number), acts[start:stop], pools, rtol=1e-5)


def test_pooling_goes_where_the_encoders_are(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND, lengths = torch.randn(40, 12, generator=torch.Generator().manual_seed(1)), np.array([15, 25])
    host, device = (pool_saes([encoder_of(3, route)], x_ND, lengths, POOLS)["s3"] for route in ("plain", "device"))
    assert_same(host, device, rtol=1e-6)
    monkeypatch.setattr(pooling, "pool_windows", None)
    pool_saes([encoder_of(3, "device")], x_ND, lengths, POOLS)


def test_sums_of_many_tokens_are_exact_to_float32() -> None:
    """Added up in float32, 2^17 times 0.1 would be off by a thousandth."""
    acts = np.full((2**17, 1), 0.1, dtype=np.float32)
    rows = pool_windows(chunks_of(acts, 1), np.array([len(acts)]), ("sum",))
    assert rows.values["sum"][0] == np.float32(np.float64(acts[0, 0]) * len(acts))
    pairs = device_pooling.Pairs(*(torch.from_numpy(part) for part in (*np.nonzero(acts.T), acts[:, 0])))
    (_, values) = device_pooling._pool_runs(
        pairs, torch.zeros(len(acts), dtype=torch.int64), torch.tensor([len(acts) - 1]), ("sum",)
    )
    assert values["sum"].item() == rows.values["sum"][0]


@settings(max_examples=80)
@given(
    windows=st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=7),
    pools=st.sets(st.sampled_from(POOLS), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
    n_parts=st.integers(1, 4),
    left_out=st.sets(st.integers(0, 6)),
    density=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 99),
)
def test_rows_are_gathered_by_document_whatever_order_windows_were_made_in(
    windows: list[list[int]], pools: tuple[str, ...], n_parts: int, left_out: set[int], density: float, seed: int
) -> None:
    """Documents of no, one or several windows, these scattered over batches in any order."""
    rng = np.random.default_rng(seed)
    acts = [random_acts(sum(lengths), 25, density, seed + number) for number, lengths in enumerate(windows)]
    items = [(number, place) for number, lengths in enumerate(windows) for place in range(len(lengths))]
    items = [items[item] for item in rng.permutation(len(items))]
    parts = []
    for chosen in np.array_split(np.arange(len(items)), n_parts):
        pieces = []
        for number, place in (items[item] for item in chosen):
            start, stop = bounds(windows[number])[place]
            pieces.append(acts[number][start:stop])
        if pieces:
            lengths = np.array([len(piece) for piece in pieces])
            parts.append(pool_windows(chunks_of(np.concatenate(pieces), 9), lengths, pools))
    document = np.array([-1 if number in left_out else number for number, _ in items], dtype=np.int64)
    place = np.array([place for _, place in items], dtype=np.int64)
    rows = gather_rows(parts, document, place, len(windows), pools)
    assert len(rows.indptr) == len(windows) + 1
    for number, lengths in enumerate(windows):
        whole = acts[number] if lengths and number not in left_out else np.zeros((1, 25), dtype=np.float32)
        assert_row_equals(rows.row(number), whole, pools, rtol=1e-6)
        assert all(values.dtype == value_dtype(pool) for pool, values in rows.values.items())


def test_a_document_without_windows_gets_an_empty_row() -> None:
    none = np.array([], dtype=np.int64)
    assert_same(gather_rows([], none, none, 3, ("max",)), empty_rows(3, ("max",)))
    one = pool_windows(chunks_of(np.ones((1, 2), dtype=np.float32), 2), np.array([1]), ("max",))
    assert gather_rows([one], np.array([1]), np.array([0]), 3, ("max",)).indptr.tolist() == [0, 0, 2, 2]


def test_of_equal_activations_the_lower_feature_is_in_the_top() -> None:
    acts = np.array([[1.0, 3.0, 3.0, 3.0]], dtype=np.float32)
    for width in (1, 2, 4):
        rows = pool_windows(chunks_of(acts, width), np.array([1]), ("top2",))
        assert rows.indices.tolist() == [1, 2]


def test_rows_stack_in_order_and_empty_ones_stay() -> None:
    one = SparseRows(np.array([0, 1]), np.array([7], dtype=np.uint32), {"max": np.array([0.5], dtype=np.float32)})
    stacked = stack_rows([one, empty_rows(1, ("max",)), one], ("max",))
    assert stacked.indptr.tolist() == [0, 1, 1, 2]
    assert stacked.row(2).indices.tolist() == [7]
    assert stacked.row(1).values["max"].dtype == np.float32
