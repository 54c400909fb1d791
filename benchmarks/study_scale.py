"""Studies at scale: a million documents under a bound of memory, and time against non-zeros.

    python -m benchmarks.study_scale million [--documents 1000000] [--features 200] [--store DIR] [--record]
    python -m benchmarks.study_scale growth [--documents 20000] [--features 125 250 500 1000] [--record]

`million` runs whole studies (`training.study.run_study`, files and bootstrap included) of a synthetic store
(`benchmarks.synthetic_store`): every feature under an L2 probe, and 512 screened features under an L2 and a k-sparse
probe, each in a process of its own whose peak memory (VmHWM) is told. `growth` times the cells of one study, L2 and L1,
on stores that differ in their non-zeros alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.report import aligned, record
from benchmarks.synthetic_store import SAE, make_store

STUDIES: dict[str, dict[str, Any]] = {
    "all features, L2": {"probes": ["logistic_l2"]},
    "512 screened, L2 and k-sparse": {"probes": ["logistic_l2", "k_sparse"], "screen": 512},
}
FOLDS = 3


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study_scale", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("what", choices=["million", "growth"])
    parser.add_argument("--documents", type=int, help="default: 1,000,000 and 20,000")
    parser.add_argument("--features", type=int, nargs="+", help="mean non-zeros a document (200; 125 250 500 1000)")
    parser.add_argument("--store", type=Path, help="million: where the store is or shall be kept (made and deleted)")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results")
    parser.add_argument("--study", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.study:
        print(json.dumps(run_one(args.store, args.study)))
        return 0
    with tempfile.TemporaryDirectory(prefix="study-scale-") as folder:
        rows = million(args, Path(folder)) if args.what == "million" else growth(args, Path(folder))
    print(aligned(rows))
    if args.record:
        described = machine.describe()
        figures = {"machine": described, "command": sys.argv[1:], "rows": rows}
        print(f"recorded in {record(f'study-{args.what}', figures, described)}")
    return 0


def million(args: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """Whole studies, each in its own process."""
    root = args.store or folder / "store"
    if not root.exists():
        make_store(root, args.documents or 1_000_000, (args.features or [200])[0])
    rows: list[tuple[str, ...]] = [("study", "documents", "non-zeros", "s", "peak MB", "macro F1")]
    for name in STUDIES:
        command = [sys.executable, "-m", "benchmarks.study_scale", "million", "--store", str(root), "--study", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        rows.append(
            (
                name,
                f"{found['documents']:,}",
                f"{found['nonzeros']:,}",
                f"{found['seconds']:.0f}",
                f"{found['peak'] / 1e6:,.0f}",
                " ".join(f"{value:.3f}" for value in found["macro_f1"]),
            )
        )
        print(f"{name}: {found['seconds']:.0f} s, {found['peak'] / 1e6:,.0f} MB", file=sys.stderr)
    return rows


def run_one(root: Path, name: str) -> dict[str, Any]:
    """One study in this process."""
    from featurestore import FeatureStore
    from training.spec import study_from_mapping
    from training.study import run_study

    with tempfile.TemporaryDirectory() as out:
        mapping = {
            "store": str(root.resolve()),
            "label": "label",
            "features": [{"sae": SAE, "pool": ["max"]}],
            "split": {"seeds": 1, "folds": FOLDS},
            "out": out,
            **STUDIES[name],
        }
        started = time.perf_counter()
        result = run_study(study_from_mapping(mapping, root.parent))
        seconds = time.perf_counter() - started
    store = FeatureStore.open(str(root))
    nonzeros = sum(X.nnz for X, _ in store.batches())
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {
        "documents": len(store),
        "nonzeros": nonzeros,
        "seconds": seconds,
        "peak": int(status.split("VmHWM:")[1].split()[0]) << 10,
        "macro_f1": [row.macro_f1.value for row in result.summary if row.kind == "sae"],
    }


def growth(args: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """Seconds of a cell against non-zeros."""
    from threadpoolctl import threadpool_limits

    from featurestore import FeatureStore
    from training.documents.split import Split
    from training.methods.matrices import MethodMatrix
    from training.methods.method import Method
    from training.probes.fit import evaluate

    rows: list[tuple[str, ...]] = [("non-zeros", "L2 s", "ns a non-zero", "L1 s", "ns a non-zero")]
    documents = args.documents or 20_000
    for features in [20, *(args.features or [125, 250, 500, 1000])]:  # the first is for the compiler
        root = folder / str(features)
        make_store(root, documents, features, unit=5_000)
        store = FeatureStore.open(str(root))
        label = store.documents().select("label").collect()["label"].to_numpy()
        y = np.isin(label, ["class 0", "class 1"]).astype(np.int64)
        X = store.matrix().X
        split = Split(0, np.random.default_rng(0).permutation(np.arange(len(y)) % 5) - 1)
        took = []
        for probe in ("logistic_l2", "logistic_l1"):
            started = time.perf_counter()
            with threadpool_limits(1):
                evaluate(Method("cell", "sae", probe=probe), MethodMatrix(X), y, 2, [split], n_jobs=machine.n_cores())
            took.append(time.perf_counter() - started)
        if features > 20:
            times = [text for seconds in took for text in (f"{seconds:.1f}", f"{seconds / X.nnz * 1e9:,.0f}")]
            rows.append((f"{X.nnz:,}", *times))
    return rows


if __name__ == "__main__":
    sys.exit(main())
