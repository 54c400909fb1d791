"""The machine's limit: what a content token costs in operations, and how many operations the machine does.

The cost counts what cannot be left out: the matrices of layers `0..L`, attention of every content token to what it can
see, and the SAE encoder. It leaves out BOS, padding, norms, activations, tokenising, pooling and writing. The rate is
the best that torch's matrix product reaches here in bfloat16 (float32 where that is faster), over the model's own
shapes and a large square, with all cores in one process and with one process a core: the highest of them all, so no
pipeline built on torch can be above it by more than the noise of measuring.

The operations of a layer are 2 for each weight of its seven matrices, and 4 x heads x head_dim for each token seen.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 0.5
"""Of each measurement; the best of three is taken."""
ROWS = (256, 1024, 4096)
SQUARE = 4096


@dataclass(frozen=True)
class Cost:
    """Operations a content token, by part."""

    layers: float
    attention: float
    sae: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.layers + self.attention + self.sae


def read_config(model: Path) -> dict[str, Any]:
    """`config.json` of a model directory."""
    config: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return config


def layer_matrices(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Name -> (inputs, outputs) of the matrices of one decoder layer of the Gemma family."""
    d_model, d_mlp = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    return {
        "q": (d_model, queries),
        "k": (d_model, keys),
        "v": (d_model, keys),
        "o": (queries, d_model),
        "gate": (d_model, d_mlp),
        "up": (d_model, d_mlp),
        "down": (d_mlp, d_model),
    }


def token_cost(config: Mapping[str, Any], saes: Iterable[tuple[int, int]], lengths: Sequence[int]) -> Cost:
    """Operations that a content token needs, on average over documents.

    Args:
        config: The model's config.
        saes: (layer, d_sae) of each SAE.
        lengths: Content tokens of each document.
    """
    saes = list(saes)
    n_layers = max(layer for layer, _ in saes) + 1
    weights = sum(inputs * outputs for inputs, outputs in layer_matrices(config).values())
    seen = 0.0
    for layer in range(n_layers):
        sliding = config["layer_types"][layer] == "sliding_attention"
        window = config["sliding_window"] if sliding else max(lengths, default=0) + 1
        seen += sum(_seen(length, window) for length in lengths) / max(1, sum(lengths))
    return Cost(
        layers=2.0 * weights * n_layers,
        attention=4.0 * config["num_attention_heads"] * config["head_dim"] * seen,
        sae=sum(2.0 * config["hidden_size"] * d_sae for _, d_sae in saes),
    )


def _seen(length: int, window: int) -> float:
    """Positions seen by all content tokens of a document together: BOS, those before, and the token itself."""
    within = min(length, window - 1)
    return within * (within + 3) / 2 + (length - within) * window


def measured_rates(config: Mapping[str, Any], d_sae: int, threads: int) -> dict[str, Any]:
    """Operations a second of torch's matrix product here.

    Returns:
        `one_process` (all threads) and `process_per_core` -> "dtype rows x inputs x outputs" -> rate; `best`, the
        highest; `best_shape`.
    """
    shapes = {(*matrix, rows) for matrix in layer_matrices(config).values() for rows in ROWS}
    shapes |= {(config["hidden_size"], d_sae, rows) for rows in ROWS} | {(SQUARE, SQUARE, SQUARE)}
    one = _in_processes(sorted(shapes), 1, threads)[0]
    each = _in_processes(sorted(shapes), threads, 1)
    together = {shape: sum(rates[shape] for rates in each) for shape in each[0]}
    best = max((rate, shape) for rates in (one, together) for shape, rate in rates.items())
    return {"one_process": one, "process_per_core": together, "best": best[0], "best_shape": best[1]}


def best_rate(config: Mapping[str, Any]) -> float:
    """Operations a second of one thread of this process, in bfloat16, the best over the model's own matrices."""
    import torch

    rates = []
    with torch.inference_mode():
        for inputs, outputs in set(layer_matrices(config).values()):
            for rows in ROWS:
                x, weight = torch.randn(rows, inputs).bfloat16(), torch.randn(outputs, inputs).bfloat16()
                seconds = _seconds(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight), None)
                rates.append(2.0 * rows * inputs * outputs / seconds)
    return max(rates)


def _in_processes(shapes: Sequence[tuple[int, int, int]], n_processes: int, threads: int) -> list[dict[str, float]]:
    """The rates of processes that measure the same shape at the same time."""
    context = multiprocessing.get_context("spawn")
    answers, barrier = context.SimpleQueue(), context.Barrier(n_processes)
    processes = [context.Process(target=_measure, args=(shapes, threads, barrier, answers)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    rates = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return rates


def _measure(shapes: Sequence[tuple[int, int, int]], threads: int, barrier: Any, answers: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    rates = {}
    with torch.inference_mode():
        for inputs, outputs, rows in shapes:
            for dtype in (torch.bfloat16, torch.float32):
                x = torch.randn(rows, inputs).to(dtype)
                weight = torch.randn(outputs, inputs).to(dtype)
                seconds = _seconds(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight), barrier)
                name = f"{str(dtype).removeprefix('torch.')} {rows} x {inputs} x {outputs}"
                rates[name] = 2.0 * rows * inputs * outputs / seconds
    answers.put(rates)


def _seconds(call: Any, barrier: Any) -> float:
    """Of one call, the best of three rounds; all processes in step, if there are several."""
    call()
    best = float("inf")
    for _ in range(3):
        if barrier is not None:
            barrier.wait()
        begun, n = time.perf_counter(), 0
        while n == 0 or time.perf_counter() - begun < SECONDS / 3:
            call()
            n += 1
        best = min(best, (time.perf_counter() - begun) / n)
    return best
