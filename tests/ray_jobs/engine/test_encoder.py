"""Active pairs equal sae-lens' encode and each other, whatever the route, the chunk, the block and the company."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.backbone.bundle import Bundle, SaeInfo
from ray_jobs.backbone.sae_families import SaeWeights, fold
from ray_jobs.engine.device_pooling import pool_on_device
from ray_jobs.engine.encoder import Active, Inputs, Route, SaeEncoder, largest_per_token
from ray_jobs.engine.int8_prefilter import prefilter_input
from tests.reference import encode

torch.set_num_threads(1)

ROUTES: tuple[Route, ...] = ("prefiltered", "plain")


def info_of(d_in: int, d_sae: int, k: int | None = None, apply_b_dec: bool = False) -> SaeInfo:
    kind = "jumprelu" if k is None else "topk"
    return SaeInfo("s", 2, "resid_post", d_in, d_sae, kind, apply_b_dec, {"path": "/sae"}, (), (), k=k)


def random_weights(d_in: int, d_sae: int, seed: int, dtype: torch.dtype = torch.float32) -> SaeWeights:
    """Rows of norm about 1 and thresholds of about 1.5: on standard normal inputs a fifteenth of them is active."""
    generator = torch.Generator().manual_seed(seed)
    weights = fold(
        "jumprelu",
        {
            "W_enc": torch.randn(d_in, d_sae, generator=generator) / d_in**0.5,
            "b_enc": 0.3 * torch.randn(d_sae, generator=generator),
            "threshold": 1.5 + 0.2 * torch.randn(d_sae, generator=generator),
            "b_dec": torch.randn(d_in, generator=generator),
        },
    )
    return SaeWeights.of({**weights.tensors(), "W_enc": weights.W_FD.to(dtype).contiguous()})


def pairs(encoder: SaeEncoder, x_ND: torch.Tensor, **chunk: int) -> dict[tuple[int, int], float]:
    """(feature, token) -> value; checks their order."""
    chunks = list(encoder.active(Inputs(x_ND), **chunk))
    active = Active.joined(chunks)
    assert np.all(np.diff(active.feature * len(x_ND) + active.token) > 0)
    assert np.all(active.value > 0)
    assert active.value.dtype == np.float32
    places = zip(active.feature.tolist(), active.token.tolist(), strict=True)
    return dict(zip(places, active.value.tolist(), strict=True))


@pytest.fixture(scope="module")
def residual() -> torch.Tensor:
    return torch.randn(57, 32, generator=torch.Generator().manual_seed(5)) * 3


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("chunk_elements", [1, 57 * 7, 10**9])
def test_activations_equal_sae_lens(
    bundle: Bundle, tiny_saes: dict[str, tuple[Path, int]], residual: torch.Tensor, number: int, chunk_elements: int
) -> None:
    info = bundle.saes[number]
    expected = encode(tiny_saes[info.name][0], residual.numpy())
    found = np.zeros_like(expected)
    for (feature, token), value in pairs(
        SaeEncoder(bundle, info, "cpu"), residual, chunk_elements=chunk_elements
    ).items():
        found[token, feature] = value
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_weights_give_float32_activations(
    make_bundle: Callable[..., Bundle], residual: torch.Tensor
) -> None:
    half = make_bundle("bfloat16", saes=("jump2",))
    weights = SaeEncoder(half, half.saes[0], "cpu").weights
    assert weights.W_FD.dtype == torch.bfloat16
    wide = SaeWeights.of({**weights.tensors(), "W_enc": weights.W_FD.float()})
    exact = SaeEncoder.of(half.saes[0], wide, "plain")
    for route in ROUTES:
        found, expected = (pairs(e, residual) for e in (SaeEncoder.of(half.saes[0], weights, route), exact))
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    d_in=st.sampled_from([8, 33, 256]),
    outliers=st.integers(0, 40),
    size=st.sampled_from([0.0, 30.0, 1e4, 1e9]),
    scale=st.sampled_from([1e-20, 1.0, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    k=st.sampled_from([None, 7]),
)
def test_the_prefilter_loses_nothing(
    seed: int, d_in: int, outliers: int, size: float, scale: float, dtype: torch.dtype, k: int | None
) -> None:
    """Huge dimensions, few or many, in inputs and rows; inputs too small and too large for their thresholds."""
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(30, d_in, generator=generator)
    huge = torch.randint(d_in, (outliers,), generator=generator)
    x_ND[:, huge] += size * torch.randn(outliers, generator=generator)
    x_ND[7] = 0
    x_ND *= scale
    weights = random_weights(d_in, 700, seed, dtype)
    weights.W_FD[:20, :2] *= 50
    weights.W_FD[20:40] = 0
    weights.W_FD[40:60, 1:] = 0
    info = info_of(d_in, 700, k)
    if k is not None:
        weights = SaeWeights.of({name: tensor for name, tensor in weights.tensors().items() if name != "cutoff"})
    prefiltered, plain = (pairs(SaeEncoder.of(info, weights, route), x_ND, chunk_elements=30 * 128) for route in ROUTES)
    r_NF = (x_ND.double() @ weights.W_FD.double().T).numpy()
    norms_NF = torch.outer(x_ND.norm(dim=1), weights.W_FD.float().norm(dim=1)).numpy()
    for feature, token in prefiltered.keys() ^ plain.keys():  # only where the order of a sum decides
        edge = _edge(weights, r_NF, token, feature, k)
        assert abs(r_NF[token, feature] - edge) <= 1e-5 * norms_NF[token].max() + 1e-6 * abs(edge)
    for place in prefiltered.keys() & plain.keys():
        feature, token = place
        tolerance = 1e-5 * norms_NF[token, feature] + 1e-5 * abs(plain[place])
        assert abs(prefiltered[place] - plain[place]) <= tolerance


def _edge(weights: SaeWeights, r_NF: np.ndarray, token: int, feature: int, k: int | None) -> float:
    if k is None:
        assert weights.cutoff_F is not None
        return float(weights.cutoff_F[feature])
    pre_F = r_NF[token] + weights.bias_F.double().numpy()
    return float(np.sort(pre_F)[-k] - weights.bias_F[feature])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    d_in=st.sampled_from([16, 64, 300]),
    n_huge=st.integers(0, 30),
    size=st.sampled_from([1.0, 50.0, 3000.0]),
)
def test_the_prefilter_finds_features_at_their_very_cutoff(seed: int, d_in: int, n_huge: int, size: float) -> None:
    """Each feature's cutoff lies under its largest pre-activation by what float32 sums may err and no more."""
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(40, d_in, generator=generator)
    x_ND[:, :n_huge] += size * torch.randn(min(n_huge, d_in), generator=generator)
    weights = random_weights(d_in, 600, seed)
    r_F, chosen = (x_ND.double() @ weights.W_FD.double().T).max(dim=0)
    rounding_F = 1e-6 * x_ND[chosen].norm(dim=1) * weights.W_FD.norm(dim=1)
    weights = replace(weights, cutoff_F=r_F.float() - rounding_F, bias_F=torch.full((600,), 1e6))
    found = pairs(SaeEncoder.of(info_of(d_in, 600), weights, "prefiltered"), x_ND, chunk_elements=40 * 300)
    assert {(feature, int(token)) for feature, token in enumerate(chosen)} <= found.keys()


@pytest.mark.parametrize("rounded", ["inputs", "weights"])
def test_the_prefilter_finds_features_that_live_in_what_rounds_to_zero(rounded: str) -> None:
    """More dimensions are huge than are left out, and all others together make the feature: each is 0 in 8 bits."""
    coarse, fine = torch.zeros(256), torch.randn(256, generator=torch.Generator().manual_seed(0)).sign()
    coarse[:20], fine[:20] = 100, 0
    small = 0.45 * 100 / 127 * fine
    x_D, W_D = (coarse + small, fine) if rounded == "inputs" else (fine, coarse + small)
    r = float(x_D @ W_D)
    weights = SaeWeights(W_D[None].repeat(9, 1), torch.zeros(9), torch.full((9,), r * 0.999), None, torch.zeros(256))
    info = info_of(256, 9)
    for route in ROUTES:
        found = pairs(SaeEncoder.of(info, weights, route), torch.stack([x_D, -x_D]))
        assert found.keys() == {(feature, 0) for feature in range(9)}


def test_prefiltered_values_do_not_depend_on_chunks_and_neighbours_to_the_bit() -> None:
    weights, info = random_weights(64, 900, 3, torch.bfloat16), info_of(64, 900, apply_b_dec=True)
    encoder = SaeEncoder.of(info, weights, "prefiltered")
    x_ND = torch.randn(200, 64, generator=torch.Generator().manual_seed(4))
    x_ND[:, 9] += 300
    whole = pairs(encoder, x_ND)
    assert len(whole) > 1000
    assert pairs(encoder, x_ND, chunk_elements=200 * 17) == whole
    for start in (0, 3, 150):
        part = pairs(encoder, x_ND[start : start + 31])
        assert part == {(f, t - start): value for (f, t), value in whole.items() if start <= t < start + 31}


def test_a_dense_sae_is_encoded_the_plain_way() -> None:
    weights = random_weights(16, 300, 5)
    assert weights.cutoff_F is not None
    weights.cutoff_F[:] = -weights.bias_F
    info = info_of(16, 300)
    x_ND = torch.randn(40, 16, generator=torch.Generator().manual_seed(6))
    prefiltered, plain = (pairs(SaeEncoder.of(info, weights, route), x_ND) for route in ROUTES)
    assert len(plain) > 40 * 300 / 3
    assert prefiltered == plain


def test_inputs_beyond_what_float32_can_bound_are_encoded_the_plain_way() -> None:
    x_ND = torch.randn(5, 16, generator=torch.Generator().manual_seed(6)) * 1e30
    assert prefilter_input(x_ND) is None
    weights, info = random_weights(16, 50, 5), info_of(16, 50)
    prefiltered, plain = (pairs(SaeEncoder.of(info, weights, route), x_ND) for route in ROUTES)
    assert prefiltered == plain
    assert plain


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_tokens=st.integers(1, 6),
    k=st.integers(1, 9),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_the_largest_of_each_token_are_kept_and_ties_go_to_lower_features(
    seed: int, n_tokens: int, k: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    acts_FN = rng.integers(0, levels, size=(12, n_tokens)).astype(np.float32)
    feature, token = np.nonzero(acts_FN)
    active = Active(feature, token, acts_FN[feature, token])
    kept, kth_N = largest_per_token(active, n_tokens, k)
    for number in range(n_tokens):
        ranked = sorted((-value, f) for f, value in enumerate(acts_FN[:, number]) if value > 0)
        found = sorted(active.feature[kept & (active.token == number)].tolist())
        assert found == sorted(f for _, f in ranked[:k])
        assert kth_N[number] == (-ranked[k - 1][0] if len(ranked) >= k else 0)


@pytest.mark.parametrize("route", ["prefiltered", "plain", "device"])
def test_top_k_leaves_out_what_is_not_positive(route: Route) -> None:
    weights = SaeWeights(torch.eye(6), torch.zeros(6), None, None, torch.zeros(6))
    x_ND = torch.tensor([[3.0, -1.0, 2.0, 0.0, 5.0, 4.0], [-1.0, -2.0, 0.5, -3.0, -4.0, 0.0]])
    encoder = SaeEncoder.of(info_of(6, 6, k=3), weights, route)
    if route == "device":
        rows = pool_on_device(encoder, Inputs(x_ND), np.ones(2, dtype=np.int64), ("max",), chunk_elements=8)
        assert rows.indptr.tolist() == [0, 3, 4]
        assert rows.indices.tolist() == [0, 4, 5, 2]
    else:
        assert pairs(encoder, x_ND, chunk_elements=8) == {(0, 0): 3.0, (4, 0): 5.0, (5, 0): 4.0, (2, 1): 0.5}


def test_saes_that_read_alike_share_what_is_done_to_their_inputs() -> None:
    weights, inputs = random_weights(16, 40, 7), Inputs(torch.randn(9, 16))
    other = random_weights(16, 40, 8)
    same_bias = SaeWeights.of({**other.tensors(), "b_dec": weights.b_dec_D.clone()})
    one, alike, another = (
        SaeEncoder.of(info_of(16, 40, apply_b_dec=True), each, "prefiltered") for each in (weights, same_bias, other)
    )
    normalised = SaeEncoder.of(replace(one.info, normalize_activations="layer_norm"), weights, "prefiltered")
    assert inputs.read(one) is inputs.read(alike)
    assert inputs.rounded(one) is inputs.rounded(alike)
    assert len({id(inputs.read(encoder)) for encoder in (one, another, normalised)}) == 3


def test_a_device_multiplies_low_parts_of_huge_dimensions_too() -> None:
    weights = random_weights(64, 500, 9, torch.bfloat16)
    weights.b_dec_D[11] = 3000  # what the SAE says about the stream, whether it subtracts it or not
    x_ND = torch.randn(80, 64, generator=torch.Generator().manual_seed(1))
    x_ND[:, 11] += 3000
    assert weights.cutoff_F is not None
    shift_F = 3000 * weights.W_FD[:, 11].float()
    weights = replace(weights, cutoff_F=weights.cutoff_F + shift_F, bias_F=weights.bias_F - shift_F)
    expected = pairs(SaeEncoder.of(info_of(64, 500), weights, "plain"), x_ND).keys()

    def found(encoder: SaeEncoder) -> set[tuple[int, int]]:
        rows = pool_on_device(encoder, Inputs(x_ND), np.ones(80, dtype=np.int64), ("max",))
        return {*zip(rows.indices.tolist(), np.repeat(np.arange(80), np.diff(rows.indptr)).tolist(), strict=True)}

    encoder = SaeEncoder.of(info_of(64, 500), weights, "device")
    assert encoder.weights.W_FD.shape == (500, 64 + 16)
    assert len(found(encoder) ^ expected) < 0.03 * len(expected)
    encoder.weights.W_FD[:, 64:] = 0
    assert len(found(encoder) ^ expected) > 0.1 * len(expected)


def test_a_wide_sae_needs_little_memory_beyond_its_weights() -> None:
    """262,144 features of 2,000 tokens would be 2 GB; the weights are 16 MB and their int8 copy 8."""
    code = """
import resource, numpy as np, torch
torch.set_num_threads(1)
from ray_jobs.backbone.bundle import SaeInfo
from ray_jobs.engine.encoder import SaeEncoder
from ray_jobs.backbone.sae_families import SaeWeights
from ray_jobs.engine.pooling import pool_saes
F, D = 2**18, 32
W = torch.randn(F, D, generator=torch.Generator().manual_seed(0)) / D**0.5
weights = SaeWeights(W.bfloat16(), torch.zeros(F), torch.full((F,), 3.5), None, torch.zeros(D))
info = SaeInfo("s", 2, "resid_post", D, F, "jumprelu", False, {"path": "/sae"}, (), ())
encoder = SaeEncoder.of(info, weights)
x = torch.randn(2000, D, generator=torch.Generator().manual_seed(1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = pool_saes([encoder], x, np.array([2000]), ("max", "sum", "count"))["s"]
assert len(rows.indices) > 10_000, len(rows.indices)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64_000  # kB
