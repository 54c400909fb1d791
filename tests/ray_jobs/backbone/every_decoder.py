"""A checkpoint of every causal decoder that transformers' auto-mapping names, as small as its config can be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.tiny import write_tokenizer

MOST_PARAMETERS = 3_000_000  # of a checkpoint that is saved with weights
N_LAYERS, D_MODEL = 3, 32
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "emb_dim"), D_MODEL),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), N_LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv"), 2),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "decoder_ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "swa_head_dim", "attention_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("linear_num_key_heads", "n_shared_experts", "first_k_dense_replace", "n_group", "topk_group"), 1),
    "linear_num_value_heads": 4,
    "hidden_size_per_layer_input": 8,
    "index_topk": 4,
    "max_position_embeddings": 256,
    "rotary_dim": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def decoders() -> list[str]:
    """Names of all of them, as configs have them."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def save_smallest(path: Path, model_type: str) -> int | None:
    """Save a checkpoint, without weights where its config cannot be made small or nothing can be built of it.

    Returns:
        Its `hidden_size`; None where a config contradicts itself even as it is.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    path.mkdir(parents=True)
    vocabulary = write_tokenizer(path)
    try:
        config = _small(CONFIG_MAPPING[model_type], vocabulary)
        text = config.get_text_config()
    except Exception:  # noqa: BLE001 (configs raise anything)
        return None
    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
        if sum(parameter.numel() for parameter in empty.parameters()) > MOST_PARAMETERS:
            raise ValueError("too large")
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().save_pretrained(path)
    except Exception:  # noqa: BLE001 (of two hundred classes)
        fields = json.loads(config.to_json_string(use_diff=False))
        (path / "config.json").write_text(json.dumps({**fields, "model_type": model_type}), encoding="utf-8")
    return int(getattr(text, "hidden_size", None) or D_MODEL)


def _small(kind: Any, vocabulary: int) -> Any:
    """A config of a class with whatever of its fields can be small; if that contradicts itself, with fewer."""
    known = kind().to_dict()
    optional = {"num_experts_per_tok", "num_key_value_heads", "head_dim"} & known.keys()
    changes = {name: value for name, value in SMALL.items() if isinstance(known.get(name), int) or name in optional}
    changes |= {name: vocabulary for name in ("vocab_size", "vocab_size_per_layer_input") if name in known}
    for name in ("text_config", "llm_config", "decoder"):
        if isinstance(known.get(name), dict):
            inner = {key: value for key, value in SMALL.items() if isinstance(known[name].get(key), int)}
            changes[name] = {**known[name], **inner, "vocab_size": vocabulary, **_lists(known[name])}
    changes |= _lists(known)
    if "kv_lora_rank" in known:  # multi-head latent attention has as many keys as queries
        changes["num_key_value_heads"] = SMALL["num_attention_heads"]
    try:
        return kind(**changes)
    except Exception:  # noqa: BLE001 (configs raise anything)
        return kind()


def _lists(known: dict[str, Any]) -> dict[str, Any]:
    """What a config says layer by layer, cut."""
    n_layers = next((known[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if known.get(name)), None)
    return {
        name: value[:N_LAYERS]
        for name, value in known.items()
        if isinstance(value, list) and len(value) == n_layers and n_layers > N_LAYERS
    }
