"""Name the places in a decoder where activations are read: a hook is a site and a layer, as in `mlp_out_12`.

One vocabulary for all families, in the order in which a layer computes them:

| site | is |
|---|---|
| `embed` | token embeddings as they enter the stream (Gemma's are scaled by then), before layer 0; it has no layer |
| `resid_pre` | the residual stream that a layer reads |
| `attn_in` | what its attention reads: behind the norm, where there is one before it |
| `hook_z` | the heads' outputs side by side, before the output matrix: `n_heads * head_dim` wide |
| `attn_out` | what its attention adds to the stream: behind the norm after it, where there is one |
| `resid_mid` | the stream between attention and MLP; a layer that computes both from one input has none |
| `ln2_normalized` | `resid_mid` divided by its root mean square (or standard deviation), before the norm's weight |
| `mlp_in` | what its MLP reads: behind the norm and its weight, where there is one before it |
| `mlp_out` | what its MLP adds to the stream: behind the norm after it, where there is one |
| `resid_post` | the stream behind the layer |

SAEs name hooks as TransformerLens does, or by transformers' modules; `parse_hook` reads both.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from featurestore.base.dense_names import hook_name

Site = Literal[
    "embed",
    "resid_pre",
    "attn_in",
    "hook_z",
    "attn_out",
    "resid_mid",
    "ln2_normalized",
    "mlp_in",
    "mlp_out",
    "resid_post",
]
SITES: tuple[str, ...] = get_args(Site)

STREAM_SITES = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""The residual stream, and what is added to it."""

_TRANSFORMER_LENS = {
    "hook_embed": "embed",
    "hook_resid_pre": "resid_pre",
    "hook_attn_in": "resid_pre",  # a copy of the stream for each head
    "attn.hook_z": "hook_z",
    "hook_z": "hook_z",
    "hook_attn_out": "attn_out",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",  # of the stream too: it lies before ln2
    "ln2.hook_normalized": "ln2_normalized",
    "mlp.hook_in": "mlp_in",
    "hook_mlp_out": "mlp_out",
    "hook_resid_post": "resid_post",
}
_MODULES = {
    "": "resid_post",
    "input": "resid_pre",
    "output": "resid_post",
    "self_attn.o_proj.input": "hook_z",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
    "mlp.input": "mlp_in",
}
"""Parts of a layer by transformers' names that mean the same in every family that has them."""


class Hook(NamedTuple):
    """Where activations are read.

    Attributes:
        layer: Index of the layer; 0 for `embed`.
        site: One of `SITES`.
    """

    layer: int
    site: str

    @property
    def name(self) -> str:
        """As columns spell it: `resid_post_9`, `embed`."""
        return hook_name(self.site, self.layer)

    def __str__(self) -> str:
        """In words: "layer 9", "mlp_out of layer 9", "embed"."""
        if self.site == "embed":
            return self.site
        return f"layer {self.layer}" if self.site == "resid_post" else f"{self.site} of layer {self.layer}"


def in_order(hooks: set[Hook]) -> tuple[Hook, ...]:
    """Hooks as a forward pass comes by them."""
    return tuple(sorted(hooks, key=lambda hook: (hook.layer, SITES.index(hook.site))))


def parse_hook(hook: str, module: str | None = None) -> tuple[int | None, str]:
    """What an SAE's metadata says of where it reads.

    Args:
        hook: As TransformerLens names it: `blocks.9.hook_resid_post`, `hook_embed`; or a module: `model.layers.9`.
        module: The same by transformers' modules, where the metadata says it too: it decides, for it cannot be
            misunderstood (`hook_mlp_in` lies before the norm, and some releases mean behind it).

    Returns:
        Layer (None where none is named; 0 for `embed`) and site: one of `SITES`, or what stands there instead.
    """
    for name in (module, hook):
        found = re.fullmatch(r"(?:.*\.)?(?:blocks|layers|h)\.(\d+)(?:\.(.+))?", name or "")
        if found:
            inside = found[2] or ""
            site = _TRANSFORMER_LENS.get(inside) or _MODULES.get(inside)
            if site is not None or name == hook:
                return int(found[1]), site or inside
    return (0, "embed") if hook in ("hook_embed", "embed_tokens", "model.embed_tokens") else (None, hook)
