"""What a model writes behind prompts: greedily, a bounded number of tokens, by transformers' own `generate`.

Of a model's generation config only the ids that end an answer are used: no penalty, no sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_jobs.language.batches import in_batches, run_each
from ray_jobs.language.model import POSITIONS, LanguageModel, left_padded

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        ids: The tokens, without the one that ends them.
        log_likelihood: In nats, of all its tokens, the one that ends them included.
        margin: The smallest lead, in nats, of a token over the one that came second.
    """

    ids: tuple[int, ...]
    log_likelihood: float
    margin: float


def write(
    model: LanguageModel, prompts: Sequence[np.ndarray], n: int, budget: int, on_progress: Progress | None = None
) -> list[Written | str]:
    """Continue prompts greedily.

    Args:
        model: The model.
        prompts: Ids, int32 [T] each.
        n: Tokens at most.
        budget: Slots of one batch, those of the answers included.
        on_progress: Called after every batch with the prompts and tokens done so far.

    Returns:
        For each prompt what was written, or why nothing was.
    """
    found: dict[int, Written | str] = {}
    n_tokens = 0
    for batch in in_batches([len(ids) + n for ids in prompts], budget, POSITIONS):
        found |= run_each(batch, lambda numbers: _written(model, [prompts[number] for number in numbers], n))
        n_tokens += sum(len(prompts[number]) + n for number in batch)
        if on_progress is not None:
            on_progress(len(found), n_tokens)
    return [found[number] for number in range(len(prompts))]


@torch.inference_mode()
def _written(model: LanguageModel, prompts: Sequence[np.ndarray], n: int) -> list[Written | str]:
    from transformers import GenerationConfig, LogitsProcessorList

    ids_BT, mask_BT = left_padded(prompts, model.pad)
    watch = _Watch()
    out_BS = model.model.generate(
        input_ids=ids_BT.to(model.device),
        attention_mask=mask_BT.to(model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=n,
            pad_token_id=model.pad,
            eos_token_id=list(model.eos) or None,
            use_cache=True,
        ),
        logits_processor=LogitsProcessorList([watch]),
    )
    new_BN = out_BS[:, ids_BT.shape[1] :].cpu().tolist()
    log_proba_BN, lead_BN = (torch.stack(steps, dim=1).cpu().numpy() for steps in (watch.log_proba, watch.lead))
    found: list[Written | str] = []
    for row, ids in enumerate(new_BN):
        end = next((place for place, token in enumerate(ids) if token in model.eos), None)
        steps = len(ids) if end is None else end + 1
        told, lead = log_proba_BN[row, :steps], lead_BN[row, :steps]
        if not (np.isfinite(told).all() and np.isfinite(lead).all()):
            found.append("the model's logits are not finite")
            continue
        found.append(Written(tuple(ids[:end]), float(told.astype(np.float64).sum()), float(lead.min())))
    return found


class _Watch:
    """Sees the logits of every step and changes nothing: how likely the likeliest token is, and its lead."""

    def __init__(self) -> None:
        self.log_proba: list[torch.Tensor] = []
        self.lead: list[torch.Tensor] = []

    def __call__(self, _ids: Any, logits_BV: torch.Tensor) -> torch.Tensor:
        first, second = logits_BV.float().topk(2, dim=-1).values.unbind(dim=-1)
        self.log_proba.append(first - logits_BV.float().logsumexp(dim=-1))
        self.lead.append(first - second)
        return logits_BV
