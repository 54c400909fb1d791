"""Sites against TransformerLens, a second reference: its own code for the families that it has, in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_jobs.backbone.sites import Hook
from tests.ray_jobs.backbone.decoders_for_tests import save_decoder
from tests.ray_jobs.backbone.test_decoders import LAYER, activations, bundle_of, sites_of, whole_model

FAMILIES = (
    *("gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "bloom"),
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo3", "gemma", "gemma2", "gemma3_text"),
)
CHANGES: dict[str, dict[str, Any]] = {  # TransformerLens takes these MLPs to be four times as wide as the stream
    "gpt_neo": {"intermediate_size": 128},
    "gptj": {"n_inner": 128},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "gemma3_text": {"sliding_window": 6, "query_pre_attn_scalar": 8},
}
NAMES = {
    "embed": "hook_embed",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "hook_z": "blocks.{}.attn.hook_z",
    "attn_out": "blocks.{}.hook_attn_out",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "ln2_normalized": "blocks.{}.ln2.hook_normalized",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_post": "blocks.{}.hook_resid_post",
}


def lens_of(path: Path, family: str, model: Any) -> Any:
    """TransformerLens' own model with a checkpoint's weights, nothing folded or centred."""
    from transformer_lens import HookedTransformer, loading_from_pretrained
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

    config = gemma(model.config, family) if family.startswith("gemma") else None
    config = config or loading_from_pretrained.convert_hf_model_config(str(path))
    config |= {"device": "cpu", "model_name": family}
    settled = HookedTransformerConfig.from_dict(config)
    lens = HookedTransformer(settled, tokenizer=None)
    lens.load_state_dict(
        loading_from_pretrained.get_pretrained_state_dict(str(path), settled, hf_model=model), strict=False
    )
    return lens.eval()


def gemma(config: Any, family: str) -> dict[str, Any]:
    """The config that TransformerLens has for Gemma by the names of Google's models, with the sizes of a tiny one."""
    found = {
        "d_model": config.hidden_size,
        "d_head": config.head_dim,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
        "rotary_dim": config.head_dim,
        "eps": config.rms_norm_eps,
        "act_fn": "gelu_pytorch_tanh" if family != "gemma" else "gelu_new",
        "normalization_type": "RMS",
        "positional_embedding_type": "rotary",
        "rotary_base": 10000,
        "use_attn_scale": True,
        "gated_mlp": True,
        "final_rms": True,
        "original_architecture": {
            "gemma": "GemmaForCausalLM",
            "gemma2": "Gemma2ForCausalLM",
            "gemma3_text": "Gemma3ForCausalLM",
        }[family],
    }
    if family == "gemma":
        return found
    kinds = ["local" if kind == "sliding_attention" else "global" for kind in config.layer_types]
    found |= {"use_normalization_before_and_after": True, "use_local_attn": True, "attn_types": kinds}
    found |= {"window_size": config.sliding_window}
    if family == "gemma2":
        return {**found, "attn_scores_soft_cap": config.attn_logit_softcapping, "output_logits_soft_cap": 30.0}
    return {**found, "use_qk_norm": True, "rotary_base": 1000000, "rotary_base_local": 10000}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_is_what_transformer_lens_calls_by_its_name(tmp_path: Path, family: str) -> None:
    path = save_decoder(tmp_path / f"tiny-{family.replace('llama', 'lama')}", family, **CHANGES.get(family, {}))
    if family == "gpt2":  # a field of GPT-2's own file, which transformers no longer writes
        fields = json.loads((path / "config.json").read_text(encoding="utf-8"))
        (path / "config.json").write_text(json.dumps({**fields, "n_ctx": 256}), encoding="utf-8")
    model = whole_model(path, torch.float32)
    lens = lens_of(path, family, model)
    ids = torch.randint(264, 330, (12,), generator=torch.Generator().manual_seed(0)).tolist()
    bundle = bundle_of(tmp_path, path, sites_of(model.config), model.config, "float32")
    fed = [*bundle.tokenizer.bos, *ids]
    with torch.no_grad():
        _, cache = lens.run_with_cache(torch.tensor([fed]), prepend_bos=False)
    found = activations(bundle, [ids])
    compared = []
    for site, x_ND in found.items():
        name = NAMES.get(site, "").format(Hook(LAYER, site).layer)
        if name not in cache:
            continue
        expected = cache[name][0].flatten(1)
        torch.testing.assert_close(x_ND, expected, rtol=1e-4, atol=1e-4, msg=lambda said, site=site: f"{site}: {said}")
        compared.append(site)
    assert {"embed", "resid_pre", "hook_z", "attn_out", "mlp_out", "resid_post"} <= set(compared)
