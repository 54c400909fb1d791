"""What the tiling of FlexAttention is worth: one layer's attention of Gemma 2 2B on packed documents.

    python -m benchmarks.gpu_attention          # one GPU, half a minute
    python -m benchmarks.gpu_attention --tiny   # few tokens, also on a CPU: does it run?

Batches as the engine fills them, of its longest, median and shortest documents (`gpu.py`'s lengths); milliseconds, the
median of ten calls. The first tiling is torch's own choice, which the engine takes. A GPU without the memory for a
tiling says so in its row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_setup, report
from benchmarks.arithmetic import GEMMA_2_2B
from benchmarks.gpu import MEDIAN, SIGMA, device_name, first_line
from ray_jobs.backbone.attention import block_mask, moved, softcapped

SOFTCAP = 50.0
REPEATS = 10
TILINGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
    {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 8, "num_stages": 3},
    {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2},
    {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "num_stages": 1},
    {"USE_TMA": True},
    {"ROWS_GUARANTEED_SAFE": True},
)


def batches(n_tokens: int) -> dict[str, list[int]]:
    """Lengths of documents that fill a batch, what is left over being one more."""
    documents = gpu_setup.documents(4_000, MEDIAN, SIGMA, min(1_024, n_tokens // 2), 256_000)
    lengths = sorted((len(document.ids) + 1 for document in documents), reverse=True)

    def filled(candidates: Sequence[int]) -> list[int]:
        ends = np.cumsum(candidates)
        kept = list(candidates[: int(np.searchsorted(ends, n_tokens, side="right"))])
        left = n_tokens - sum(kept)
        return [*kept, left] if left else kept

    return {
        "longest": filled(lengths),
        "median": filled(lengths[len(lengths) // 2 :]),
        "shortest": filled(lengths[::-1]),
    }


def milliseconds(call: Callable[[], Any], device: str) -> float:
    """Median of some calls after three of them."""
    taken = []
    for repeat in range(-3, REPEATS):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat >= 0:
            taken.append(1000 * (time.perf_counter() - start))
    return float(np.median(taken))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tiny", action="store_true", help="few tokens; runs on a CPU too")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available() and not args.tiny:
        print("error: no GPU here; --tiny runs a few tokens on the CPU", file=sys.stderr)
        return 2
    from torch.nn.attention.flex_attention import flex_attention

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n_tokens = 256 if args.tiny else 16_384
    by_length = batches(n_tokens)
    shape, dtype = GEMMA_2_2B, torch.bfloat16 if device == "cuda" else torch.float32
    generator = torch.Generator(device).manual_seed(0)
    q_1HNE, k_1KNE, v_1KNE = (
        torch.randn(n_tokens, heads, shape.head_dim, device=device, dtype=dtype, generator=generator).transpose(0, 1)[
            None
        ]
        for heads in (shape.n_heads, shape.n_kv_heads, shape.n_kv_heads)
    )
    lines: list[tuple[str, ...]] = [("tiling", *by_length, "off")]
    own: dict[str, torch.Tensor] = {}
    for tiling in TILINGS if device == "cuda" else TILINGS[:1]:
        torch._dynamo.reset()
        attend = torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention
        cells, off = [], 0.0
        try:
            for name, lengths in by_length.items():
                starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths).astype(np.int32)
                mask = block_mask(starts, moved(starts, torch.device(device)), None)

                def call(attend: Any = attend, mask: Any = mask, tiling: Mapping[str, Any] = tiling) -> torch.Tensor:
                    with torch.inference_mode():
                        found: torch.Tensor = attend(
                            q_1HNE,
                            k_1KNE,
                            v_1KNE,
                            score_mod=softcapped(SOFTCAP),
                            block_mask=mask,
                            scale=shape.head_dim**-0.5,
                            enable_gqa=True,
                            kernel_options=dict(tiling) or None,
                        )
                        return found

                cells.append(f"{milliseconds(call, device):.3f}")
                found = call().float()
                off = max(off, float((found - own.setdefault(name, found)).norm() / own[name].norm()))
        except Exception as error:  # noqa: BLE001 (it becomes the row's error)
            lines.append((f"{_named(tiling)}: {first_line(error)}"[:100], *[""] * (len(by_length) + 1)))
            continue
        lines.append((_named(tiling), *cells, f"{off:.1e}"))
    print(
        f"{device_name(device)}, {n_tokens:,} tokens, {shape.n_heads} heads of {shape.head_dim}; milliseconds a layer"
    )
    print(report.aligned(lines))
    return 0


def _named(tiling: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in tiling.items()) or "torch's own"


if __name__ == "__main__":
    sys.exit(main())
