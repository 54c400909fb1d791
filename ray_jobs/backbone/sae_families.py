"""Bring SAEs of all families to one form: two rules for which features of a token are active.

With r = x . W[f] of an input x that has been normalised and, where the SAE wants it, centred on its decoder bias:

- *threshold* (standard, JumpReLU, gated; BatchTopK and Matryoshka SAEs are saved as JumpReLU): feature f is active
  where r > cutoff[f], and then its activation is r * scale[f] + bias[f]. Bias, threshold, gate and ReLU are all
  monotone in r, so one cutoff a feature stands for them together. It is found by bisecting the float32 numbers with the
  family's own formula, rounding included, so that formula and cutoff agree for every float32 r.
- *top-k*: of the pre-activations r + bias[f], the k largest of a token are active if they are positive. Decoder norms
  that rescale them are folded into W and bias.

Encoder, prefilter and pooling know these two rules and no family. A family that fits neither is refused (`sae_kinds`).
Shapes: N tokens, D d_in, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from ray_jobs.backbone.sae_kinds import TRANSCODERS

LAYER_NORM_EPS = 1e-5
"""As in sae-lens."""


@dataclass(frozen=True)
class SaeWeights:
    """The weights of one SAE encoder as a bundle holds them.

    Attributes:
        W_FD: Encoder rows [F, D], in the bundle's dtype.
        bias_F: float32 [F].
        cutoff_F: float32 [F]; None for top-k.
        scale_F: float32 [F]; None where it is 1.
        b_dec_D: Decoder bias, float32 [D]: subtracted from inputs where the SAE says so; also used to guess which
            dimensions of the residual stream are huge.
    """

    W_FD: torch.Tensor
    bias_F: torch.Tensor
    cutoff_F: torch.Tensor | None
    scale_F: torch.Tensor | None
    b_dec_D: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name -> tensor, as stored."""
        named = {
            "W_enc": self.W_FD,
            "bias": self.bias_F,
            "cutoff": self.cutoff_F,
            "scale": self.scale_F,
            "b_dec": self.b_dec_D,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def some(self, features: torch.Tensor) -> SaeWeights:
        """A copy of the weights of some features, int64 [C]; of other rows not even pages of the file are read."""
        return SaeWeights.of(
            {name: tensor if name == "b_dec" else tensor[features] for name, tensor in self.tensors().items()}
        )

    def to(self, device: torch.device | str) -> SaeWeights:
        """The weights on a device."""
        return SaeWeights.of({name: tensor.to(device) for name, tensor in self.tensors().items()})

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> SaeWeights:
        """The inverse of `tensors`."""
        return cls(
            tensors["W_enc"], tensors["bias"], tensors.get("cutoff"), tensors.get("scale"), b_dec_D=tensors["b_dec"]
        )


def fold(architecture: str, tensors: Mapping[str, torch.Tensor]) -> SaeWeights:
    """Bring the float32 tensors of a family to the form of a bundle.

    Args:
        architecture: One of `ARCHITECTURES` or `TRANSCODERS`.
        tensors: By sae-lens' names: `W_enc` [D, F], `b_dec` [D]; `b_enc` [F] and, for JumpReLU, `threshold` [F]; for
            gated `b_gate`, `b_mag`, `r_mag` [F]; for top-k that rescales by decoder norms, `decoder_norm` [F].

    Returns:
        The weights; `W_FD` may be a view of `W_enc`.
    """
    architecture = TRANSCODERS.get(architecture, architecture)
    W_FD, b_dec_D = tensors["W_enc"].T, tensors["b_dec"]
    if architecture == "topk":
        bias_F = tensors["b_enc"]
        if "decoder_norm" in tensors:
            W_FD, bias_F = W_FD * tensors["decoder_norm"][:, None], bias_F * tensors["decoder_norm"]
        return SaeWeights(W_FD, bias_F, None, None, b_dec_D)
    if architecture == "gated":
        gate_F, magnitude_F, scale_F = tensors["b_gate"], tensors["b_mag"], tensors["r_mag"].exp()
        cutoff_F = exact_cutoff(lambda r_F: (r_F + gate_F > 0) & (r_F * scale_F + magnitude_F > 0), W_FD.shape[0])
        return SaeWeights(W_FD, magnitude_F, cutoff_F, scale_F, b_dec_D)
    b_enc_F = tensors["b_enc"]
    threshold_F = tensors["threshold"].clamp(min=0) if architecture == "jumprelu" else torch.zeros_like(b_enc_F)
    return SaeWeights(
        W_FD, b_enc_F, exact_cutoff(lambda r_F: r_F + b_enc_F > threshold_F, W_FD.shape[0]), None, b_dec_D
    )


def centred(weights: SaeWeights, apply_b_dec_to_input: bool) -> SaeWeights:
    """The weights of the same encoder for an input whose mean over its dimensions has not been subtracted yet.

    TransformerLens can centre all that a model with LayerNorms writes to the residual stream, which changes nothing of
    what the model says. An SAE that was trained so sees x - mean(x); W (x - mean(x)) = (W - mean of each row) x.
    """
    W_FD = weights.W_FD - weights.W_FD.mean(dim=1, keepdim=True)
    if not apply_b_dec_to_input:
        return replace(weights, W_FD=W_FD)
    moved_F = (W_FD - weights.W_FD) @ weights.b_dec_D  # the new rows are less sensitive to b_dec, too
    scale_F = 1.0 if weights.scale_F is None else weights.scale_F
    return replace(
        weights,
        W_FD=W_FD,
        bias_F=weights.bias_F + moved_F * scale_F,
        cutoff_F=None if weights.cutoff_F is None else weights.cutoff_F - moved_F,
    )


def exact_cutoff(active: Callable[[torch.Tensor], torch.Tensor], n_features: int) -> torch.Tensor:
    """The largest float32 at which each feature is still inactive, so that active(r) equals r > cutoff for finite r.

    Args:
        active: Float32 [F] -> bool [F], monotone in each element.
        n_features: F.

    Returns:
        Float32 [F]; inf for a feature that nothing activates, -inf for one that everything does.
    """
    largest = torch.finfo(torch.float32).max
    low_F = _ordinal(torch.full((n_features,), -largest))
    high_F = _ordinal(torch.full((n_features,), largest))
    never_F, always_F = ~active(_float(high_F)), active(_float(low_F))
    for _ in range(33):  # halves the 2^32 float32 numbers until one is left
        middle_F = (low_F + high_F) // 2
        active_F = active(_float(middle_F))
        low_F, high_F = torch.where(active_F, low_F, middle_F), torch.where(active_F, middle_F, high_F)
    cutoff_F = _float(low_F)
    cutoff_F[always_F] = -torch.inf
    cutoff_F[never_F] = torch.inf
    return cutoff_F


def encoder_input(x_ND: torch.Tensor, normalization: str, b_dec_D: torch.Tensor | None) -> torch.Tensor:
    """What encoder rows are multiplied with: normalised activations, less the decoder bias if one is given. float32."""
    x_ND = x_ND.float()
    if normalization == "constant_norm_rescale":
        x_ND = x_ND * (x_ND.shape[1] ** 0.5 / x_ND.norm(dim=-1, keepdim=True))
    elif normalization == "layer_norm":
        x_ND = x_ND - x_ND.mean(dim=-1, keepdim=True)
        x_ND = x_ND / (x_ND.std(dim=-1, keepdim=True) + LAYER_NORM_EPS)
    return x_ND if b_dec_D is None else x_ND - b_dec_D


def _ordinal(value: torch.Tensor) -> torch.Tensor:
    """Float32 -> int64 in the same order; both zeros are 0."""
    bits = value.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _float(ordinal: torch.Tensor) -> torch.Tensor:
    bits = torch.where(ordinal < 0, -ordinal - 2**31, ordinal)
    return bits.to(torch.int32).view(torch.float32)
