"""Where the engine's time goes on one core, function by function, beside what its products would take at their best.

    python -m benchmarks.profile [--documents 128] [--json]

The documents of the extraction benchmark go through one `Extractor` with one thread under Python's own profiler, whose
cost is lost among calls of a tenth of a millisecond and more. `least` is the part's operations at the highest rate that
a bfloat16 product of torch reaches in this process; the rest of a part's time is what is not product, and products
below that rate.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import corpus, limit, machine, report
from benchmarks.extract import LAYER, MAX_TOKENS, WIDTH

PARTS = {
    "queries, keys, values": ("gemma.py", "project"),
    "attention": ("attention.py", "attend"),
    "  scores": ("attention.py", "_scores"),
    "behind attention": ("gemma.py", "finish"),
    "  MLP, gate and up": ("cpu_products.py", "gated_gelu"),
    "  back to the residual stream": ("gemma.py", "_into_residual"),
    "  norms": ("gemma.py", "rms_norm"),
    "SAE and pooling": ("pooling.py", "pool_saes"),
    "  prefilter": ("int8_prefilter.py", "surplus"),
    "  float32 products": ("encoder.py", "_products"),
    "putting documents together": ("extractor.py", "_assembled"),
}
"""What is shown -> file and name of the function; indented ones are parts of the one above."""


@dataclass(frozen=True)
class Part:
    """Microseconds a content token: those spent, and those of its operations at the best rate (None: no products)."""

    spent: float
    least: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", type=int, default=128, help="of Reuters R8 (default: 128)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    args = parser.parse_args(argv)
    figures = measure(args.documents)
    print(json.dumps(figures, indent=1, default=report.plain) if args.json else shown(figures))
    return 0


def measure(n_documents: int) -> dict[str, Any]:
    """Parts by name, tokens a second, the rate of products."""
    import torch

    from benchmarks.peers import Sae, Setup
    from benchmarks.peers.ours import job_mapping
    from benchmarks.weights import MODEL_NAME, model_directory, sae_directory
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.engine.extractor import Extractor, ExtractSettings
    from ray_jobs.prepare.build import prepare
    from ray_jobs.spec import job_from_mapping

    torch.set_num_threads(1)
    model = model_directory()
    sae = Sae(str(sae_directory(LAYER, WIDTH, model)), LAYER)
    setup = Setup(str(model), MODEL_NAME, (sae,), MAX_TOKENS, 1)
    mapping = job_mapping(setup, Path("corpus.jsonl"), Path("store"))
    bundle = open_bundle(prepare(job_from_mapping(mapping, Path.cwd())))
    texts = corpus.evenly_spaced(corpus.load_texts(), n_documents)
    extractor = Extractor(bundle, ExtractSettings(max_tokens=MAX_TOKENS, threads=1))
    extractor.extract(texts[:4])
    profiler = cProfile.Profile()
    begun = time.perf_counter()
    rows = profiler.runcall(extractor.extract, texts)
    seconds = time.perf_counter() - begun
    lengths = rows.n_tokens.tolist()
    per_token = 1e6 / sum(lengths)
    spent = {(Path(file).name, name): times[3] for (file, _, name), times in pstats.Stats(profiler).stats.items()}
    config = limit.read_config(model)
    rate = limit.best_rate(config)
    least = _least(config, limit.token_cost(config, [(LAYER, WIDTH)], lengths))
    return {
        "machine": machine.describe(),
        "rate": rate,
        "tokens_per_second": sum(lengths) / seconds,
        "parts": {
            name: Part(spent.get(where, 0.0) * per_token, 1e6 * least[name] / rate if name in least else None)
            for name, where in PARTS.items()
        },
        "whole": Part(seconds * per_token, 1e6 * sum(least[name] for name in least if name[0] != " ") / rate),
    }


def _least(config: dict[str, Any], cost: limit.Cost) -> dict[str, float]:
    """Operations a content token of the parts that have products."""
    matrices = {name: 2.0 * inputs * outputs for name, (inputs, outputs) in limit.layer_matrices(config).items()}
    each = cost.layers / sum(matrices.values())
    return {
        "queries, keys, values": each * (matrices["q"] + matrices["k"] + matrices["v"]),
        "attention": cost.attention,
        "behind attention": each * sum(matrices[name] for name in ("o", "gate", "up", "down")),
        "  MLP, gate and up": each * (matrices["gate"] + matrices["up"]),
        "  back to the residual stream": each * (matrices["o"] + matrices["down"]),
        "SAE and pooling": cost.sae,
    }


def shown(figures: dict[str, Any]) -> str:
    """The table for people."""
    lines: list[tuple[str, ...]] = [("", "us/token", "share", "least")]
    whole: Part = figures["whole"]
    for name, part in [*figures["parts"].items(), ("everything", whole)]:
        least = "" if part.least is None else f"{part.least:.1f}"
        lines.append((name, f"{part.spent:.1f}", f"{part.spent / whole.spent:.1%}", least))
    head = (
        f"{figures['machine']['cpu']}, one core: {figures['tokens_per_second']:,.0f} tokens/s; products at best "
        f"{figures['rate'] / 1e9:,.0f} G operations/s; {whole.least / whole.spent:.1%} of the limit"
    )
    return f"{head}\n{report.aligned(lines)}"


if __name__ == "__main__":
    sys.exit(main())
