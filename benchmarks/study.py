"""A study's grid beside scikit-learn's GridSearchCV as its documentation teaches it, on the same matrices and folds.

The grid is poolings x binarisings x {L2, L1} x 10 values of C x 5 folds, on the store that `benchmarks.study_stores
benchmark` makes: 20,000 real documents (HateCheck in four languages and Reuters R8, the first 32 tokens of each) and
16,384 features of an SAE with random directions, about 880 of them in a document. The question is "hateful or not".

`python -m benchmarks.study --store DIR/benchmark` runs ours and the peer, `--sides` others; `--documents`, `--pools`,
`--thresholds` make it smaller, and the table says at which size it ran. Nothing is extrapolated. Each side runs in a
process of its own:

ours    what a study does: `training.probes.fit.evaluate` on each cell, the refit of the chosen C included
peer    `GridSearchCV(make_pipeline(MaxAbsScaler(), LogisticRegression(...)), {"C": ...}, cv=the same folds,
        scoring="f1_macro", n_jobs=all cores)`, lbfgs for L2 and saga for L1, everything else at its default
optimum the same, with solvers that run until they are there: lbfgs with tol=1e-7, liblinear with tol=1e-6 for L1

Memory is counted from where a side stands after a first, tiny fit, when its libraries and compiled loops are loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.report import aligned, record

C_GRID = tuple(float(c) for c in 10.0 ** np.linspace(-2, 2, 10))
FOLDS = 5
INTERCEPT_SCALING = 100.0  # of liblinear, which penalises the intercept too: this makes it a hundredth of any other
SIDES = ("ours", "peer", "optimum")
PENALTIES = {"logistic_l2": "L2", "logistic_l1": "L1"}


def main(argv: list[str] | None = None) -> int:
    """Run both sides and print how they compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.split("\n")[0])
    parser.add_argument("--store", required=True, help="made by `python -m benchmarks.study_stores benchmark`")
    parser.add_argument("--documents", type=int, default=20_000, help="evenly spaced; all by default")
    parser.add_argument("--pools", nargs="+", default=["max", "sum", "count"])
    parser.add_argument(
        "--thresholds", nargs="+", default=["none", "1", "10"], help="binarisings; none keeps the values"
    )
    parser.add_argument("--sides", nargs="+", default=SIDES[:2], choices=SIDES)
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        args.result.write_text(json.dumps(run_side(args)), encoding="utf-8")
        return 0
    found = {side: _child(side, args) for side in args.sides}
    print(_table(found, args))
    if args.record:
        described = machine.describe()
        figures = {"machine": described, "arguments": {k: v for k, v in vars(args).items() if k != "result"}, **found}
        print(f"recorded in {record('study', figures, described)}")
    return 0


def run_side(args: argparse.Namespace) -> dict[str, Any]:
    """One side over all cells, in this process."""
    from featurestore import FeatureStore

    store = FeatureStore.open(args.store)
    label = store.documents().select("label").collect()["label"]
    y = (label == "hateful").to_numpy().astype(np.int64)
    rows = np.linspace(0, len(y) - 1, min(args.documents, len(y))).astype(int)
    fold = np.random.default_rng(0).permutation(np.arange(len(rows)) % FOLDS)
    y = y[rows]
    taken = np.isin(np.arange(len(label)), rows)
    cells: dict[str, Any] = {}
    seconds: dict[str, float] = dict.fromkeys(PENALTIES.values(), 0.0)
    seconds["load"] = 0.0
    matrix_bytes = 0
    _warm_up(args.side, store)
    before = _peak_bytes()
    nonzeros = 0
    for pool in args.pools:
        for threshold in args.thresholds:
            X = None
            started = time.perf_counter()
            binarize = None if threshold == "none" else float(threshold)
            X = store.matrix(None, pool=pool, binarize=binarize, rows=taken).X
            seconds["load"] += time.perf_counter() - started
            matrix_bytes = max(matrix_bytes, X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)
            nonzeros = max(nonzeros, int(X.nnz))
            for probe, penalty in PENALTIES.items():
                started = time.perf_counter()
                scores = _scores(args.side, X, y, fold, probe)
                seconds[penalty] += time.perf_counter() - started
                print(
                    f"{args.side} {pool} > {threshold} {penalty}: {time.perf_counter() - started:.1f} s",
                    file=sys.stderr,
                )
                cells[f"{pool} > {threshold} {penalty}"] = {"C": C_GRID[int(np.argmax(scores))], "scores": scores}
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # GridSearchCV's processes
    return {
        "seconds": seconds,
        "cells": cells,
        "matrix_bytes": matrix_bytes,
        "before_bytes": before,
        "peak_bytes": _peak_bytes(),
        "largest_child_bytes": children,
        "documents": len(y),
        "features": int(X.shape[1]),
        "nonzeros": nonzeros,
    }


def _warm_up(side: str, store: Any) -> None:
    """So that what libraries and compiled loops take counts for no side, in seconds or in bytes."""
    X = store.matrix(None, pool="max", rows=np.arange(len(store.documents().collect())) < 100).X
    y, fold = np.arange(100) % 2, np.arange(100) // 2 % FOLDS
    for probe in PENALTIES:
        _scores(side, X, y, fold, probe)


def _scores(side: str, X: Any, y: np.ndarray, fold: np.ndarray, probe: str) -> list[float]:
    return _ours(X, y, fold, probe) if side == "ours" else _peer(X, y, fold, probe, side == "optimum")


def _ours(X: Any, y: np.ndarray, fold: np.ndarray, probe: str) -> list[float]:
    from threadpoolctl import threadpool_limits

    from training.documents.split import Split
    from training.methods.matrices import MethodMatrix
    from training.methods.method import Method
    from training.probes.fit import evaluate

    # GridSearchCV has no test set; one row is asked for so that the refit has something to predict.
    split = _OneTestRow(0, fold.astype(np.int64))
    assert isinstance(split, Split)
    with threadpool_limits(1):
        method = Method("cell", "sae", probe=probe)
        found = evaluate(method, MethodMatrix(X), y, 2, [split], grid=C_GRID, n_jobs=machine.n_cores())
    return [float(score) for score in found[0].validation.mean(axis=1)]


def _peer(X: Any, y: np.ndarray, fold: np.ndarray, probe: str, converged: bool) -> list[float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MaxAbsScaler

    model = LogisticRegression() if probe == "logistic_l2" else LogisticRegression(l1_ratio=1, solver="saga")
    if converged and probe == "logistic_l2":
        model.set_params(tol=1e-7, max_iter=10_000)
    elif converged:
        model.set_params(solver="liblinear", tol=1e-6, max_iter=10_000, intercept_scaling=INTERCEPT_SCALING)
    pipeline = Pipeline([("scale", MaxAbsScaler()), ("probe", model)])
    grid = {"probe__C": list(C_GRID)}
    search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(fold), scoring="f1_macro", n_jobs=machine.n_cores())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X, y)
    return [float(score) for score in search.cv_results_["mean_test_score"]]


def _child(side: str, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.study", "--store", args.store]
        command += ["--documents", str(args.documents), "--pools", *args.pools, "--thresholds", *args.thresholds]
        subprocess.run([*command, "--side", side, "--result", str(result)], check=True)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def _table(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    any_side = next(iter(found.values()))
    lines = [
        f"{any_side['documents']:,} documents x {any_side['features']:,} features, {any_side['nonzeros']:,} non-zeros; "
        f"{len(args.pools)} poolings x {len(args.thresholds)} binarisings x 2 penalties x {len(C_GRID)} C x "
        f"{FOLDS} folds",
        "",
    ]
    rows: list[tuple[str, ...]] = [("", "L2 s", "L1 s", "load s", "all s", "peak over start / matrix")]
    for side, result in found.items():
        seconds = result["seconds"]
        memory = (result["peak_bytes"] - result["before_bytes"]) / result["matrix_bytes"]
        rows.append(
            (
                side,
                *(f"{seconds[k]:.1f}" for k in ("L2", "L1", "load")),
                f"{sum(seconds.values()):.1f}",
                f"{memory:.2f}",
            )
        )
    lines.append(aligned(rows))
    others = [side for side in found if side != "ours" and "ours" in found]
    lines += [_compared(found["ours"], found[side], side) for side in others]
    return "\n".join(lines)


def _compared(ours: dict[str, Any], other: dict[str, Any], name: str) -> str:
    total = sum(other["seconds"].values()) / sum(ours["seconds"].values())
    apart = {p: other["seconds"][p] / ours["seconds"][p] for p in PENALTIES.values()}
    lines = [
        f"\nbeside {name}: {total:.1f} x as fast ({', '.join(f'{p} {ratio:.1f} x' for p, ratio in apart.items())})"
    ]
    for penalty in PENALTIES.values():
        pairs = [(a, other["cells"][cell]) for cell, a in ours["cells"].items() if cell.endswith(penalty)]
        off = [np.abs(np.subtract(a["scores"], b["scores"])) for a, b in pairs]
        lost = [max(b["scores"]) - b["scores"][C_GRID.index(a["C"])] for a, b in pairs]
        lines.append(
            f"  {penalty}: same C in {sum(a['C'] == b['C'] for a, b in pairs)} of {len(pairs)}; scores differ by "
            f"{np.mean(off):.4f} on average, {np.max(off):.4f} at most; by the scores of {name} our choice is at most "
            f"{max(lost):.4f} below its best"
        )
    best = [max(side["cells"], key=lambda cell: max(side["cells"][cell]["scores"])) for side in (ours, other)]
    lines.append(f"  best cell: ours {best[0]}, {name} {best[1]}")
    return "\n".join(lines)


def _peak_bytes() -> int:
    """Of this process alone; `ru_maxrss` would begin with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def _one_test_row() -> type[Any]:
    """A split whose test set is one of its training rows: GridSearchCV holds nothing out, and neither do we."""
    from training.documents.split import Split

    class OneTestRow(Split):
        @property
        def test(self) -> np.ndarray:
            return np.array([0])

    return OneTestRow


_OneTestRow = _one_test_row()

if __name__ == "__main__":
    sys.exit(main())
