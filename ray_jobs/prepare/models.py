"""Know the models of sae-lens' registry by their names: what the hub calls them, and how they are built.

Whether an SAE's site is one that its model has, follows from the model's config. For these models it is known without
asking a hub: only what `ray_jobs.backbone.decoder_layouts` reads of a config stands here.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from types import SimpleNamespace
from typing import Any

_MODELS: dict[str, tuple[str, int, int, int | None]] = {
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": ("llama", 32, 4096, 4096),
    "EleutherAI/pythia-70m-deduped": ("gpt_neox", 6, 512, 512),
    "google/gemma-2-27b": ("gemma2", 46, 4608, 4096),
    "google/gemma-2-2b": ("gemma2", 26, 2304, 2048),
    "google/gemma-2-9b": ("gemma2", 42, 3584, 4096),
    "google/gemma-2-9b-it": ("gemma2", 42, 3584, 4096),
    "google/gemma-2b": ("gemma", 18, 2048, 2048),
    "google/gemma-2b-it": ("gemma", 18, 2048, 2048),
    "google/gemma-3-12b-it": ("gemma3_text", 48, 3840, 4096),
    "google/gemma-3-12b-pt": ("gemma3_text", 48, 3840, 4096),
    "google/gemma-3-1b-it": ("gemma3_text", 26, 1152, 1024),
    "google/gemma-3-1b-pt": ("gemma3_text", 26, 1152, 1024),
    "google/gemma-3-270m": ("gemma3_text", 18, 640, 1024),
    "google/gemma-3-270m-it": ("gemma3_text", 18, 640, 1024),
    "google/gemma-3-27b-it": ("gemma3_text", 62, 5376, 4096),
    "google/gemma-3-27b-pt": ("gemma3_text", 62, 5376, 4096),
    "google/gemma-3-4b-it": ("gemma3_text", 34, 2560, 2048),
    "google/gemma-3-4b-pt": ("gemma3_text", 34, 2560, 2048),
    "meta-llama/Llama-3.1-8B": ("llama", 32, 4096, 4096),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", 32, 4096, 4096),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama", 80, 8192, 8192),
    "meta-llama/Meta-Llama-3-8B-Instruct": ("llama", 32, 4096, 4096),
    "mistralai/Mistral-7B-v0.1": ("mistral", 32, 4096, 4096),
    "openai-community/gpt2": ("gpt2", 12, 768, 768),
    "openai/gpt-oss-20b": ("gpt_oss", 24, 2880, 4096),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 28, 3584, 3584),
    "Qwen/Qwen3-0.6B": ("qwen3", 28, 1024, 2048),
    "Qwen/Qwen3-1.7B": ("qwen3", 28, 2048, 2048),
    "Qwen/Qwen3-1.7B-Base": ("qwen3", 28, 2048, 2048),
    "Qwen/Qwen3-14B": ("qwen3", 40, 5120, 5120),
    "Qwen/Qwen3-30B-A3B-Base": ("qwen3_moe", 48, 2048, 4096),
    "Qwen/Qwen3-4B": ("qwen3", 36, 2560, 4096),
    "Qwen/Qwen3-8B": ("qwen3", 36, 4096, 4096),
    "Qwen/Qwen3-8B-Base": ("qwen3", 36, 4096, 4096),
    "Qwen/Qwen3.5-27B": ("qwen3_5_text", 64, 5120, None),
    "Qwen/Qwen3.5-2B-Base": ("qwen3_5_text", 24, 2048, None),
    "Qwen/Qwen3.5-35B-A3B-Base": ("qwen3_5_moe_text", 40, 2048, None),
    "Qwen/Qwen3.5-9B-Base": ("qwen3_5_text", 32, 4096, None),
}
"""Hub name -> transformers' name of its decoder, layers, width of the stream, and of all attention heads side by side
(of which Qwen3.5 has two kinds, and no SAEs)."""

_ALSO = {"gpt2-small": "gpt2", "mistral-7b": "mistral-7b-v0.1"}
"""Names that the registry uses -> those of the hub."""


@cache
def hub_name(name: str) -> str:
    """What the hub calls a model of the registry; the name itself where it is none of them."""
    return _BY_PLAIN_NAME.get(plain_name(name), name)


@cache
def known_config(name: str) -> Any:
    """What `ray_jobs.backbone.decoder_layouts` asks of a model's config; None for one that is not in the registry."""
    found = _MODELS.get(hub_name(name))
    if found is None:
        return None
    model_type, layers, width, heads = found
    config = SimpleNamespace(
        model_type=model_type, num_hidden_layers=layers, hidden_size=width, num_attention_heads=1, head_dim=heads
    )
    if model_type == "gpt_neox":
        config.use_parallel_residual = True  # as all of Pythia
    elif model_type != "gpt2":
        config.rms_norm_eps = 1e-6
    return config


def same_model(first: str, second: str) -> bool:
    """Whether two names mean one model: owner, case and separators aside, they must be equal to the letter."""
    plain = (plain_name(first), plain_name(second))
    if plain[0] == plain[1] or all(name in _BY_PLAIN_NAME for name in plain):
        return plain[0] == plain[1]
    return not _aliases(first).isdisjoint(_aliases(second))


@cache
def plain_name(name: str) -> str:
    """A model's name without its owner, in one spelling: `Meta-Llama-3.1-8B` and `Llama-3.1-8B` are one model."""
    plain = re.sub(r"[\s_]+", "-", name.rsplit("/", 1)[-1].strip().lower())
    return _ALSO.get(plain, plain.removeprefix("meta-"))


def _aliases(name: str) -> set[str]:
    from transformer_lens.loading_from_pretrained import get_official_model_name

    names = {name}
    with contextlib.suppress(ValueError):
        names.add(get_official_model_name(name))  # "gpt2-medium" is "openai-community/gpt2-medium"
    return {plain_name(alias) for alias in names}


_BY_PLAIN_NAME = {plain_name(name): name for name in _MODELS}
