"""The truncated decoder holds what is needed, shares its memory, and refuses inexact attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors import safe_open

from featurestore.errors import JobSpecError
from ray_jobs.engine.backbone import Backbone, default_dtype
from ray_jobs.engine.bundle import WEIGHTS_NAME, Bundle


def test_nothing_beyond_the_deepest_hook_is_kept(bundle: Bundle) -> None:
    with safe_open(bundle.path / WEIGHTS_NAME, framework="pt") as file:
        names = set(file.keys())
    assert {name.split(".")[1] for name in names if name.startswith("layers.")} == {"0", "1", "2"}
    assert not [name for name in names if "lm_head" in name or name == "norm.weight"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_hooked_layer_is_returned_in_float32(make_bundle: Callable[..., Bundle], dtype: str) -> None:
    ids = torch.tensor([[2, 300, 301], [2, 302, 0]])
    outputs = Backbone(make_bundle(dtype), "cpu").forward(ids, torch.tensor([[1, 1, 1], [1, 1, 0]]))
    assert {layer: tuple(output.shape) for layer, output in outputs.items()} == {1: (2, 3, 32), 2: (2, 3, 32)}
    assert all(output.dtype == torch.float32 for output in outputs.values())


def test_a_bfloat16_residual_stream_is_not_rounded_between_layers(make_bundle: Callable[..., Bundle]) -> None:
    backbone = Backbone(make_bundle("bfloat16"), "cpu")
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    residual = backbone.forward(torch.tensor([[2, 300, 301]]), torch.tensor([[1, 1, 1]]))[2]
    assert (residual != residual.bfloat16().float()).float().mean() > 0.5


def test_sdpa_is_refused_for_a_model_with_a_soft_cap(bundle: Bundle) -> None:
    with pytest.raises(JobSpecError, match="'sdpa' drops the attention soft cap of tiny-gemma2; use 'eager'"):
        Backbone(bundle, "cpu", "sdpa")


def test_the_dtype_follows_the_hardware() -> None:
    flags = torch.cpu.get_capabilities()
    native = flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16")
    assert default_dtype("cpu") == ("bfloat16" if native else "float32")
    assert default_dtype("cuda") == "bfloat16"
