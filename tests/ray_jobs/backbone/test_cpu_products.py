"""Products on the CPU, with oneDNN and without it."""

import pytest
import torch
from torch.nn.functional import gelu, linear

from ray_jobs.backbone import cpu_products

SHAPES = [(1, 16, 8), (5, 640, 33), (130, 64, 257), (0, 16, 8)]


def operands(n: int, k: int, m: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + k + m)
    return (
        torch.randn(n, k, generator=generator).to(dtype),
        (torch.randn(m, k, generator=generator) / k**0.5).to(dtype),
        (torch.randn(m, k, generator=generator) / k**0.5).to(dtype),
    )


@pytest.fixture(params=[True, False], ids=["as this machine does it", "without oneDNN"])
def _products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(cpu_products, "fused", lambda: False)


@pytest.mark.usefixtures("_products")
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_products_equal_float64_to_rounding(shape: tuple[int, int, int]) -> None:
    x, gate, up = operands(*shape, torch.float32)
    torch.testing.assert_close(
        cpu_products.linear(x, up), linear(x.double(), up.double()).float(), rtol=1e-5, atol=1e-5
    )
    expected = gelu(linear(x.double(), gate.double()), approximate="tanh") * linear(x.double(), up.double())
    torch.testing.assert_close(cpu_products.gated_gelu(x, gate, up), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_products")
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_bfloat16_products_are_within_their_roundings(shape: tuple[int, int, int]) -> None:
    x, gate, up = operands(*shape, torch.bfloat16)
    exact = linear(x.double(), up.double())
    assert cpu_products.linear(x, up).dtype == torch.bfloat16
    torch.testing.assert_close(cpu_products.linear(x, up).double(), exact, rtol=2**-8, atol=1e-5)
    gated = gelu(linear(x.double(), gate.double()), approximate="tanh") * exact
    found = cpu_products.gated_gelu(x, gate, up)
    assert found.dtype == torch.bfloat16
    assert (found.double() - gated).norm() <= 2**-8 * gated.norm()  # two or three roundings to 8 bits


@pytest.mark.usefixtures("_products")
def test_what_rounding_took_completes_a_bfloat16_product_to_sixteen_bits() -> None:
    x, weight, _ = operands(64, 640, 16, torch.bfloat16)
    exact = linear(x.double(), weight.double())
    rounded = cpu_products.linear(x, weight)
    both = rounded.float() + cpu_products.rounded_off(x, weight, rounded)
    assert (both.double() - exact).abs().max() < 2**-14 * exact.abs().max()
    assert (rounded.double() - exact).abs().max() > 2**-10 * exact.abs().max()


def test_an_operation_that_is_not_there_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(cpu_products, "_gated", missing)
    assert not cpu_products.fused.__wrapped__()


def test_an_operation_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "_linear", lambda x, weight: linear(x, weight) * 1.001)
    assert not cpu_products.fused.__wrapped__()
