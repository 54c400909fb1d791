"""Active pairs equal sae-lens' encode, whatever the chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.engine.bundle import Bundle
from ray_jobs.engine.encoder import SaeEncoder
from tests.reference import encode


def dense(encoder: SaeEncoder, x: torch.Tensor, **chunk: int) -> np.ndarray:
    acts = np.zeros((len(x), encoder.info.d_sae), dtype=np.float32)
    previous = -1
    for active in encoder.active(x, **chunk):
        order = active.feature * len(x) + active.token
        assert np.all(np.diff(order) > 0)
        assert len(order) == 0 or order[0] > previous
        previous = order[-1] if len(order) else previous
        acts[active.token, active.feature] = active.value
    return acts


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
    found = dense(SaeEncoder(bundle, info, "cpu"), residual, chunk_elements=chunk_elements)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_weights_give_float32_pre_activations(
    make_bundle: Callable[..., Bundle], residual: torch.Tensor
) -> None:
    half = make_bundle("bfloat16", saes=("jump2",))
    encoder = SaeEncoder(half, half.saes[0], "cpu")
    (active,) = encoder.active(residual.bfloat16())
    assert active.value.dtype == np.float32
    rounded = torch.from_numpy(active.value).bfloat16().float().numpy()
    assert np.mean(rounded == active.value) < 0.1
