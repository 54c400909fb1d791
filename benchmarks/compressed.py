"""What it costs to read a corpus in one compressed file by units, beside reading it once from start to end.

    python -m benchmarks.compressed [--rows 1000000] [--units 200] [--repeats 3] [--json] [--record]

Writes a million short documents as one `.jsonl.gz` and one `.jsonl.zst`, scans each as every run does, and reads it
twice with the code of a worker: as a single slice, and as 200 units of one worker whose texts are kept decompressed in
an empty cache. How long it takes without that, each unit from the start of the file, is taken from a tenth of the
units, evenly spaced. Files are in the page cache; medians of the repeats, and the ratio within each repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks import machine, report
from ray_jobs.corpus.read import read_rows
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.slices import Slice, slices
from ray_jobs.corpus.spill import Spill
from ray_jobs.spec import CorpusSpec

WORDS = 40  # of six letters a document: a post or a review
VOCABULARY = 50_000
SAMPLED = 10  # each tenth unit from the start of the file


def lines(rows: int) -> Iterator[bytes]:
    """JSON lines with an id and a text of random words."""
    dice = random.Random(0)
    vocabulary = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(VOCABULARY)]
    for row in range(rows):
        text = " ".join(dice.choices(vocabulary, k=WORDS))
        yield f'{{"id": "d{row}", "text": "{text}"}}\n'.encode()


def write(directory: Path, rows: int) -> dict[str, Path]:
    """The same lines in both kinds of files."""
    paths = {"gzip": directory / "corpus.jsonl.gz", "zstd": directory / "corpus.jsonl.zst"}
    with (
        pa.CompressedOutputStream(str(paths["gzip"]), "gzip") as as_gzip,
        pa.CompressedOutputStream(str(paths["zstd"]), "zstd") as as_zstd,
    ):
        for line in lines(rows):
            as_gzip.write(line)
            as_zstd.write(line)
    return paths


def seconds(corpus: CorpusSpec, units: Sequence[tuple[Slice, ...]], spill: Spill | None) -> float:
    """Of reading these units one after the other, as a worker does."""
    begun = time.perf_counter()
    for unit in units:
        rows = read_rows(unit, corpus, {}, spill)
        assert not any(rows.error)
    return time.perf_counter() - begun


def measure(path: Path, n_units: int, repeats: int) -> dict[str, Any]:
    """One kind of file."""
    corpus = CorpusSpec(path=str(path), id="id")
    scanned = scan(corpus)
    bounds = [scanned.rows * i // n_units for i in range(n_units + 1)]
    units = [slices(scanned, start, stop) for start, stop in pairwise(bounds)]
    whole = [slices(scanned, 0, scanned.rows)]
    one_pass, by_units, ratios = [], [], []
    for number in range(repeats):
        spill = Spill(f"benchmark-{number}")
        one_pass.append(seconds(corpus, whole, None))
        by_units.append(seconds(corpus, units, spill))
        ratios.append(by_units[-1] / one_pass[-1])
        assert not spill.refused, spill.refused
        spill.close()
    return {
        "bytes": path.stat().st_size,
        "text_bytes": scanned.files[0].text_bytes,
        "seconds_one_pass": one_pass,
        "seconds_by_units": by_units,
        "ratios": ratios,
        "seconds_from_start_estimated": seconds(corpus, units[SAMPLED // 2 :: SAMPLED], None) * SAMPLED,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    with tempfile.TemporaryDirectory() as name:
        os.environ["SPARSEMILL_CACHE"] = f"{name}/cache"
        found = {kind: measure(path, args.units, args.repeats) for kind, path in write(Path(name), args.rows).items()}
    figures = {"machine": described, "command": sys.argv[1:], "rows": args.rows, "units": args.units, "files": found}
    if args.record:
        print(report.record("compressed", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown(figures))
    return 0


def shown(figures: Mapping[str, Any]) -> str:
    """For a terminal."""
    out = [f"{figures['rows']:,} lines in one file, {figures['units']:,} units"]
    for kind, found in figures["files"].items():
        one, units = (statistics.median(found[f"seconds_{way}"]) for way in ("one_pass", "by_units"))
        out.append(
            f"  {kind}: one pass {one:.1f} s, by units {units:.1f} s, {statistics.median(found['ratios']):.2f} times; "
            f"each unit from the start about {found['seconds_from_start_estimated']:,.0f} s"
        )
    return "\n".join(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compressed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
