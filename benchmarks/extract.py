"""From raw text to pooled SAE features on disk: Sparsemill beside what people do today, on one machine.

    python -m benchmarks.extract [--documents 128] [--peers a,b,c,d,ours] [--repeats 3] [--json] [--record]

Counted, for everybody: reading the corpus file, tokenising, the forward pass, the SAE, pooling, and writing. Not
counted: starting Python and Ray, loading model, tokenizer and SAE, building our bundle, and a rehearsal over a few
documents in the same process. (`--peers command` times `sparsemill extract` from start to end, all of that included.)

Each run is a process of its own, one at a time; the peers take turns, round after round, and medians are given. A
content token is a token of a document; BOS and padding are fed by some but are no content, and everybody's rate is over
the same content tokens. `fed` is how many positions went through the model for each of them. `of limit` compares with
the machine's limit (`limit.py`): the operations that content tokens cannot do without, at the highest rate that a
matrix product reaches here. `overlap` is the mean Jaccard index of the features that a peer and ours found in each
document, so that nobody is fast by computing something else.

The head-to-head runs on some documents of the corpus, evenly spaced, because the slow peers are slow; then the fastest
two run on the whole corpus. The peers (`peers/`) say in their modules what they do and why.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import corpus, limit, machine, report
from benchmarks.peers import PEERS, Sae, Setup
from benchmarks.rounds import Case, Runs, run_rounds
from featurestore.errors import SparsemillError

LAYER, WIDTH, MAX_TOKENS = 9, 16_384, 1024
BOTH = ("d", "ours")  # what also runs on the whole corpus


@dataclass(frozen=True)
class Figures:
    """Everything that one command measured."""

    command: list[str]
    machine: dict[str, Any]
    setup: dict[str, Any]
    corpus: dict[str, Any]
    limit: dict[str, Any] | None
    head_to_head: dict[str, report.Row]
    whole: dict[str, report.Row]
    runs: dict[str, list[dict[str, Any]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    try:
        figures = measure(args)
    except SparsemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.record:
        print(report.record("extract", asdict(figures), figures.machine), file=sys.stderr)
    print(json.dumps(asdict(figures), indent=1, default=str) if args.json else shown(figures))
    return 0


def measure(args: argparse.Namespace) -> Figures:
    """Prepare what all peers need, measure the limit, let the peers take turns."""
    described = machine.describe()
    setup = setup_of(args)
    texts = corpus.load_texts(args.corpus)
    some = corpus.evenly_spaced(texts, args.documents)
    lengths = {name: content_tokens(setup, chosen) for name, chosen in (("some", some), ("all", texts))}
    rates = None if args.no_limit else _limits(setup, lengths)
    per_second = {name: rates["tokens_per_second"][name] if rates else None for name in lengths}
    cases = cases_of(args, setup)
    both = {} if args.no_whole else {key: case for key, case in cases.items() if key in BOTH}
    head = run_rounds(cases, args.repeats, some, args.work)
    whole = run_rounds(both, args.repeats, texts, args.work)
    return Figures(
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        machine=described,
        setup=asdict(setup) | {"model": Path(setup.model).name, "saes": [Path(sae.path).name for sae in setup.saes]},
        corpus={
            "name": "Reuters R8, test set" if args.corpus is None else args.corpus.name,
            "documents": {name: len(counts) for name, counts in lengths.items()},
            "content_tokens": {name: sum(counts) for name, counts in lengths.items()},
        },
        limit=rates,
        head_to_head=report.rows_of(head, lengths["some"], per_second["some"]),
        whole=report.rows_of(whole, lengths["all"], per_second["all"]),
        runs={**_results("head_to_head", head), **_results("whole", whole)},
    )


def setup_of(args: argparse.Namespace) -> Setup:
    """Model and SAE, built where they are not in the cache."""
    from benchmarks.weights import MODEL_NAME, model_directory, sae_directory

    model = model_directory()
    sae = args.sae or sae_directory(args.layer, args.width, model)
    return Setup(
        model=str(model),
        model_name=MODEL_NAME,
        saes=(Sae(str(sae), args.layer),),
        max_tokens=args.max_tokens,
        threads=args.threads,
    )


def cases_of(args: argparse.Namespace, setup: Setup) -> dict[str, Case]:
    """The peers asked for, with the batch sizes asked for."""
    batches = {"a": args.batch_a, "a2": args.batch_a, "c": args.batch_c, "d": args.batch_d}
    return {key: Case(key, replace(setup, batch=batches.get(key))) for key in args.peers}


def content_tokens(setup: Setup, texts: Sequence[str]) -> list[int]:
    """Tokens of each document that are fed, BOS left out."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    encoded = tokenizer(list(texts), truncation=True, max_length=setup.max_tokens)["input_ids"]
    return [len(ids) - 1 for ids in encoded]


def _limits(setup: Setup, lengths: dict[str, list[int]]) -> dict[str, Any]:
    """What a token costs, what the machine does, and their quotient."""
    print("  measuring matrix products", file=sys.stderr, flush=True)
    config = limit.read_config(Path(setup.model))
    widths = [(sae.layer, sae_width(Path(sae.path))) for sae in setup.saes]
    rates = limit.measured_rates(config, widths[0][1], setup.threads)
    costs = {name: limit.token_cost(config, widths, counts) for name, counts in lengths.items()}
    return {
        **rates,
        "cost": {name: {**asdict(cost), "total": cost.total} for name, cost in costs.items()},
        "tokens_per_second": {name: rates["best"] / cost.total for name, cost in costs.items()},
    }


def sae_width(sae: Path) -> int:
    """Features of an SAE directory."""
    return int(json.loads((sae / "cfg.json").read_text(encoding="utf-8"))["d_sae"])


def _results(name: str, runs: dict[str, Runs]) -> dict[str, list[dict[str, Any]]]:
    return {f"{name} {key}": peer.results for key, peer in runs.items()}


def shown(figures: Figures) -> str:
    """The page for people."""
    documents, tokens = figures.corpus["documents"], figures.corpus["content_tokens"]
    lines = [
        f"{figures.machine['cpu']}, {figures.machine['cores']} cores ({' '.join(figures.machine['flags'])})",
        f"{figures.setup['model_name']}, {figures.setup['saes'][0]}; {figures.corpus['name']}",
    ]
    if figures.limit:
        cost = figures.limit["cost"]["all"]
        lines += [
            "",
            f"a content token needs {cost['total'] / 1e6:,.0f} M operations: layers {cost['layers'] / 1e6:,.0f}, "
            f"attention {cost['attention'] / 1e6:,.1f}, SAE {cost['sae'] / 1e6:,.1f}",
            *(_best(figures.limit, name) for name in ("one_process", "process_per_core")),
            f"so the limit is {figures.limit['tokens_per_second']['all']:,.0f} content tokens a second",
        ]
    for title, name, rows in (("head to head", "some", figures.head_to_head), ("whole corpus", "all", figures.whole)):
        if rows:
            lines += ["", f"{title}: {documents[name]:,} documents, {tokens[name]:,} content tokens"]
            lines.append(report.table(rows))
    return "\n".join(lines)


def _best(rates: dict[str, Any], name: str) -> str:
    shape, rate = max(rates[name].items(), key=lambda item: item[1])
    return f"{name.replace('_', ' ')}: {rate / 1e9:,.0f} G operations a second at best ({shape})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extract", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", type=int, default=128, help="of the head-to-head (default: 128)")
    parser.add_argument("--peers", type=_keys, default=_keys("a,b,c,d,ours"), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--no-whole", action="store_true", help="leave out the whole corpus")
    parser.add_argument("--no-limit", action="store_true", help="leave out the machine's limit")
    parser.add_argument("--corpus", type=Path, help="a JSONL file with a 'text' in every line, instead of Reuters R8")
    parser.add_argument("--sae", type=Path, help="a directory in sae-lens' format, instead of the benchmark's own SAE")
    parser.add_argument("--layer", type=int, default=LAYER, help=f"that the SAE reads (default: {LAYER})")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the benchmark's SAE (default: {WIDTH})")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help=f"of a document (default: {MAX_TOKENS})")
    parser.add_argument("--threads", type=int, default=machine.n_cores(), help="cores to use (default: all)")
    parser.add_argument("--batch-a", type=int, help="documents in a batch of the reference code")
    parser.add_argument("--batch-c", type=int, help="documents in a batch of interp-embed")
    parser.add_argument("--batch-d", type=int, help="positions in a batch of the careful user")
    parser.add_argument("--work", type=Path, help="where files of the runs go for as long as they last")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/extract-<machine>-<date>.json")
    return parser


def _keys(text: str) -> list[str]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    unknown = [key for key in keys if key not in PEERS]
    if unknown or not keys:
        raise argparse.ArgumentTypeError(f"there is no peer {', '.join(unknown)}; choose of {', '.join(PEERS)}")
    return keys


if __name__ == "__main__":
    sys.exit(main())
