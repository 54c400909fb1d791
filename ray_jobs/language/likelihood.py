"""How likely a model finds each of several texts behind a prompt; what they have in common is computed once.

Of a batch of prompts, the ids that all choices of a prompt begin with are run first. The last of them already tells
how likely the first token of each choice is, which is all there is to choices of one token. For longer ones the keys
and values of the prompt are continued with the rest of each choice. Models that keep something else than keys and
values (state spaces, linear attention) read prompt and choice anew for each choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ray_jobs.language.batches import in_batches, run_each
from ray_jobs.language.model import POSITIONS, LanguageModel, continued, left_padded
from ray_jobs.language.tokens import Completions

Progress = Callable[[int, int], None]

_NOT_FINITE = "the model's logits are not finite"


def log_likelihoods(
    model: LanguageModel, prompts: Sequence[Completions], budget: int, on_progress: Progress | None = None
) -> list[list[float] | str]:
    """The log-likelihood of every choice of every prompt.

    Args:
        model: The model.
        prompts: Prompts with their choices.
        budget: Slots of one forward.
        on_progress: Called after every batch with the prompts and tokens done so far.

    Returns:
        For each prompt, in nats, the sum over the tokens of each choice; or why there is none.
    """
    found: dict[int, list[float] | str] = {}
    n_tokens = 0
    for batch in in_batches([one.shared for one in prompts], budget, POSITIONS):
        found |= run_each(batch, lambda numbers: _scored(model, [prompts[n] for n in numbers], budget))
        n_tokens += sum(prompts[number].n_tokens for number in batch)
        if on_progress is not None:
            on_progress(len(found), n_tokens)
    return [found[number] for number in range(len(prompts))]


@torch.inference_mode()
def _scored(model: LanguageModel, prompts: Sequence[Completions], budget: int) -> list[list[float] | str]:
    shared = [one.shared for one in prompts]
    sums = [np.zeros(len(one.ids)) for one in prompts]
    ids_BT, mask_BT = left_padded([one.ids[0][:n] for one, n in zip(prompts, shared, strict=True)], model.pad)
    last_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    last_BT[:, -1] = True
    logits_BV, cache = model.logits(ids_BT, mask_BT, last_BT)
    log_proba_BV = torch.log_softmax(logits_BV, dim=-1)
    longer: list[tuple[int, int]] = []  # (prompt, choice) that goes on behind its first token
    for b, one in enumerate(prompts):
        for c, (ids, start) in enumerate(zip(one.ids, one.start, strict=True)):
            if start == shared[b]:
                sums[b][c] += float(log_proba_BV[b, int(ids[start])])
            if len(ids) > shared[b] + 1:
                longer.append((b, c))
    del logits_BV, log_proba_BV
    for rows in _rows(longer, prompts, shared, budget, ids_BT.shape[1]):
        chosen = continued(cache, torch.tensor([b for b, _ in rows]))
        told = _rest(model, prompts, rows, shared, None if chosen is None else (mask_BT, chosen))
        for (b, c), total in zip(rows, told, strict=True):
            sums[b][c] += total
    return [each.tolist() if np.isfinite(each).all() else _NOT_FINITE for each in sums]


def _rows(
    longer: Sequence[tuple[int, int]], prompts: Sequence[Completions], shared: Sequence[int], budget: int, width: int
) -> Iterator[list[tuple[int, int]]]:
    """Choices to be continued together: few enough wanted positions, and few enough keys and values."""
    rows: list[tuple[int, int]] = []
    wanted = 0
    for b, c in longer:
        more = len(prompts[b].ids[c]) - shared[b]
        if rows and (wanted + more > POSITIONS or (len(rows) + 1) * (width + more) > 2 * budget):
            yield rows
            rows, wanted = [], 0
        rows.append((b, c))
        wanted += more
    if rows:
        yield rows


def _rest(
    model: LanguageModel,
    prompts: Sequence[Completions],
    rows: Sequence[tuple[int, int]],
    shared: Sequence[int],
    before: tuple[torch.Tensor, object] | None,
) -> list[float]:
    """Of each row, the log-likelihood of what the last shared position does not tell.

    Args:
        model: The model.
        prompts: All of the batch.
        rows: (prompt, choice).
        shared: Of each prompt, the ids that are shared.
        before: Mask of the shared ids, and what came of them for these rows; None where that cannot be gone on with.
    """
    first = [shared[b] if before is not None else 0 for b, _ in rows]
    fed = [prompts[b].ids[c][f:-1].astype(np.int64) for (b, c), f in zip(rows, first, strict=True)]
    longest = max(len(ids) for ids in fed)
    ids_BT = torch.full((len(rows), longest), model.pad, dtype=torch.int64)
    mask_BT = torch.zeros_like(ids_BT)
    wanted_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    target, counts = [], []
    for r, ((b, c), f) in enumerate(zip(rows, first, strict=True)):
        ids, start = prompts[b].ids[c], max(prompts[b].start[c], shared[b] + 1)
        ids_BT[r, : len(fed[r])], mask_BT[r, : len(fed[r])] = torch.from_numpy(fed[r]), 1
        wanted_BT[r, start - 1 - f : len(ids) - 1 - f] = True
        target.append(ids[start:].astype(np.int64))
        counts.append(len(ids) - start)
    mask_BS = mask_BT if before is None else torch.cat([before[0][[b for b, _ in rows]], mask_BT], dim=1)
    logits_NV, _ = model.logits(ids_BT, mask_BS, wanted_BT, None if before is None else before[1])
    target_N = torch.from_numpy(np.concatenate(target)).to(logits_NV.device)
    told_N = logits_NV.gather(1, target_N[:, None])[:, 0] - logits_NV.logsumexp(dim=1)
    return [float(part.double().sum()) for part in told_N.cpu().split(counts)]
