"""What planning costs: the one pass over a corpus that hashes every byte and looks at every id.

    python -m benchmarks.planning [--megabytes 400] [--files 8] [--repeats 3] [--json] [--record]

Writes the same texts as Parquet and as JSONL files, and scans each kind as `plan`, `extract` and every resumed run do.
Parquet also with its files hashed one at a time. Files are in the page cache, so storage costs nothing here: the rates
are what processors allow. Medians of the repeats.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine, report
from ray_jobs.corpus import scan
from ray_jobs.spec import CorpusSpec

WORDS = 330  # of six letters a text: some 500 tokens
VOCABULARY = 50_000


def texts(n_bytes: int, seed: int) -> Iterator[str]:
    """Texts of random words, so many bytes in all."""
    dice = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(dice.choices(letters, k=6)) for _ in range(VOCABULARY)]
    done = 0
    while done < n_bytes:
        text = " ".join(dice.choices(vocabulary, k=WORDS))
        done += len(text)
        yield text


def write(directory: Path, n_bytes: int, n_files: int) -> int:
    """Both kinds of files; documents in each kind."""
    documents = 0
    for kind in ("parquet", "jsonl"):
        (directory / kind).mkdir()
    for number in range(n_files):
        rows = [
            {"id": f"d{number:03d}-{row:07d}", "text": text}
            for row, text in enumerate(texts(n_bytes // n_files, number))
        ]
        documents += len(rows)
        pq.write_table(pa.Table.from_pylist(rows), directory / "parquet" / f"{number:03d}.parquet", compression="zstd")
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (directory / "jsonl" / f"{number:03d}.jsonl").write_text(lines, encoding="utf-8")
    return documents


def seconds(directory: Path, kind: str, at_once: int) -> float:
    """Of one scan, with so many Parquet files hashed at a time."""
    corpus = CorpusSpec(path=str(directory / kind / f"*.{kind}"), text="text", id="id")
    before, scan.HASHED_AT_ONCE = scan.HASHED_AT_ONCE, at_once
    try:
        begun = time.perf_counter()
        scan.scan(corpus)
        return time.perf_counter() - begun
    finally:
        scan.HASHED_AT_ONCE = before


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        documents = write(directory, args.megabytes * 10**6, args.files)
        ways = {
            "parquet": ("parquet", scan.HASHED_AT_ONCE),
            "parquet, one at a time": ("parquet", 1),
            "jsonl": ("jsonl", 1),
        }
        size = {
            kind: sum(file.stat().st_size for file in (directory / kind).iterdir()) for kind in ("parquet", "jsonl")
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.repeats):
            for way, (kind, at_once) in ways.items():
                taken[way].append(seconds(directory, kind, at_once))
    figures = {
        "machine": described,
        "command": sys.argv[1:],
        "documents": documents,
        "files": args.files,
        "ways": {
            way: {
                "bytes": size[kind],
                "seconds": taken[way],
                "megabytes_per_second": size[kind] / statistics.median(taken[way]) / 1e6,
                "documents_per_second": documents / statistics.median(taken[way]),
            }
            for way, (kind, _) in ways.items()
        },
    }
    if args.record:
        print(report.record("planning", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown(figures))
    return 0


def shown(figures: Mapping[str, Any]) -> str:
    """For a terminal."""
    lines = [f"{figures['documents']:,} documents in {figures['files']} files"]
    for way, found in figures["ways"].items():
        rates = f"{found['megabytes_per_second']:,.0f} MB/s, {found['documents_per_second']:,.0f} documents/s"
        lines.append(f"  {way:<24} {found['bytes'] / 1e6:,.0f} MB: {rates}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=400, help="of text")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
