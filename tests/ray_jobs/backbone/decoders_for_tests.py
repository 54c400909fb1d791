"""Tiny random checkpoints of every family of decoders, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import write_tokenizer

D_MODEL, N_LAYERS, N_HEADS = 32, 3, 4

_COMMON = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}
_MOE = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
_MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": N_HEADS,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "head_dim": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama4_text": {
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48,
        "interleave_moe_layer_step": 2,
        "head_dim": 8,
        "attention_chunk_size": 128,
    },
    "mistral": {"head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "gemma4_text": {
        "head_dim": 8,
        "global_head_dim": 8,
        "hidden_size_per_layer_input": 0,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "gemma4_unified_text": {
        "head_dim": 8,
        "global_head_dim": 16,
        "use_bidirectional_attention": "vision",
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "qwen2_moe": {**_MOE, "num_experts": 4, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**_MOE, "num_experts": 4, "head_dim": 8},
    "qwen3_5_text": _LINEAR,
    "qwen3_5_moe_text": {**_LINEAR, **_MOE, "num_experts": 4, "shared_expert_intermediate_size": 24},
    "deepseek_v2": {**_MLA, **_MOE},
    "deepseek_v3": {**_MLA, **_MOE},
    "phi": {"num_key_value_heads": N_HEADS},
    "phi3": {"pad_token_id": 0},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    "cohere": {},
    "cohere2": {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    "granite": {"residual_multiplier": 0.5},
    "granitemoe": {"residual_multiplier": 0.5, "num_local_experts": 4, "num_experts_per_tok": 2},
    "smollm3": {"pad_token_id": 0},
    "stablelm": {},
    "starcoder2": {},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 64},
    "gptj": {"rotary_dim": 4, "n_inner": 48},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": D_MODEL},
    "bloom": {},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "alibi": False},
}


def save_decoder(path: Path, family: str, seed: int = 0, **changes: Any) -> Path:
    """A random causal LM of a family with a tokenizer, in float32; `changes` go into its config."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    path.mkdir(parents=True)
    vocabulary = write_tokenizer(path)
    fields = {
        **_COMMON,
        "vocab_size": vocabulary,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        **FAMILIES.get(family, {}),
        **changes,
    }
    if "layer_types" in fields:
        fields["layer_types"] = fields["layer_types"][: fields["num_hidden_layers"]]
    config = CONFIG_MAPPING[family](**fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # as uneven as trained ones, and no weight at its default
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (1.0 if "norm" in name or "ln_" in name else 0.0))
    model.save_pretrained(path)
    return path
