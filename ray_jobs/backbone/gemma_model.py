"""Read a Gemma 2 or 3 decoder out of a bundle without transformers, whose import takes longer than a few texts do.

What `backbone.PackedBackbone` needs of a decoder is little: the config's numbers, the weights by name, and rotary
tables. Tables are computed by transformers' own formula, to the bit; what else than plain or linearly scaled rotary
embeddings a config asks for is left to transformers.

Shapes: T positions, E head_dim.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from featurestore.errors import BundleError
from ray_jobs.backbone import gemma
from ray_jobs.backbone.bundle import CONFIG_NAME, WEIGHTS_NAME, Bundle, bundle_file


class GemmaModel:
    """A decoder as transformers would hold it, as far as it is asked for.

    Attributes:
        config: The numbers of the config, by their names there.
        embed_tokens: With the embedding as `weight`.
        layers: Modules with the weights of the layers.
        rotary_emb: Computes rotary tables.
    """

    def __init__(self, config: Any, weights: Mapping[str, torch.Tensor]) -> None:
        tree = _tree(weights)
        self.config = config
        self.embed_tokens = tree.get_submodule("embed_tokens")
        self.layers = [tree.get_submodule(f"layers.{n}") for n in range(config.num_hidden_layers)]
        self.rotary_emb = RotaryEmbedding(config.head_dim, _ropes(config) or {})


class RotaryEmbedding:
    """Rotary tables of each kind of layer, as transformers' `Gemma3RotaryEmbedding` has them."""

    def __init__(self, head_dim: int, ropes: Mapping[str, tuple[float, float]]) -> None:
        self._inv_freq = {
            kind: 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim)) / factor
            for kind, (theta, factor) in ropes.items()
        }

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [1, T, E] of positions [1, T], in the dtype of `x`."""
        freqs = position_ids[..., None].float() * self._inv_freq[layer_type]
        emb = torch.cat((freqs, freqs), dim=-1)
        return emb.cos().to(x.dtype), emb.sin().to(x.dtype)

    __call__ = forward


def open_gemma(bundle: Bundle) -> GemmaModel | None:
    """A bundle's decoder; None where it is none that can be read without transformers.

    Raises:
        BundleError: Config or weights are damaged, or do not fit one another.
    """
    if bundle.model.model_type not in gemma.MODEL_TYPES:
        return None
    with bundle_file(bundle.path / CONFIG_NAME):
        config = SimpleNamespace(**json.loads((bundle.path / CONFIG_NAME).read_text(encoding="utf-8")))
        if not gemma.is_supported(config) or _ropes(config) is None:
            return None
        expected = _shapes(config)
    from safetensors.torch import load_file

    with bundle_file(bundle.path / WEIGHTS_NAME):
        weights = load_file(bundle.path / WEIGHTS_NAME)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        name = min(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise BundleError(
            f"{bundle.path / WEIGHTS_NAME} does not fit {CONFIG_NAME} ({name} has shape {found.get(name)}, not "
            f"{expected.get(name)}); prepare again"
        )
    return GemmaModel(config, weights)


def _ropes(config: Any) -> dict[str, tuple[float, float]] | None:
    """Kind of layer -> base and factor of its rotary embedding; None if one of them is of another kind."""
    found = {}
    for kind in set(config.layer_types):
        rope = config.rope_parameters if "rope_type" in config.rope_parameters else config.rope_parameters[kind]
        if not rope or set(rope) - {"rope_type", "rope_theta", "factor"}:
            return None
        if rope["rope_type"] not in ("default", "linear"):
            return None
        found[kind] = (float(rope["rope_theta"]), float(rope["factor"]) if rope["rope_type"] == "linear" else 1.0)
    return found


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that the config asks for."""
    d_model, width, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, d_model),
        "self_attn.k_proj": (keys, d_model),
        "self_attn.v_proj": (keys, d_model),
        "self_attn.o_proj": (d_model, queries),
        "mlp.gate_proj": (width, d_model),
        "mlp.up_proj": (width, d_model),
        "mlp.down_proj": (d_model, width),
        **{f"{where}_layernorm": (d_model,) for where in _norms()},
    }
    if config.model_type == "gemma3_text":
        layer |= {"self_attn.q_norm": (head_dim,), "self_attn.k_norm": (head_dim,)}
    of_layers = {
        f"layers.{n}.{name}.weight": shape for n in range(config.num_hidden_layers) for name, shape in layer.items()
    }
    return {"embed_tokens.weight": (config.vocab_size, d_model), **of_layers}


def _norms() -> Iterable[str]:
    return "input", "post_attention", "pre_feedforward", "post_feedforward"


def _tree(weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Modules with the tensors as parameters, by the dots in their names; nothing is copied."""
    root = torch.nn.Module()
    for name, tensor in weights.items():
        node = root
        *path, last = name.split(".")
        for part in path:
            if part not in node._modules:
                node.add_module(part, torch.nn.Module())
            node = node.get_submodule(part)
        node.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    return root
