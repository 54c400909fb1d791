"""Say for each family of decoders where its sites are: which of transformers' modules make an activation or read it.

Hooks on modules are all that is needed: what a norm, an attention, an MLP is given, and what comes of it. In which
order the layers of a family use them, and so which sites they have, `decoder_layouts` knows.

Shapes: B rows, T positions, D width of the site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from featurestore.errors import BundleError
from ray_jobs.backbone.decoder_layouts import Family, family_of
from ray_jobs.backbone.sites import Hook

Keep = Callable[[torch.Tensor], None]

_LAYERS = ("layers", "h", "blocks", "decoder.layers")
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "decoder.embed_tokens")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "decoder.final_layer_norm")
_ATTENTIONS = ("self_attn", "linear_attn", "attn.attention", "attn", "attention", "self_attention")
_OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj")
_MLPS = ("mlp", "feed_forward", "block_sparse_moe")


def decoder_of(model: Any) -> Any:
    """The text decoder of a model that has a vision tower beside it; of any other the model itself."""
    return getattr(model, "language_model", model)


def layers_of(model: Any) -> Any:
    """The decoder's layers, a ModuleList.

    Raises:
        BundleError: They are under no name that is known here.
    """
    found = _first(model, _LAYERS)
    if not isinstance(found, torch.nn.ModuleList) or embedding_of(model) is None:
        raise BundleError(
            f"{model.config.model_type} models are not supported: transformers keeps their layers under none of the "
            f"names {', '.join(_LAYERS)}, or their embedding under none of {', '.join(_EMBEDDINGS)}"
        )
    return found


def embedding_of(model: Any) -> Any:
    """The embedding of tokens; None where it has another name than usual."""
    return _first(model, _EMBEDDINGS)


def attention_of(layer: Any) -> Any:
    """The attention of a layer, or what stands in its place.

    Raises:
        BundleError: It is under no name that is known here.
    """
    found = _first(layer, _ATTENTIONS)
    if found is None:
        raise BundleError(f"{type(layer).__name__} keeps its attention under none of {', '.join(_ATTENTIONS)}")
    return found


def drop_final_norm(model: Any) -> None:
    """Replace what follows the last layer by nothing: it is not computed and needs no weights."""
    for name in _FINAL_NORMS:
        if _first(model, (name,)) is not None:
            model.set_submodule(name, torch.nn.Identity())


def watch(model: Any, hook: Hook, keep: Keep) -> None:
    """Have `keep` called with the activations of a hook, [B, T, D], whenever the model runs.

    Args:
        model: A bare decoder of transformers.
        hook: Where; `check_hook` has passed it.
        keep: What to do with them.
    """
    layer = layers_of(model)[hook.layer]
    family = family_of(model.config)
    if hook.site == "resid_post":
        _output(layer, keep)
    elif hook.site == "resid_pre":
        _input(layer, keep)
    elif hook.site == "embed":
        assert family is not None
        _output(embedding_of(model), keep) if family.positions else _input(layer, keep)
    else:
        assert family is not None
        _Inside(layer, family, model.config).watch(hook.site, keep)


class _Inside:
    """The sites inside one layer."""

    def __init__(self, layer: Any, family: Family, config: Any) -> None:
        self._layer, self._family = layer, family
        self._times = float(getattr(config, family.multiplier)) if family.multiplier else 1.0
        self._attention = attention_of(layer)
        self._mlp_first, self._mlp_last = (
            (_first(layer, _MLPS),) * 2 if family.mlp is None else (_first(layer, (name,)) for name in family.mlp)
        )

    def watch(self, site: str, keep: Keep) -> None:
        """See `watch`."""
        if site == "attn_in":
            _input(self._attention, keep)
        elif site == "hook_z":
            _input(_first(self._attention, _OUTPUTS), keep)
        elif site in ("attn_out", "mlp_out"):
            self._watch_sublayer(site, keep)
        elif site == "mlp_in":
            _input(self._mlp_first, keep)
        else:
            norm = None if self._family.mlp_norm is None else getattr(self._layer, self._family.mlp_norm)
            if site == "resid_mid":
                _input(self._mlp_first if norm is None else norm, keep)
            else:
                assert site == "ln2_normalized" and norm is not None
                _input(norm, lambda x_BTD: keep(_normalized(norm, x_BTD)))

    def _watch_sublayer(self, site: str, keep: Keep) -> None:
        """What attention or MLP adds to the stream."""
        if self._family.order in ("around", "after"):
            after = "post_attention_layernorm" if site == "attn_out" else "post_feedforward_layernorm"
            _output(getattr(self._layer, after), keep)
        elif self._family.adds_the_stream:
            added = ("self_attention", "residual") if site == "attn_out" else ("mlp", "residual")
            self._watch_difference(*added, keep)
        else:
            module = self._attention if site == "attn_out" else self._mlp_last
            _output(module, lambda x_BTD: keep(x_BTD * self._times))  # a copy, for Falcon adds to its outputs in place

    def _watch_difference(self, name: str, argument: str, keep: Keep) -> None:
        """What a module adds that is given the stream and hands back the sum."""

        def subtract(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            stream = kwargs[argument] if argument in kwargs else args[1]
            keep(_tensor(output) - stream)

        getattr(self._layer, name).register_forward_hook(subtract, with_kwargs=True)


def norms_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Every norm of a decoder with its name; a norm is a module that calls itself one."""
    for name, module in model.named_modules():
        if "norm" in type(module).__name__.lower():
            yield name, module


def _normalized(norm: Any, x_BTD: torch.Tensor) -> torch.Tensor:
    """The input of a norm as it is before weight and bias, in float32."""
    x_BTD = x_BTD.float()
    if "rms" not in type(norm).__name__.lower():
        x_BTD = x_BTD - x_BTD.mean(dim=-1, keepdim=True)
    eps = next((getattr(norm, name) for name in ("variance_epsilon", "eps") if hasattr(norm, name)), 1e-5)  # OLMo's
    return x_BTD * torch.rsqrt(x_BTD.square().mean(dim=-1, keepdim=True) + eps)


def _first(module: Any, names: Sequence[str]) -> Any:
    """The first of the submodules of these names that is there."""
    for name in names:
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, torch.nn.Module):
            return found
    return None


def _input(module: Any, keep: Keep) -> None:
    def seen(_module: Any, args: Any, kwargs: Any) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    module.register_forward_pre_hook(seen, with_kwargs=True)


def _output(module: Any, keep: Keep) -> None:
    module.register_forward_hook(lambda _module, _inputs, output: keep(_tensor(output)))


def _tensor(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
