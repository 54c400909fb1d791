"""Say which architectures and normalisations of SAEs have an exact encoder here, and refuse the others by name.

`sae_families` is how each of them is encoded. Nothing is asked of weights, so no torch is needed.
"""

from __future__ import annotations

from featurestore.errors import BundleError

ARCHITECTURES = ("standard", "jumprelu", "gated", "topk")
TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
"""Transcoders -> the architecture that their encoder has; their features are those of their input."""
NORMALIZATIONS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in")
"""`expected_average_only_in` changes nothing here: sae-lens folds its factor into the weights when it loads them."""


def check_family(where: str, architecture: str, normalization: str, reshape: str = "none") -> None:
    """Refuse what has no exact encoder here.

    Args:
        where: What the sentence begins with.
        architecture: As sae-lens names it.
        normalization: Likewise, of the input.
        reshape: `hook_z` for SAEs of attention heads side by side, which is how they are read here too.

    Raises:
        BundleError: With the reason and what to do.
    """
    reason = _REFUSED.get(architecture)
    if reason is None and architecture not in ARCHITECTURES and architecture not in TRANSCODERS:
        reason = "it is not known here"
    if reason is not None:
        raise BundleError(
            f"{where}: architecture {architecture!r} is not supported: {reason}; "
            f"choose an SAE that is one of {', '.join((*ARCHITECTURES, *TRANSCODERS))}"
        )
    if normalization not in NORMALIZATIONS:
        raise BundleError(
            f"{where}: normalize_activations={normalization} is not supported: what it was trained with is not in the "
            "SAE's file; fold it into the weights with sae-lens, or choose another SAE"
        )
    if reshape not in ("none", "hook_z"):
        raise BundleError(f"{where}: reshape_activations={reshape} is not known here; choose another SAE")


_CROSSCODER = "it reads several layers at once, and an encoder here reads one hook"
_REFUSED = {
    "abstopk": "its features can be negative, and poolings (max, count, top{N}) are defined for activations >= 0",
    "temporal": "its features depend on the tokens before, not on one activation",
    "matching_pursuit": "it encodes by iterating, not by one product with the encoder",
    "crosscoder": _CROSSCODER,
    "cross_layer_transcoder": _CROSSCODER,
    "clt": _CROSSCODER,
}
