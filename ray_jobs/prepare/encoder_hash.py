"""Compute the sha256 that names an SAE's encoder by its numbers, whatever it is called and in which precision it runs.

Stores and trained models record it, and tables of feature names can be keyed by it, so the recipe is fixed. Memory is a
few megabytes beyond the tensors; a gigabyte takes about a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PIECE_BYTES = 1 << 24  # hashed at a time


def encoder_sha256(tensors: Mapping[str, torch.Tensor], apply_b_dec_to_input: bool) -> str:
    """Hash the tensors that decide an encoder's features.

    The recipe: of `W_enc` [d_in, d_sae], `b_enc`, `threshold`, `b_gate`, `b_mag`, `r_mag` [d_sae] those that the
    architecture has, of `decoder_norm` [d_sae] (the norms of the rows of `W_dec`) where activations are rescaled by
    it, and of `b_dec` [d_in] where it is subtracted from the input; in the order of their names; of each first, in
    ASCII, its name, a space, its shape as numbers joined by `x` and a newline (`W_enc 2304x16384`), then its values
    as little-endian float32 in row-major order, as sae-lens loads them in float32: before any cast and any folding.

    Args:
        tensors: By sae-lens' names, as they were loaded.
        apply_b_dec_to_input: Whether `b_dec` decides anything.

    Returns:
        The hash as lower-case hex.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name == "b_dec" and not apply_b_dec_to_input:
            continue
        tensor = tensors[name]
        digest.update(f"{name} {'x'.join(map(str, tensor.shape))}\n".encode("ascii"))
        step = max(1, _PIECE_BYTES // max(4 * tensor[0].numel(), 1))
        for start in range(0, len(tensor), step):
            piece = tensor[start : start + step].float().contiguous().numpy()
            digest.update(piece.astype("<f4", copy=False).data)
    return digest.hexdigest()
