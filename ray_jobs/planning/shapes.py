"""Read from a bundle's config how wide its decoder and its vision tower are, whatever a family calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore.errors import BundleError

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle

_D = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "num_heads")  # most configs, GPT-2's and Bloom's, GPT-Neo's
_MLP = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")


@dataclass(frozen=True)
class Shapes:
    """Of the layers of a decoder or tower.

    Attributes:
        layers: How many the config has.
        D: Width of the stream.
        M: Of the MLP.
        H: Attention heads; one as wide as the stream where a config names none.
        K: Key/value heads.
        E: Width of a head, of the widest layer.
    """

    layers: int
    D: int
    M: int
    H: int
    K: int
    E: int


def shapes_of(bundle: Bundle) -> tuple[Shapes, Shapes | None]:
    """Those of a bundle's decoder, and of its vision tower if it has one.

    Raises:
        BundleError: The config cannot be read.
    """
    from ray_jobs.backbone.bundle import CONFIG_NAME

    try:
        config = json.loads((bundle.path / CONFIG_NAME).read_text(encoding="utf-8"))
        if bundle.vision is None:
            return _shapes(config, bundle.d_model), None
        return _shapes(config["text_config"], bundle.d_model), _shapes(config["vision_config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise BundleError(f"{bundle.path} cannot be read ({error}); delete it and prepare again") from None


def _shapes(config: Mapping[str, Any], d_model: int | None = None) -> Shapes:
    def first(*names: str) -> int | None:
        return next((config[name] for name in names if isinstance(config.get(name), int)), None)

    layers = config.get("per_layer_config") or {}  # what some layers have otherwise
    D = d_model or first(*_D) or 0
    heads = first(*_HEADS) or 1
    return Shapes(
        layers=first("num_hidden_layers", "n_layer", "num_layers") or 0,
        D=D,
        M=first(*_MLP) or 4 * D,
        H=heads,
        K=first("num_key_value_heads") or heads,
        E=max([first("head_dim") or D // heads, *(own.get("head_dim", 0) for own in layers.values())]),
    )
