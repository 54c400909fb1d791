"""An independent answer to "what are this document's features?", for comparison with the engine.

The full model through transformers in eager attention, one text at a time, unpadded and untruncated in depth; a
forward hook on `model.model.layers[L]`; sae-lens' own `encode`; pooling written out in numpy. Slow, dense and obvious
on purpose, and sharing no code with the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


@dataclass(frozen=True)
class Fed:
    """Ids of one forward of the reference, and which positions of it are pooled."""

    ids: list[int]
    pooled: slice


def windows_by_rule(
    content: Sequence[int], bos: Sequence[int], max_tokens: int, stride: int | None, count_all: bool = False
) -> list[Fed]:
    """The window rule, token by token.

    Every window starts with `bos` and holds `max_tokens` ids at most. The first reads content from the start; each
    further one repeats the `stride` tokens before the first token not yet pooled, and goes on. stride=None: one window.
    """
    windows: list[Fed] = []
    done = 0
    while done < len(content):
        context = list(content[max(0, done - stride) : done]) if windows and stride else []
        fed = [*bos, *context]
        n_context = len(fed)
        while len(fed) < max_tokens and done < len(content):
            fed.append(content[done])
            done += 1
        windows.append(Fed(fed, slice(0 if count_all and not windows else n_context, len(fed))))
        if stride is None:
            break
    return windows


def pool_dense(acts: np.ndarray, pool: str) -> np.ndarray:
    """Pool activations [tokens, features] to [features] by the definition of the pooling."""
    if pool == "max":
        return acts.max(axis=0)
    if pool == "sum":
        return acts.astype(np.float64).sum(axis=0)
    if pool == "count":
        return (acts > 0).sum(axis=0)
    if pool == "last":
        return acts[-1]
    n = int(pool.removeprefix("top"))
    counts = np.zeros(acts.shape[1], dtype=np.int64)
    for row in acts:
        for feature in np.argsort(-row, kind="stable")[:n]:
            counts[feature] += row[feature] > 0
    return counts


class ReferenceModel:
    """A whole model in float32, as transformers runs it.

    Args:
        model: A Hugging Face directory or a .gguf file.
    """

    def __init__(self, model: str | Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = Path(model)
        where: dict[str, Any] = {"pretrained_model_name_or_path": path}
        if path.suffix == ".gguf":
            where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        self.model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, attn_implementation="eager")
        self.model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(**where)

    def content(self, text: str) -> list[int]:
        """Ids of a text without special tokens around it."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def windows(
        self, text: str, max_tokens: int = 10**9, stride: int | None = None, count_all: bool = False
    ) -> list[Fed]:
        """What is fed for a text behind BOS, by `windows_by_rule`."""
        return windows_by_rule(self.content(text), [self.tokenizer.bos_token_id], max_tokens, stride, count_all)

    def residual(self, windows: Sequence[Fed], layer: int) -> np.ndarray:
        """Output of `model.model.layers[layer]` at the pooled positions, float32 [tokens, d_model]."""
        import torch

        captured: list[Any] = []
        handle = self.model.model.layers[layer].register_forward_hook(
            lambda _module, _inputs, output: captured.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            rows = []
            for window in windows:
                with torch.no_grad():
                    self.model(input_ids=torch.tensor([window.ids]), use_cache=False)
                rows.append(captured.pop()[0, window.pooled].float().numpy())
        finally:
            handle.remove()
        return np.concatenate(rows)


def encode(sae_dir: str | Path, residual: np.ndarray) -> np.ndarray:
    """Activations [tokens, features] of an SAE directory, by sae-lens."""
    import torch
    from sae_lens import SAE

    sae = SAE.load_from_disk(sae_dir, device="cpu", dtype="float32")
    with torch.no_grad():
        return sae.encode(torch.from_numpy(residual)).numpy()


def undecided(sae_dir: str | Path, residual: np.ndarray) -> np.ndarray:
    """bool [features]: those with a token whose pre-activation lies within float32's rounding of the cutoff.

    Whether such a pair counts depends on the order in which a processor sums, and no order is the right one. In float64
    by hand; a millionth of the cutoff is eight units in the last place, what sums of some dozen terms come to.
    """
    state = {
        name: value.astype(np.float64) for name, value in load_file(Path(sae_dir) / "sae_weights.safetensors").items()
    }
    config = json.loads((Path(sae_dir) / "cfg.json").read_text(encoding="utf-8"))
    x = residual.astype(np.float64) - (state["b_dec"] if config.get("apply_b_dec_to_input") else 0.0)
    pre = x @ state["W_enc"] + state["b_enc"]
    cutoff = state.get("threshold", np.zeros(pre.shape[1]))
    return (np.abs(pre - cutoff) < 1e-6 * np.abs(cutoff)).any(axis=0)


def assert_row_equals(
    row: Any, acts: np.ndarray, pools: Sequence[str], rtol: float = 1e-4, left_out: np.ndarray | None = None
) -> None:
    """Check one sparse row (`.indices`, `.values[pool]`) against dense activations of its tokens.

    The index set must be the features that are nonzero in some pooling; values agree to `rtol`, counts exactly. The
    tolerance is for float32 sums in another order; a ReLU feature that is all but cancelled has the rounding error of
    the terms that cancel, so errors of a millionth of the document's largest activation pass too. Features that are
    `left_out` (bool [features], see `undecided`), at most one in fifty, are not compared.
    """
    left_out = np.zeros(acts.shape[1], dtype=bool) if left_out is None else left_out
    assert left_out.mean() <= 0.02
    mine = ~left_out[row.indices]
    atol = 1e-6 * float(acts.max(initial=0))
    dense = {pool: pool_dense(acts, pool) for pool in pools}
    expected = np.flatnonzero(np.any([values != 0 for values in dense.values()], axis=0) & ~left_out)
    np.testing.assert_array_equal(row.indices[mine], expected)
    for pool in pools:
        values = row.values[pool][mine]
        if pool in ("max", "sum", "last"):
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, dense[pool][expected], rtol=rtol, atol=atol)
        else:
            assert values.dtype == np.uint32
            np.testing.assert_array_equal(values, dense[pool][expected])


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two sets of feature indices; two empty sets agree."""
    either = np.union1d(first, second)
    return len(np.intersect1d(first, second)) / len(either) if len(either) else 1.0


def rows_by_name(rows: Any, number: int) -> Mapping[str, Any]:
    """Row `number` of every SAE of an engine result."""
    return {name: sparse.row(number) for name, sparse in rows.saes.items()}
