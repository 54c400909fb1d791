"""Every site of every family, from a checkpoint on disk through `prepare`: against transformers' states and by hand."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore.errors import BundleError
from ray_jobs.backbone.backbone import open_backbone
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.backbone.decoder_layouts import check_hook, family_of, width_of
from ray_jobs.backbone.decoders import layers_of
from ray_jobs.backbone.sites import SITES, Hook
from ray_jobs.backbone.tokens import Window
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.backbone.decoders_for_tests import FAMILIES, save_decoder
from tests.tiny import tiny_gemma2, tiny_sae

COMMON = ("gemma3_text", "llama", "gpt2", "gpt_neox", "olmo2", "qwen3_5_text", "qwen3_moe")
OTHERS = tuple(family for family in FAMILIES if family not in COMMON)
LAYER = 1
TENSOR_LENS = {
    "embed": "hook_embed",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "attn_in": "",
    "hook_z": "blocks.{}.attn.hook_z",
    "attn_out": "blocks.{}.hook_attn_out",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "ln2_normalized": "blocks.{}.ln2.hook_normalized",
    "mlp_in": "blocks.{}.mlp.hook_in",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_post": "blocks.{}.hook_resid_post",
}
each_family = pytest.mark.parametrize(
    "family", [*COMMON, "gemma2", *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS)]
)


def checkpoint(tmp_path: Path, family: str) -> Path:
    return tiny_gemma2(tmp_path) if family == "gemma2" else save_decoder(tmp_path / f"tiny-{family}", family)


def sites_of(config: Any) -> list[Hook]:
    """The hooks of a layer that this family has."""
    found = []
    for site in SITES:
        hook = Hook(0 if site == "embed" else LAYER, site)
        try:
            check_hook(config, hook, "a test")
        except BundleError:
            continue
        found.append(hook)
    return found


def bundle_of(tmp_path: Path, model: Path, hooks: list[Hook], config: Any, dtype: str) -> Bundle:
    saes = []
    for hook in hooks:
        path = tiny_sae(
            tmp_path / f"sae-{dtype}-{hook.name}",
            d_in=width_of(config, hook)[0],
            d_sae=8,
            model_name=model.name,
            hook_name=TENSOR_LENS[hook.site].format(hook.layer) or f"blocks.{hook.layer}.hook_resid_post",
        )
        said = {} if TENSOR_LENS[hook.site] else {"site": hook.site, "allow_mismatch": True}
        saes.append({"path": str(path), "name": f"s_{hook.site}", **said})
    job = {
        "corpus": {"path": "none.jsonl"},
        "model": {"name": str(model), "dtype": dtype, "attn": "eager"},
        "saes": saes,
        "pool": ["max"],
        "store": str(tmp_path / "store"),
    }
    return open_bundle(prepare(job_from_mapping(job, tmp_path), tmp_path / "bundles"))


def activations(bundle: Bundle, ids: list[list[int]]) -> dict[str, torch.Tensor]:
    backbone = open_backbone(bundle, "cpu", "eager", np.array(bundle.tokenizer.bos, dtype=np.int32))
    head = list(bundle.tokenizer.bos)
    windows = [
        Window(number, np.array(head + row, dtype=np.int32), 0, len(head) + len(row)) for number, row in enumerate(ids)
    ]
    return {hook.site: x_ND for hook, x_ND in backbone.forward(windows, 4096).items()}


def whole_model(path: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()


def states(model: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    """What enters each layer, and what leaves the last but one, document behind document."""
    found = []
    with torch.no_grad():
        for row in rows:
            out = model.base_model(input_ids=torch.tensor([row]), output_hidden_states=True, use_cache=False)
            found.append([state[0].float() for state in out.hidden_states])
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


@each_family
def test_every_site_is_where_it_should_be(family: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, family)
    model = whole_model(path, torch.float32)
    config = model.config.get_text_config()
    hooks = sites_of(config)
    bundle = bundle_of(tmp_path, path, hooks, config, "float32")
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(264, 330, (n,), generator=generator).tolist() for n in (5, 17, 9)]
    found = activations(bundle, ids)
    fed = [list(bundle.tokenizer.bos) + row for row in ids]
    expected = states(model, fed)

    def close(first: torch.Tensor, second: torch.Tensor) -> None:
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)

    close(found["resid_pre"], expected[LAYER])
    close(found["resid_post"], expected[LAYER + 1])
    kind = family_of(config)
    assert kind is not None
    if not kind.positions:
        close(found["embed"], expected[0])
    else:
        close(found["embed"], model.get_input_embeddings()(torch.tensor(list(chain.from_iterable(fed)))).detach())
    if "resid_mid" in found:
        close(found["resid_pre"] + found["attn_out"], found["resid_mid"])
        close(found["resid_mid"] + found["mlp_out"], found["resid_post"])
    else:
        close(found["resid_pre"] + found["attn_out"] + found["mlp_out"], found["resid_post"])


@each_family
def test_what_lies_inside_a_layer_follows_from_its_modules(family: str, tmp_path: Path) -> None:
    """The output matrix makes attn_out of hook_z, the MLP mlp_out of mlp_in, a norm's weight mlp_in of its input."""
    path = checkpoint(tmp_path, family)
    model = whole_model(path, torch.float32)
    config = model.config.get_text_config()
    bundle = bundle_of(tmp_path, path, sites_of(config), config, "float32")
    found = activations(bundle, [list(range(270, 282))])
    layer = layers_of(getattr(model, "model", None) or model.base_model)[LAYER]
    modules = dict(layer.named_modules())

    def module(*names: str) -> Any:
        return next(modules[name] for name in names if name in modules)

    after = {
        "attn_out": modules["post_attention_layernorm"]
        if family in ("gemma2", "gemma3_text", "gemma4_text", "gemma4_unified_text", "olmo2", "olmo3")
        else torch.nn.Identity(),
        "mlp_out": modules.get("post_feedforward_layernorm", torch.nn.Identity()),
    }
    times = getattr(config, "residual_multiplier", 1.0)
    outputs = [
        f"{a}.{o}"
        for a in ("self_attn", "linear_attn", "attn.attention", "attn", "attention", "self_attention")
        for o in ("o_proj", "out_proj", "dense", "c_proj")
    ]
    with torch.no_grad():
        by_hand = after["attn_out"](module(*outputs)(found["hook_z"])) * times
        torch.testing.assert_close(by_hand, found["attn_out"], rtol=1e-4, atol=1e-4)
        if family == "opt":
            made = modules["fc2"](torch.relu(modules["fc1"](found["mlp_in"])))
        elif family == "bloom":
            made = modules["mlp"](found["mlp_in"], torch.zeros_like(found["mlp_in"]))
        else:
            made = module("mlp", "feed_forward", "block_sparse_moe")(found["mlp_in"][None])
            made = (made[0] if isinstance(made, tuple) else made).reshape(found["mlp_in"].shape)
        torch.testing.assert_close(after["mlp_out"](made) * times, found["mlp_out"], rtol=1e-4, atol=1e-4)
        if "ln2_normalized" in found:
            norm = modules[family_of(config).mlp_norm]  # type: ignore[union-attr, index]
            plus_one = family.startswith(("gemma", "qwen3_5")) and not family.startswith("gemma4")
            weight = getattr(norm, "weight", 1.0) + (1 if plus_one else 0)
            bias = getattr(norm, "bias", None)
            scaled = found["ln2_normalized"] * weight + (0 if bias is None else bias)
            torch.testing.assert_close(scaled, found["mlp_in"], rtol=1e-4, atol=1e-4)


@each_family
def test_bfloat16_is_no_worse_than_transformers_own(family: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, family)
    exact = whole_model(path, torch.float32)
    config = exact.config.get_text_config()
    bundle = bundle_of(tmp_path, path, sites_of(config), config, "bfloat16")
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(264, 330, (n,), generator=generator).tolist() for n in (23, 40, 31)]
    found = activations(bundle, ids)
    fed = [list(bundle.tokenizer.bos) + row for row in ids]
    expected = states(exact, fed)[LAYER + 1]
    theirs = states(whole_model(path, torch.bfloat16), fed)[LAYER + 1]

    def error(x_ND: torch.Tensor) -> float:  # of the median token: a router may send one another way
        return float(((x_ND - expected).norm(dim=1) / expected.norm(dim=1)).median())

    assert all(x_ND.isfinite().all() for x_ND in found.values())
    assert error(found["resid_post"]) <= 1.1 * error(theirs) + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0, 2])
def test_layers_of_gemma_4_that_read_embeddings_of_their_own_and_keys_of_others(tmp_path: Path, shared: int) -> None:
    """Per-layer embeddings are added behind the MLP; the last layers may take keys and values of earlier ones."""
    kinds = ["sliding_attention", "full_attention"] * 2
    changes = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 340, "num_kv_shared_layers": shared}
    path = save_decoder(tmp_path / "tiny-gemma4", "gemma4_text", num_hidden_layers=4, layer_types=kinds, **changes)
    model = whole_model(path, torch.float32)
    for layer in (1, 2):
        hooks = [Hook(layer, "resid_post"), Hook(layer, "mlp_out")]
        bundle = bundle_of(tmp_path / str(layer), path, hooks, model.config, "float32")
        found = activations(bundle, [[270, 271, 272]])
        expected = states(model, [[*bundle.tokenizer.bos, 270, 271, 272]])
        torch.testing.assert_close(found["resid_post"], expected[layer + 1], rtol=1e-4, atol=1e-4)


_EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}
_WIDE = {"global_head_dim": 16, "attention_k_eq_v": True, "num_global_key_value_heads": 1}
_OWN = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 340}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(_EXPERTS, marks=pytest.mark.slow, id="experts beside the MLP"),
        pytest.param(_WIDE, marks=pytest.mark.slow, id="wider heads and one key in some layers"),
        pytest.param({**_EXPERTS, **_WIDE, **_OWN}, id="all of it"),
    ],
)
@pytest.mark.parametrize("layer", [1, 2])
def test_what_gemma_4_has_otherwise_in_some_layers(tmp_path: Path, layer: int, changes: dict[str, Any]) -> None:
    """Its config says by their numbers what full layers have otherwise; a decoder cut short keeps those that are left.

    The last layer of a whole one is full, and that of a decoder cut short may not be.
    """
    kinds = ["sliding_attention", "full_attention"] * 2
    path = save_decoder(tmp_path / "tiny-gemma4", "gemma4_text", num_hidden_layers=4, layer_types=kinds, **changes)
    model = whole_model(path, torch.float32)
    hooks = [Hook(layer, "resid_post"), Hook(layer, "hook_z")]
    bundle = bundle_of(tmp_path / str(layer), path, hooks, model.config, "float32")
    read = []
    model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(lambda _module, args: read.append(args[0]))
    expected = states(model, [[*bundle.tokenizer.bos, 270, 271, 272]])
    found = activations(bundle, [[270, 271, 272]])
    torch.testing.assert_close(found["resid_post"], expected[layer + 1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["hook_z"], read[0][0], rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_not_finished_is_not_computed(tmp_path: Path) -> None:
    """The deepest hook may lie before a layer's MLP; what is read is the same."""
    path = tiny_gemma2(tmp_path)
    config = whole_model(path, torch.float32).config
    whole = activations(bundle_of(tmp_path, path, sites_of(config), config, "float32"), [[270, 271, 272]])
    for site in ("resid_pre", "attn_in", "hook_z"):
        alone = activations(bundle_of(tmp_path, path, [Hook(LAYER, site)], config, "float32"), [[270, 271, 272]])
        assert torch.equal(alone[site], whole[site])


def test_a_family_that_is_not_known_is_read_before_and_behind_its_layers(tmp_path: Path) -> None:
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING["exaone4"](num_hidden_layers=2)
    check_hook(config, Hook(1, "resid_post"), "SAE 'a'")
    with pytest.raises(
        BundleError, match="SAE 'a' reads mlp_out of layer 1: in exaone4 models only the residual stream"
    ):
        check_hook(config, Hook(1, "mlp_out"), "SAE 'a'")
    parallel = CONFIG_MAPPING["phi"](num_hidden_layers=2)
    with pytest.raises(BundleError, match="computes attention and MLP from one input"):
        check_hook(parallel, Hook(1, "resid_mid"), "SAE 'a'")
