"""Reading a store that does not fit in memory: seconds and peak memory of everything a user does with one.

    python -m benchmarks.big_store [--documents 1500000] [--features 1500] [--store DIR] [--json] [--record]

Makes a synthetic store (`benchmarks.synthetic_store`; 4.5 GB for the default, whose 2.25 billion non-zeros pass 2^31),
reads it in every way, and deletes it unless `--store` says where it is to be kept; a store that is there already is
used. Each step runs in a process of its own, so that its peak memory (VmHWM) is its own. What one step counts another
must count, too: the script fails if they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report
from benchmarks.synthetic_store import SAE, make_store
from featurestore import FeatureStore

Step = Callable[[FeatureStore], dict[str, Any]]
SELECTED = 5_000
FEATURES_SHOWN = (0, 5_000, 16_000)
WHOLE_ROWS = 100_000  # a matrix that fits beside other work: 1.2 GB
STEPS_ON_ONE_CORE = ("batches_one_core", "matrix_one_core")


def batches(store: FeatureStore) -> dict[str, Any]:
    """Every row once."""
    rows = nnz = 0
    for X, _ in store.batches():
        rows, nnz = rows + X.shape[0], nnz + X.nnz
    return {"rows": rows, "nnz": nnz}


def whole_matrix(store: FeatureStore) -> dict[str, Any]:
    """All features of the first documents, as one matrix."""
    X, _ = store.matrix(rows=np.arange(len(store)) < WHOLE_ROWS)
    return {"rows": X.shape[0], "nnz": X.nnz}


def part_of_matrix(store: FeatureStore) -> dict[str, Any]:
    """5,000 features of every tenth document: a row filter that no row group escapes."""
    import polars as pl

    chosen = np.sort(np.random.default_rng(0).choice(store.sae().d_sae, SELECTED, replace=False))
    X, _ = store.matrix(rows=pl.col("doc_id").str.ends_with("7"), features=chosen)
    return {"rows": X.shape[0], "columns": X.shape[1], "nnz": X.nnz}


def statistics(store: FeatureStore) -> dict[str, Any]:
    """All statistics, with sums by class."""
    found = store.statistics(labels="label")
    counted = int(found.document_frequency.sum())
    return {"rows": found.n_documents, "nnz": counted, "classes": len(found.classes)}


def build_index(store: FeatureStore) -> dict[str, Any]:
    """The index that `show --feature` reads."""
    from featurestore.index.feature_index import build_index, index_path, keep_index

    keep_index(store, SAE, "max", build_index(store, SAE, "max"))
    return {"index_bytes": index_path(store, SAE, "max").stat().st_size}


def take(store: FeatureStore) -> dict[str, Any]:
    """Twenty documents by id, from all over the store."""
    ids = [f"doc-{i:08d}" for i in np.random.default_rng(0).choice(len(store), 20, replace=False)]
    X, found = store.take(ids)
    assert found.tolist() == ids
    return {"rows": X.shape[0], "nnz": X.nnz}


STEPS: dict[str, Step] = {
    "batches": batches,
    "batches_one_core": batches,
    "matrix_one_core": whole_matrix,
    "matrix_5000_features_of_a_tenth": part_of_matrix,
    "statistics_with_classes": statistics,
    "take_20_ids": take,
    "index": build_index,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    if args.step:
        print(json.dumps(run_step(args.step, args.store)))
        return 0
    described = machine.describe()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.store or Path(scratch) / "store"
        os.environ["SPARSEMILL_CACHE"] = f"{scratch}/cache"
        made = None
        if not (root / "manifest.json").exists():
            begun = time.perf_counter()
            make_store(root, args.documents, args.features)
            made = time.perf_counter() - begun
        steps = {name: _child(name, root) for name in args.only or STEPS}
        shows = [_show(root, feature) for feature in FEATURES_SHOWN] if "index" in steps else []
        store = FeatureStore.open(str(root))
        about = {"documents": len(store), "bytes": store.status().bytes, "seconds_to_make": made}
    counts = {step["nnz"] for name, step in steps.items() if name.startswith(("batches", "statistics"))}
    if len(counts) > 1:
        print(f"error: the steps do not count the same non-zeros: {sorted(counts)}", file=sys.stderr)
        return 1
    figures = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": described, "store": about, "steps": steps, "show_feature_seconds": shows,
    }  # fmt: skip
    if args.record:
        print(report.record("big-store", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1, default=report.plain) if args.json else shown(figures))
    return 0


def run_step(name: str, root: Path) -> dict[str, Any]:
    """One step in this process: seconds to open and to run, of the processor too, and the process' peak memory.

    System time is mostly that of memory which the process has for the first time: the kernel zeroes it.
    """
    import polars  # noqa: F401  (imported before the clock starts: what is measured is reading)
    import pyarrow as pa
    import scipy.sparse  # noqa: F401

    if name in STEPS_ON_ONE_CORE:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        pa.set_cpu_count(1)
    begun = time.perf_counter()
    store = FeatureStore.open(str(root))
    opened = time.perf_counter()
    before = os.times()
    facts = STEPS[name](store)
    seconds, after = time.perf_counter() - opened, os.times()
    spent = {"user_seconds": after.user - before.user, "system_seconds": after.system - before.system}
    return {"open_seconds": opened - begun, "seconds": seconds, **spent, "peak_bytes": _peak(), **facts}


def shown(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines: list[tuple[str, ...]] = [
        ("", "open s", "s", "user s", "system s", "peak MB", "M non-zeros", "M non-zeros/user s")
    ]
    for name, step in figures["steps"].items():
        nnz = step.get("nnz")
        lines.append(
            (
                name,
                f"{step['open_seconds']:.3f}",
                f"{step['seconds']:.2f}",
                f"{step['user_seconds']:.2f}",
                f"{step['system_seconds']:.2f}",
                f"{step['peak_bytes'] / 1e6:,.0f}",
                f"{nnz / 1e6:,.1f}" if nnz else "-",
                f"{nnz / 1e6 / step['user_seconds']:.1f}" if nnz else "-",
            )
        )
    shows = ", ".join(f"{seconds:.2f}" for seconds in figures["show_feature_seconds"]) or "-"
    store = figures["store"]
    made = "" if store["seconds_to_make"] is None else f", made in {store['seconds_to_make']:.0f} s"
    head = f"{store['documents']:,} documents, {store['bytes']:,} bytes{made}"
    return f"{head}\n{report.aligned(lines)}\nshow --feature, a process each: {shows} s"


def _child(name: str, root: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.big_store", "--step", name, "--store", str(root)]
    print(f"  {name}", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _show(root: Path, feature: int) -> float:
    command = [sys.executable, "-m", "sparsemill", "show", str(root), "--feature", f"{SAE}:{feature}", "--json"]
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - begun
    answer = json.loads(done.stdout)
    if answer["source"] != "index" or len(answer["top"]) != min(10, answer["n_documents"]):
        raise RuntimeError(f"show did not answer from the index: {answer}")
    return seconds


def _peak() -> int:
    """Bytes that this process had in memory at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.big_store", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", type=int, default=1_500_000)
    parser.add_argument("--features", type=int, default=1_500, help="mean non-zeros a document (default: 1500)")
    parser.add_argument("--store", type=Path, help="where the store is or shall be kept (default: made and deleted)")
    parser.add_argument("--only", nargs="+", choices=STEPS, help="these steps alone")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/big-store-*.json")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
