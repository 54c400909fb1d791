"""Know how the layers of each family of decoders are built, and so at which sites they can be read.

A family that is not in `_FAMILIES` can be read before and behind its layers, since that means the same in all of them,
and nowhere else. All is answered from a model's config: neither weights nor torch are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from featurestore.errors import BundleError
from ray_jobs.backbone.sites import Hook

Order = Literal["before", "around", "after", "parallel"]


@dataclass(frozen=True)
class Family:
    """How the layers of a family are built.

    Attributes:
        order: Where norms stand: `before` attention and MLP (Llama), `around` them (Gemma 2), `after` them (OLMo 2); or
            attention and MLP read one input, in `parallel` (Pythia).
        mlp_norm: The norm before the MLP, by its name in a layer; None where there is none.
        multiplier: The config's name for what both outputs are multiplied with before they enter the stream.
        adds_the_stream: Attention and MLP add the stream to their outputs themselves.
        positions: Embeddings of positions are added to those of tokens, so that `embed` is not what layer 0 reads.
        mlp: First and last module of an MLP that has no module of its own.
    """

    order: Order = "before"
    mlp_norm: str | None = "post_attention_layernorm"
    multiplier: str | None = None
    adds_the_stream: bool = False
    positions: bool = False
    mlp: tuple[str, str] | None = None


_LLAMA = Family()
_GEMMA = Family("around", "pre_feedforward_layernorm")
_OLMO = Family("after", None)
_PARALLEL = Family("parallel", None)
_GPT2 = Family(mlp_norm="ln_2", positions=True)

_FAMILIES = {
    **dict.fromkeys(("gemma2", "gemma3_text", "gemma4_text", "gemma4_unified_text"), _GEMMA),
    **dict.fromkeys(("olmo2", "olmo3"), _OLMO),
    **dict.fromkeys(("cohere", "cohere2", "gptj", "phi"), _PARALLEL),
    **dict.fromkeys(("gpt2", "gpt_neo"), _GPT2),
    **dict.fromkeys(
        (
            *("gemma", "llama", "llama4_text", "mistral", "mixtral", "smollm3", "starcoder2", "olmo", "phi3"),
            *("qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_5_text", "qwen3_5_moe_text"),
            *("deepseek_v2", "deepseek_v3", "gpt_oss"),
        ),
        _LLAMA,
    ),
    "granite": Family(multiplier="residual_multiplier"),
    "granitemoe": Family(multiplier="residual_multiplier"),
    "opt": Family(mlp_norm="final_layer_norm", positions=True, mlp=("fc1", "fc2")),
    "bloom": Family(adds_the_stream=True),
    "gpt_neox": _LLAMA,
    "stablelm": _LLAMA,
    "falcon": Family(mlp_norm="post_attention_layernorm"),
}
"""transformers' name of a decoder -> how it is built; where the config decides (`family_of`), the sequential form."""


_SEVERAL_STREAMS = {
    "gemma3n_text": "keeps four streams between its layers (AltUp)",
    "deepseek_v4": "keeps several streams between its layers (hyper-connections)",
}
"""Decoders of which it would have to be settled first what an SAE reads; no SAE of the registry is of one."""


def family_of(config: Any) -> Family | None:
    """How the decoder of a config is built; None where this is not known."""
    if config.model_type == "opt" and not getattr(config, "do_layer_norm_before", True):
        return None  # OPT-350m alone: norms behind the sum
    family = _FAMILIES.get(config.model_type)
    parallel = (
        (config.model_type == "gpt_neox" and config.use_parallel_residual)
        or (config.model_type == "stablelm" and config.use_parallel_residual)
        or (config.model_type == "falcon" and (config.new_decoder_architecture or config.parallel_attn))
    )
    return Family("parallel", None) if parallel else family


def check_hook(config: Any, hook: Hook, where: str) -> None:
    """Refuse a hook at a site that this family does not have, or of which it is not known where it is.

    Raises:
        BundleError: In one sentence.
    """
    if (said := _SEVERAL_STREAMS.get(config.model_type)) is not None:
        raise BundleError(
            f"{where} reads {hook}: {config.model_type} {said}, and which of them it reads is not known here"
        )
    if hook.site in ("resid_pre", "resid_post"):
        return
    family = family_of(config)
    if family is None:
        raise BundleError(
            f"{where} reads {hook}: in {config.model_type} models only the residual stream before and behind a "
            "layer (resid_pre, resid_post) is known here; choose such an SAE"
        )
    if family.order == "parallel" and hook.site in ("resid_mid", "ln2_normalized"):
        raise BundleError(
            f"{where} reads {hook}: {config.model_type} computes attention and MLP from one input, so there is no "
            "stream between them; choose another SAE"
        )
    if hook.site == "ln2_normalized" and family.mlp_norm is None:
        raise BundleError(f"{where} reads {hook}: {config.model_type} has no norm before its MLP; choose another SAE")


def width_of(config: Any, hook: Hook) -> tuple[int, str]:
    """How many dimensions a hook has, and what they are called."""
    if hook.site != "hook_z":
        return config.hidden_size, "d_model"
    kinds = getattr(config, "layer_types", None)
    if kinds and kinds[hook.layer] == "linear_attention":
        return config.linear_num_value_heads * config.linear_value_head_dim, "attention heads side by side of width"
    if getattr(config, "is_heterogeneous", False):  # Gemma 4's heads are wider in some layers
        config = config.per_layer_config[hook.layer]
    heads = config.num_attention_heads
    head_dim = getattr(config, "v_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads * head_dim, "attention heads side by side of width"


def has_rms_norms(config: Any) -> bool:
    """Whether the norms of a config's decoder divide by a root mean square and centre nothing."""
    return hasattr(config, "rms_norm_eps") or config.model_type in ("olmo",)
