"""Every family that sae-lens can write is encoded as sae-lens encodes it, on every route; the others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import BundleError
from ray_jobs.backbone.sae_families import SaeWeights, exact_cutoff, fold
from ray_jobs.engine.device_pooling import pool_on_device
from ray_jobs.engine.encoder import Inputs, Route, SaeEncoder
from ray_jobs.engine.pooling import pool_windows
from ray_jobs.prepare import sae_loader as saes
from ray_jobs.prepare.sae_loader import LoadedSae, load_sae
from ray_jobs.spec import SaeSpec
from tests.reference import encode
from tests.tiny import tiny_sae

torch.set_num_threads(1)

MODEL = SimpleNamespace(model_type="llama", num_hidden_layers=4, hidden_size=32)
N_TOKENS = 41
FAMILIES: dict[str, dict[str, Any]] = {
    "relu": {"architecture": "standard"},
    "jumprelu": {"architecture": "jumprelu"},
    "gated": {"architecture": "gated"},
    "topk": {"architecture": "topk"},
    "topk-rescaled": {"architecture": "topk", "rescale_acts_by_decoder_norm": True},
    "topk-of-one": {"architecture": "topk", "k": 1},
    "topk-of-all": {"architecture": "topk", "k": 96},
    "batchtopk": {"architecture": "batchtopk"},
    "matryoshka": {"architecture": "matryoshka_batchtopk", "rescale_acts_by_decoder_norm": True},
    "bfloat16": {"architecture": "jumprelu", "dtype": "bfloat16"},
}


def load(path: Path) -> LoadedSae:
    return load_sae(SaeSpec(path=str(path), name="s"), "tiny-gemma2", MODEL)


def residual(scale: float) -> torch.Tensor:
    return scale * torch.randn(N_TOKENS, 32, generator=torch.Generator().manual_seed(3))


def acts_by_token(sae: LoadedSae, x_ND: torch.Tensor, route: Route) -> np.ndarray:
    """Dense activations [tokens, features], each token pooled as a window of its own."""
    encoder = SaeEncoder.of(sae.info, sae.weights, route)
    lengths = np.ones(len(x_ND), dtype=np.int64)
    if route == "device":
        rows = pool_on_device(encoder, Inputs(x_ND), lengths, ("max",), chunk_elements=len(x_ND) * 25)
    else:
        rows = pool_windows(encoder.active(Inputs(x_ND), len(x_ND) * 25), lengths, ("max",))
    acts = np.zeros((len(x_ND), sae.info.d_sae), dtype=np.float32)
    acts[np.repeat(np.arange(len(x_ND)), np.diff(rows.indptr)), rows.indices] = rows.values["max"]
    return acts


@pytest.mark.parametrize("route", ["prefiltered", "plain", "device"])
@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"])
@pytest.mark.parametrize("apply_b_dec", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_equal_sae_lens(
    tmp_path: Path, family: str, normalization: str, apply_b_dec: bool, route: Route
) -> None:
    path = tiny_sae(tmp_path, normalize_activations=normalization, apply_b_dec_to_input=apply_b_dec, **FAMILIES[family])
    sae, x_ND = load(path), residual(3.0)
    expected, found = encode(path, x_ND.numpy()), acts_by_token(sae, x_ND, route)
    assert (expected > 0).any()
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["jumprelu", "gated"])
def test_folded_decoder_norms_scale_thresholds_too(tmp_path: Path, architecture: str) -> None:
    from sae_lens import SAE

    path = tiny_sae(tmp_path / "as-trained", architecture=architecture)
    SAE.load_from_disk(path, fold_W_dec_norm=True).save_model(tmp_path / "folded")
    x_ND = residual(3.0)
    plain, folded = (load(folder) for folder in (path, tmp_path / "folded"))
    assert not torch.allclose(plain.weights.W_FD, folded.weights.W_FD)
    found = acts_by_token(folded, x_ND, "plain")
    np.testing.assert_allclose(found, encode(tmp_path / "folded", x_ND.numpy()), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found > 0, acts_by_token(plain, x_ND, "plain") > 0)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), bias_scale=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e6, 1e38]))
def test_a_cutoff_stands_for_the_whole_rule_to_the_last_bit(seed: int, bias_scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    bias, gate = bias_scale * torch.randn(2, 50, generator=generator)
    threshold = torch.rand(50, generator=generator) * 10 ** torch.randint(-8, 3, (50,), generator=generator)
    scale = torch.randn(50, generator=generator).exp()

    def jumprelu(r: torch.Tensor) -> torch.Tensor:
        return r + bias > threshold

    def gated(r: torch.Tensor) -> torch.Tensor:
        return (r + gate > 0) & (r * scale + bias > 0)

    for rule in (jumprelu, gated):
        cutoff = exact_cutoff(rule, 50)
        near = cutoff.clone()
        for _ in range(3):
            near = near.nextafter(torch.tensor(-torch.inf))
        for _ in range(7):
            assert torch.equal(rule(near)[near.isfinite()], (near > cutoff)[near.isfinite()])
            near = near.nextafter(torch.tensor(torch.inf))
        far = torch.randn(50, generator=generator) * 100
        assert torch.equal(rule(far), far > cutoff)


def test_features_that_never_or_always_fire_have_infinite_cutoffs() -> None:
    weights = fold(
        "jumprelu",
        {
            "W_enc": torch.ones(4, 2),
            "b_dec": torch.zeros(4),
            "b_enc": torch.tensor([0.0, torch.finfo(torch.float32).max]),
            "threshold": torch.tensor([torch.inf, -1.0]),
        },
    )
    assert weights.cutoff_F is not None
    assert weights.cutoff_F[0] == torch.inf
    assert weights.cutoff_F[1] < -3e38


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"architecture": "abstopk"}, "architecture 'abstopk' is not supported: its features can be negative"),
        ({"architecture": "matching_pursuit"}, "architecture 'matching_pursuit' is not supported: it encodes by"),
        ({"architecture": "temporal", "n_heads": 1, "bottleneck_factor": 8}, "'temporal' is not supported"),
        ({"normalize_activations": "covariance_whitening"}, "normalize_activations=covariance_whitening"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, given: dict[str, Any], named: str) -> None:
    path = tiny_sae(tmp_path, **given)
    with pytest.raises(BundleError, match=r"^SAE 's': ") as caught:
        load(path)
    assert named in str(caught.value)
    assert "choose" in str(caught.value)


def test_an_architecture_of_the_future_is_refused_by_name() -> None:
    with pytest.raises(BundleError, match="architecture 'quantum' is not supported: it is not known here"):
        SaeEncoder.of(SimpleNamespace(name="s", architecture="quantum", normalize_activations="none"), None)  # type: ignore[arg-type]


def test_an_input_scale_that_is_nowhere_said_is_recorded(tmp_path: Path) -> None:
    assert load(tiny_sae(tmp_path / "a")).info.unverified == ()
    assert load(tiny_sae(tmp_path / "b", normalize_activations="expected_average_only_in")).info.unverified == (
        "input scale",
    )


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tiny_sae(tmp_path) / "sae_weights.safetensors"
    tensors = load_file(file)
    tensors["b_enc"][3] = float("nan")
    save_file(tensors, file)
    with pytest.raises(BundleError, match="its b_enc holds values that are not finite"):
        load(tmp_path)


def doubled_bias(weights: SaeWeights) -> SaeWeights:
    return SaeWeights.of({**weights.tensors(), "bias": 2 * weights.bias_F})


def moved_cutoff(weights: SaeWeights) -> SaeWeights:
    tensors = weights.tensors()
    return SaeWeights.of({**tensors, "cutoff": tensors["cutoff"] + 0.01})


def swapped_rows(weights: SaeWeights) -> SaeWeights:
    return SaeWeights.of({**weights.tensors(), "W_enc": weights.W_FD.roll(1, dims=0)})


@pytest.mark.parametrize("family", ["relu", "jumprelu", "gated", "topk"])
@pytest.mark.parametrize("fault", [doubled_bias, moved_cutoff, swapped_rows])
def test_an_encoder_that_is_not_sae_lens_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, fault: Any
) -> None:
    if family == "topk" and fault is moved_cutoff:
        pytest.skip("top-k has no cutoff")
    path = tiny_sae(tmp_path, d_sae=400, **FAMILIES[family])
    load(path)
    monkeypatch.setattr(saes, "fold", lambda *args: fault(fold(*args)))
    with pytest.raises(BundleError, match=r"^SAE 's' is not encoded here as sae-lens encodes it"):
        load(path)


def test_the_wrong_k_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_sae(tmp_path, architecture="topk")
    info = saes.SaeInfo
    monkeypatch.setattr(saes, "SaeInfo", lambda **fields: info(**{**fields, "k": 9}))
    with pytest.raises(BundleError, match="is not encoded here as sae-lens encodes it"):
        load(path)


def test_the_pre_6_format_of_sae_lens_is_read(tmp_path: Path) -> None:
    path = tiny_sae(tmp_path, architecture="topk")
    config = json.loads((path / "cfg.json").read_text())
    old = {"hook_name": config["metadata"]["hook_name"], "model_name": "tiny-gemma2", "prepend_bos": True}
    for key in ("d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input"):
        old[key] = config[key]
    old |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "normalize_activations": None}
    (path / "cfg.json").write_text(json.dumps(old))
    sae = load(path)
    assert (sae.info.architecture, sae.info.k) == ("topk", 5)
    assert ((acts_by_token(sae, residual(3.0), "plain") > 0).sum(axis=1) == 5).all()
