"""How our extraction scales: with the layers and SAEs of a job, and with the width of an SAE.

    python -m benchmarks.scaling layers [--documents 128] [--repeats 3] [--json] [--record]
    python -m benchmarks.scaling width  [--documents 8]   [--repeats 3] [--json] [--record]

`layers`: three layers with two SAEs each (4,096 and 16,384 features) in one job, beside the deepest layer alone with
one of 16,384, with as many workers as cores. `width`: SAEs of 16,384, 65,536 and 262,144 features over documents of
2,000 tokens, with one worker of one thread; memory is the most that the worker's process had. What is counted is as in
`extract.py`; operations are those of `limit.py`. A job scales well if its time grows no faster than its operations.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import corpus, limit, machine, report
from benchmarks.extract import LAYER, content_tokens, sae_width
from benchmarks.peers import Sae, Setup
from benchmarks.rounds import Case, Runs, run_rounds
from featurestore.errors import SparsemillError

LAYERS, LAYER_WIDTHS = (4, 9, 14), (4_096, 16_384)
WIDTHS = (16_384, 65_536, 262_144)
LONG = 2_000


@dataclass(frozen=True)
class Step:
    """One job's figures; ratios are to the first job.

    Attributes:
        tokens_per_second: Content tokens, median of the runs.
        core_seconds_per_token: Workers x seconds / content tokens.
        operations_per_token: That a content token cannot do without.
        time_ratio: Of seconds.
        operations_ratio: Of operations.
        worker_peak_rss: Bytes.
        bundle_bytes: Size of the bundle.
    """

    tokens_per_second: float
    core_seconds_per_token: float
    operations_per_token: float
    time_ratio: float
    operations_ratio: float
    worker_peak_rss: int
    bundle_bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    try:
        setup = _setup(args)
        cases, texts = _WHAT[args.what](args, setup)
        steps = steps_of(cases, run_rounds(cases, args.repeats, texts, args.work), texts)
    except SparsemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    figures = {"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "machine": described, "steps": steps}
    if args.record:
        print(report.record(f"scaling-{args.what}", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1, default=report.plain) if args.json else shown(steps))
    return 0


def layer_cases(args: argparse.Namespace, setup: Setup) -> tuple[dict[str, Case], list[str]]:
    """The deepest layer alone, and everything in one job."""
    saes = [_sae(setup, layer, width) for layer in LAYERS for width in LAYER_WIDTHS]
    some = corpus.evenly_spaced(corpus.load_texts(args.corpus), args.documents or 128)
    return {
        f"layer {LAYERS[-1]}, one SAE": Case("ours", replace(setup, saes=(saes[-1],))),
        f"layers {', '.join(map(str, LAYERS))}, {len(saes)} SAEs": Case("ours", replace(setup, saes=tuple(saes))),
    }, some


def width_cases(args: argparse.Namespace, setup: Setup) -> tuple[dict[str, Case], list[str]]:
    """SAEs of growing width over long documents."""
    setup = replace(setup, threads=1, max_tokens=LONG + 1)
    texts = corpus.load_texts(args.corpus)
    lengths = content_tokens(replace(setup, max_tokens=2**20), texts)
    documents = corpus.long_documents(texts, lengths, LONG, args.documents or 8)
    cases = {f"{width:,} features": Case("ours", replace(setup, saes=(_sae(setup, LAYER, width),))) for width in WIDTHS}
    return cases, documents


def steps_of(cases: Mapping[str, Case], runs: Mapping[str, Runs], texts: Sequence[str]) -> dict[str, Step]:
    """Figures of all jobs."""
    steps: dict[str, Step] = {}
    for name, case in cases.items():
        setup, seconds, last = case.setup, runs[name].seconds, runs[name].results[-1]
        lengths = content_tokens(setup, texts)
        tokens = sum(lengths)
        widths = [(sae.layer, sae_width(Path(sae.path))) for sae in setup.saes]
        operations = limit.token_cost(limit.read_config(Path(setup.model)), widths, lengths).total
        first = next(iter(steps.values()), None)
        steps[name] = Step(
            tokens_per_second=tokens / seconds,
            core_seconds_per_token=setup.threads * seconds / tokens,
            operations_per_token=operations,
            time_ratio=first.tokens_per_second * seconds / tokens if first else 1.0,
            operations_ratio=operations / first.operations_per_token if first else 1.0,
            worker_peak_rss=last["worker_peak_rss"],
            bundle_bytes=last["bundle_bytes"],
        )
    return steps


def shown(steps: Mapping[str, Step]) -> str:
    """The figures for people."""
    lines: list[tuple[str, ...]] = [
        ("", "tokens/s", "core ms/token", "M operations", "time", "operations", "worker MB", "bundle MB")
    ]
    for name, step in steps.items():
        lines.append(
            (
                name,
                f"{step.tokens_per_second:,.0f}",
                f"{1000 * step.core_seconds_per_token:.3f}",
                f"{step.operations_per_token / 1e6:,.0f}",
                f"{step.time_ratio:.2f} x",
                f"{step.operations_ratio:.2f} x",
                f"{step.worker_peak_rss / 1e6:,.0f}",
                f"{step.bundle_bytes / 1e6:,.0f}",
            )
        )
    return report.aligned(lines)


def _setup(args: argparse.Namespace) -> Setup:
    from benchmarks.weights import MODEL_NAME, model_directory

    return Setup(str(model_directory()), MODEL_NAME, (), args.max_tokens, args.threads)


def _sae(setup: Setup, layer: int, width: int) -> Sae:
    from benchmarks.weights import sae_directory

    print(f"  SAE of layer {layer}, {width:,} features", file=sys.stderr, flush=True)
    return Sae(str(sae_directory(layer, width, Path(setup.model))), layer)


_Cases = Callable[[argparse.Namespace, Setup], tuple[dict[str, Case], list[str]]]
_WHAT: dict[str, _Cases] = {"layers": layer_cases, "width": width_cases}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=_WHAT)
    parser.add_argument("--documents", type=int, help="default: 128 for layers, 8 for width")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--corpus", type=Path, help="a JSONL file with a 'text' in every line, instead of Reuters R8")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of a document of `layers` (default: 1024)")
    parser.add_argument("--threads", type=int, default=machine.n_cores(), help="workers of `layers` (default: cores)")
    parser.add_argument("--work", type=Path, help="where files of the runs go for as long as they last")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/scaling-*.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
