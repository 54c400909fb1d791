"""What it saves to compute only the features that a trained model reads.

    python -m benchmarks.cut_encoder [--features 50] [--d-sae 65536] [--d-in 2304] [--repeats 5] [--json] [--record]

Encodes and pools (`max`) the same tokens with a whole JumpReLU SAE of random rows, of the shape that Gemma Scope has
for Gemma 2 2B, and with the same cut to some of its features, in turns, on one thread, by the route that this CPU
takes. Thresholds let 80 features fire on a token. What the cut one gives must be what the whole one gives of these
features. Opening counts apart: a whole encoder of a CPU that screens in 8 bits is rounded first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import machine, report

ACTIVE = 80  # of the features on a token, as trained SAEs of this width have
TOKENS = 2_048  # of one block, as the engine takes them


def measure(d_in: int, d_sae: int, n_features: int, repeats: int) -> dict[str, Any]:
    """Seconds of both, and whether they agree."""
    import torch
    from scipy.special import ndtri

    from ray_jobs.backbone.bundle import SaeInfo
    from ray_jobs.backbone.sae_families import SaeWeights
    from ray_jobs.engine.encoder import SaeEncoder
    from ray_jobs.engine.pooling import pool_saes

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    W_FD = (torch.randn(d_sae, d_in, generator=generator) / d_in**0.5).bfloat16()
    cutoff = float(-ndtri(ACTIVE / d_sae))
    weights = SaeWeights(W_FD, torch.zeros(d_sae), torch.full((d_sae,), cutoff), None, torch.zeros(d_in))
    info = SaeInfo("s", 0, "resid_post", d_in, d_sae, "jumprelu", False, {"path": "/sae"}, (), ())
    wanted = np.sort(np.random.default_rng(0).choice(d_sae, n_features, replace=False)).astype(np.int64)
    x_ND = torch.randn(TOKENS, d_in, generator=generator)
    lengths = np.full(16, TOKENS // 16, dtype=np.int64)
    opened: dict[str, float] = {}
    encoders = {}
    for name, features in (("whole", None), ("cut", wanted)):
        opened[name], encoders[name] = _timed(lambda features=features: SaeEncoder.of(info, weights, None, features))
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    rows: dict[str, Any] = {}
    for repeat in range(repeats + 1):  # the first warms up
        for name, encoder in encoders.items():
            took, rows[name] = _timed(lambda encoder=encoder: pool_saes([encoder], x_ND, lengths, ("max",))["s"])
            seconds[name] += [took] if repeat else []
    kept = np.isin(rows["whole"].indices, wanted)
    assert np.array_equal(rows["cut"].indices, rows["whole"].indices[kept])
    np.testing.assert_allclose(rows["cut"].values["max"], rows["whole"].values["max"][kept], rtol=1e-5)
    ratios = [whole / cut for whole, cut in zip(seconds["whole"], seconds["cut"], strict=True)]
    return {
        "d_in": d_in,
        "d_sae": d_sae,
        "features": n_features,
        "tokens": TOKENS,
        "route": encoders["whole"].route,
        "seconds_open": opened,
        "seconds": seconds,
        "times_faster": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }


def _timed(do: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = do()
    return time.perf_counter() - begun, result


def shown(found: Mapping[str, Any]) -> str:
    """For a terminal."""
    whole, cut = (statistics.median(found["seconds"][name]) for name in ("whole", "cut"))
    return (
        f"{found['features']} of {found['d_sae']:,} features ({found['route']}): {found['tokens'] / cut:,.0f} tokens a "
        f"second beside {found['tokens'] / whole:,.0f}, {found['times_faster']['median']:.0f} times as fast"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    found = measure(args.d_in, args.d_sae, args.features, args.repeats)
    figures = {"machine": described, "command": sys.argv[1:], **found}
    if args.record:
        print(report.record("cut-encoder", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown(figures))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cut_encoder", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--d-sae", type=int, default=65_536)
    parser.add_argument("--d-in", type=int, default=2_304)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
