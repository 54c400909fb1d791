"""What it costs to look for near-duplicate texts, with and without a footer that all of them share.

    python -m benchmarks.near_duplicates [--texts 1000000] [--kinds without,footer] [--json] [--record]

Each kind of corpus is made and searched in a process of its own, whose memory is that of the interpreter, the texts and
the search; the compiled loops are warm, and what is short is repeated. Further kinds are such as a search can choke on:
`own` has as many words as `footer` and shares none, `same` is one auto-reply over and over, `template` fills small
slots of eight prompts, `straddle` has pairs just above and below the threshold everywhere, `words` are single words,
`cjk` is without spaces, `long` has a hundredth of the texts at a hundred times their length.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import machine, report

WORDS, FOOTER = 40, 60  # of a text and of the footer
VOCABULARY = 50_000
REPEATS, ENOUGH = 9, 10.0  # the fastest of so many counts, or of fewer when they take more seconds than that


def corpora(n: int) -> dict[str, Callable[[], list[str]]]:
    """Kind -> what makes its texts."""
    dice = random.Random(0)
    vocabulary = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(3, 9))) for _ in range(VOCABULARY)]

    def words(k: int) -> str:
        return " ".join(dice.choices(vocabulary, k=k))

    def prompts(length: int, slot: int, templates: int) -> list[str]:
        frames = [(words(length // 2), words(length - length // 2)) for _ in range(templates)]
        return [f"{before} {words(slot)} {after}" for before, after in (dice.choice(frames) for _ in range(n))]

    def footers() -> list[str]:
        footer = words(FOOTER)
        return [f"{words(WORDS)}. {footer}" for _ in range(n)]

    return {
        "without": lambda: [words(WORDS) for _ in range(n)],
        "footer": footers,
        "own": lambda: [words(WORDS + FOOTER) for _ in range(n)],
        "same": lambda: ["Thank you for your message. I am out of the office until Monday."] * n,
        "template": lambda: prompts(57, 3, 8),
        "straddle": lambda: prompts(53, 7, 8),
        "words": lambda: [words(1) + str(dice.randrange(n)) for _ in range(n)],
        "cjk": lambda: ["".join(chr(dice.randrange(0x4E00, 0x9FA5)) for _ in range(WORDS)) for _ in range(n)],
        "long": lambda: [words(WORDS * 100) for _ in range(max(n // 100, 1))],
    }


def measure(kind: str, n: int) -> dict[str, Any]:
    """One kind, in this process."""
    from training.documents.near_duplicates import near_duplicates

    texts = corpora(n)[kind]()
    near_duplicates([*texts[:100], "学"])  # compiles, and makes the table of letters
    before = _peak()
    seconds, cpu_seconds = [], []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH:
        begun, busy = time.perf_counter(), time.process_time()
        clusters = near_duplicates(texts)
        seconds.append(time.perf_counter() - begun)
        cpu_seconds.append(time.process_time() - busy)
    return {
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "clusters": int(clusters.max()) + 1,
        "seconds": min(seconds),
        "cpu_seconds": min(cpu_seconds),  # of one thread: what the seconds would be on an idle machine
        "repeats": len(seconds),
        "bytes_before": before,
        "bytes_peak": _peak(),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    if args.child:
        print(json.dumps(measure(args.kinds, args.texts)))
        return 0
    described, found = machine.describe(), {}
    for kind in args.kinds.split(","):
        command = [sys.executable, "-m", "benchmarks.near_duplicates", "--child"]
        command += ["--kinds", kind, "--texts", str(args.texts)]
        found[kind] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if not args.json:
            print(shown(kind, found[kind]), flush=True)
    figures = {"machine": described, "command": sys.argv[1:], "kinds": found}
    if args.record:
        print(report.record(f"near-duplicates-{args.texts}", figures, described), file=sys.stderr)
    if args.json:
        print(json.dumps(figures, indent=1))
    elif {"without", "footer"} <= set(found):
        times = found["footer"]["cpu_seconds"] / found["without"]["cpu_seconds"]
        memory = found["footer"]["bytes_peak"] / found["without"]["bytes_peak"]
        print(f"with the footer {times:.2f} times the time of the processor, {memory:.2f} times the memory")
    return 0


def shown(kind: str, found: Mapping[str, Any]) -> str:
    """For a terminal."""
    return (
        f"{kind:>9}: {found['texts']:,} texts of {found['characters'] / found['texts']:,.0f} characters, "
        f"{found['clusters']:,} clusters: {found['seconds']:,.1f} s ({found['cpu_seconds']:,.1f} s of the processor), "
        f"peak {found['bytes_peak'] / 1e9:.2f} GB, {found['bytes_before'] / 1e9:.2f} of it texts and interpreter"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.near_duplicates", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--kinds", default="without,footer", help=f"any of {','.join(corpora(0))}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
