"""Studies at scale: a million documents under a bound of memory, and time against non-zeros.

    python -m benchmarks.study_scale million [--documents 1000000] [--features 200] [--store DIR] [--record]
    python -m benchmarks.study_scale growth [--documents 20000] [--features 125 250 500 1000] [--record]
    python -m benchmarks.study_scale few [--documents 300] [--record]

`million` runs whole studies (`training.study.run_study`, files and bootstrap included) of a synthetic store
(`benchmarks.synthetic_store`): every feature under an L2 probe, and 512 screened features under an L2 and a k-sparse
probe, each in a process of its own whose peak memory (VmHWM) is told. `growth` times the cells of one study, L2 and L1,
on stores that differ in their non-zeros alone. `few` times searches and final L2 models of 20 classes on few documents
and many columns, solved in the span of the documents and in the columns (`training.solvers.span`), in seconds of
processor time, the least of three, each way in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.report import aligned, record
from benchmarks.synthetic_store import SAE, SHIFT, SPREAD, make_store

if TYPE_CHECKING:
    from training.solvers.objective import Paths

STUDIES: dict[str, dict[str, Any]] = {
    "all features, L2": {"probes": ["logistic_l2"]},
    "512 screened, L2 and k-sparse": {"probes": ["logistic_l2", "k_sparse"], "screen": 512},
}
FOLDS = 3
# Columns and mean non-zeros a row of `few`: an SAE's, a pooled 16k SAE's, words of TF-IDF.
FEW = {"SAE 4k": (4096, 200), "SAE 16k": (16_384, 900), "TF-IDF": (30_000, 150)}
FEW_CLASSES, FEW_FOLDS, FEW_TIMES = 20, 5, 3
FEW_C = 10.0  # of the final model


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study_scale", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("what", choices=["million", "growth", "few"])
    parser.add_argument("--documents", type=int, help="default: 1,000,000, 20,000 and 300")
    parser.add_argument("--features", type=int, nargs="+", help="mean non-zeros a document (200; 125 250 500 1000)")
    parser.add_argument("--store", type=Path, help="million: where the store is or shall be kept (made and deleted)")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results")
    parser.add_argument("--study", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.study:
        print(json.dumps(run_one(args.store, args.study)))
        return 0
    with tempfile.TemporaryDirectory(prefix="study-scale-") as folder:
        if args.what == "few":
            rows = few(args.documents or 300)
        else:
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


def few(documents: int) -> list[tuple[str, ...]]:
    """Processor time of L2 on few documents, in the columns and in the span of the rows; how far the answers agree."""
    from threadpoolctl import threadpool_limits

    header = (
        "columns",
        "width",
        "search s",
        "in the span",
        "fit s",
        "in the span",
        "predictions alike",
        "coefficients",
    )
    rows: list[tuple[str, ...]] = [header]
    with threadpool_limits(1):
        _both_ways(few_problem(64, 20, 60), 1)  # for the compiler
        for name, (width, nonzeros) in FEW.items():
            found = _both_ways(few_problem(width, nonzeros, documents), FEW_TIMES)
            rows.append((name, f"{width:,}", *found))
    return rows


def few_problem(width: int, nonzeros: int, documents: int) -> Paths:
    """Folds of random rows with the statistics of `synthetic_store`, of FEW_CLASSES classes as large as one another."""
    from scipy.sparse import csr_matrix

    from training.methods.transformers import column_max
    from training.solvers.objective import Paths

    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(documents) % FEW_CLASSES)
    rate = rng.lognormal(0.0, SPREAD, width) * rng.lognormal(0.0, SHIFT, (FEW_CLASSES, width))
    rate = np.minimum(rate * nonzeros / rate.sum(axis=1, keepdims=True), 0.98)
    values = rng.lognormal(0.0, 0.6, (documents, width)) * rng.lognormal(1.0, 0.8, width)
    X = csr_matrix(((rng.random((documents, width)) < rate[y]) * values).astype(np.float32))
    fit = rng.permutation(np.arange(documents) % FEW_FOLDS)[:, None] != np.arange(FEW_FOLDS)
    scale = np.stack([column_max(X, np.flatnonzero(inside)) for inside in fit.T], axis=1)
    return Paths(X, y, FEW_CLASSES, fit, scale)


def _both_ways(paths: Paths, times: int) -> list[str]:
    """What a search and a fit take in the columns and in the span, and how alike they come out."""
    from training.probes.estimators import L2_TOLERANCE, MAX_ITERATIONS
    from training.probes.logistic_l2 import path_tolerance
    from training.probes.probe import C_GRID
    from training.solvers import l2_path

    def search() -> np.ndarray:
        return l2_path.logistic_paths(paths, C_GRID, [path_tolerance(C) for C in C_GRID], MAX_ITERATIONS)

    def fit() -> np.ndarray:
        return l2_path.logistic_fit(paths.subset(slice(0, 1)), FEW_C, L2_TOLERANCE / FEW_C, MAX_ITERATIONS).coef

    took: dict[tuple[str, bool], float] = {}
    answer: dict[tuple[str, bool], np.ndarray] = {}
    chosen = l2_path.spans
    try:
        for _ in range(times):
            for in_span in (False, True):
                l2_path.spans = lambda *_, way=in_span: way  # type: ignore[assignment, misc]
                for name, work in (("search", search), ("fit", fit)):
                    started = time.process_time()
                    answer[name, in_span] = work()
                    seconds = time.process_time() - started
                    took[name, in_span] = min(seconds, took.get((name, in_span), np.inf))
    finally:
        l2_path.spans = chosen
    alike = (answer["search", False] == answer["search", True]).mean()
    apart = np.abs(answer["fit", False] - answer["fit", True]).max() / np.abs(answer["fit", False]).max()
    seconds = [f"{took[name, way]:.2f}" for name in ("search", "fit") for way in (False, True)]
    return [*seconds, f"{alike:.4%}", f"within {apart:.0e}"]


if __name__ == "__main__":
    sys.exit(main())
