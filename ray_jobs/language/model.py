"""Run a whole causal language model out of a bundle, by transformers' own modules.

Its head is put in place of the model's own: it multiplies only the positions that are wanted (of a vocabulary of
262,144 a position has a megabyte of logits), and in float32 whatever the dtype of the weights, since a logit of 25
that is rounded to bfloat16 moves by up to 0.06. What a family does to logits after its head (soft caps, scales) is left
to its own code.

Prompts are padded on the left, as in generation: so the distance of two slots is the distance of two tokens, which is
what sliding windows go by, and what was computed for a prompt can be continued from its end.

Shapes: B rows, T slots, N wanted positions, V vocabulary, D d_model.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from featurestore.errors import BundleError, JobSpecError
from ray_jobs.backbone.backbone import SOFTCAP_EXACT, assign_weights, build_empty_with_head
from ray_jobs.backbone.bundle import CONFIG_NAME, HEAD_NAME, WEIGHTS_NAME, Bundle, bundle_file

HEAD_ROWS = 4096
"""Rows of the output matrix that are converted to float32 at a time: 10 MB at D = 640, which is soon used up."""

POSITIONS = 256
"""Positions whose logits are in memory at once: 256 MB for each copy at a vocabulary of 262,144."""


class LanguageModel:
    """A bundle's model with its head.

    Args:
        bundle: Of a whole model.
        device: torch device.
        attn_implementation: `eager`, or another of transformers that is exact for the model.

    Attributes:
        device: Where it is.
        model: transformers' own, for `generate`; its logits are of the last position of what it is given.
        eos, pad: Ids that end what it writes, and that fills rows.

    Raises:
        BundleError: The bundle holds no head, or does not load.
        JobSpecError: transformers has no such attention for it.
    """

    def __init__(self, bundle: Bundle, device: str, attn_implementation: str = "eager") -> None:
        from transformers import MODEL_MAPPING, AutoConfig

        if bundle.head is None:
            raise BundleError(f"{bundle.path} holds a model without its head; prepare a label job")
        if bundle.model.softcap is not None and attn_implementation not in SOFTCAP_EXACT:
            raise JobSpecError(
                f"model.attn: {attn_implementation!r} drops the attention soft cap of {bundle.model.name}; use 'eager'"
            )
        with bundle_file(bundle.path / CONFIG_NAME):
            config = AutoConfig.from_pretrained(bundle.path / CONFIG_NAME, trust_remote_code=False)
        try:
            model = build_empty_with_head(config, attn_implementation)
        except ValueError:
            raise JobSpecError(
                f"model.attn: transformers has no {attn_implementation!r} for {bundle.model.name}; use 'eager'"
            ) from None
        bare = MODEL_MAPPING[type(config)]  # the decoder alone, whatever it is called in the whole
        assign_weights(next(part for part in model.modules() if type(part) is bare), bundle.path / WEIGHTS_NAME)
        output = model.get_output_embeddings()
        if bundle.head.tied:
            output.weight = None
        if not bundle.head.tied or HEAD_NAME in bundle.files:
            assign_weights(output, bundle.path / HEAD_NAME)
        if bundle.head.tied:
            output.weight = model.get_input_embeddings().weight
        self.device = torch.device(device)
        self.model: Any = model.to(self.device)
        self._head = _Head(output.weight.detach(), getattr(output, "bias", None))  # of a tied one there is one copy
        model.set_output_embeddings(self._head)
        self.eos, self.pad = bundle.head.eos, bundle.tokenizer.pad
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def logits(
        self, ids_BT: torch.Tensor, mask_BS: torch.Tensor, wanted_BT: torch.Tensor, cache: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """Run the model.

        Args:
            ids_BT: What is fed, int64.
            mask_BS: 1 where a slot holds a token, int64; S = T slots, and those of the cache before them.
            wanted_BT: The positions whose logits are wanted, bool.
            cache: What came of the slots before; None for none.

        Returns:
            Logits of the wanted positions, row after row, float32 [N, V]; and the cache of all slots.
        """
        self._head.wanted = wanted_BT.to(self.device)
        try:
            options: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
            if self._takes_positions:
                position_BS = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
                options["position_ids"] = position_BS[:, -ids_BT.shape[1] :].to(self.device)
            out = self.model(input_ids=ids_BT.to(self.device), attention_mask=mask_BS.to(self.device), **options)
        finally:
            self._head.wanted = None
        return out.logits[0].float(), out.past_key_values


class _Head(torch.nn.Module):
    """The output matrix, at wanted positions only; `wanted` is bool [B, T], or None for the last position of each row.

    Gives [1, N, V], or [B, 1, V].
    """

    wanted: torch.Tensor | None = None

    def __init__(self, weight_VD: torch.Tensor, bias_V: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight_VD, persistent=False)
        self.register_buffer("bias", None if bias_V is None else bias_V.detach().float(), persistent=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Float32 logits."""
        x_ND = x_BTD[:, -1] if self.wanted is None else x_BTD[self.wanted]
        weight: Any = self.weight
        x_ND = x_ND.float()
        if weight.dtype == torch.float32:
            logits_NV = torch.nn.functional.linear(x_ND, weight)
        else:
            pieces = weight.split(HEAD_ROWS)
            logits_NV = torch.cat([torch.nn.functional.linear(x_ND, piece.float()) for piece in pieces], dim=-1)
        bias: Any = self.bias
        logits_NV = logits_NV if bias is None else logits_NV + bias
        return logits_NV[:, None] if self.wanted is None else logits_NV[None]


def left_padded(rows: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids [B, T] with padding before them, and their mask, int64 both."""
    longest = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), longest), pad, dtype=torch.int64)
    mask_BT = torch.zeros_like(ids_BT)
    for number, row in enumerate(rows):
        ids_BT[number, longest - len(row) :] = torch.from_numpy(row.astype(np.int64))
        mask_BT[number, longest - len(row) :] = 1
    return ids_BT, mask_BT


def continued(cache: Any, rows: torch.Tensor) -> Any | None:
    """What was computed for some prompts, once more for these of them (int64 [B]); None for a cache that cannot.

    The cache that is given stays as it is.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    if type(cache) is not DynamicCache or not all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers
    ):
        return None
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        layer.batch_select_indices(rows.to(layer.keys.device))
    return chosen
