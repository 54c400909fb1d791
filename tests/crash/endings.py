"""How commands end when they have done their work, hundreds of times over: `make endings`.

    python -m tests.crash.endings [--runs 600] [--streams 3] [--demo DIR]

`verify`, `predict` and `show --doc` in turn, several at a time, on a small store with a model, or on what
`sparsemill demo --out DIR` left. A native thread that needs the interpreter while it ends aborts the process, after all
output, so only exit codes tell, and only now and then: more streams than cores make it likelier. Prints the exit codes
of each command; exit code 1 where one is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

import sparsemill
from featurestore import FeatureStore
from featurestore.format.rows import PartRows
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.writing.writer import create_store, finish_store, write_part
from tests.featurestore.format.test_part import D_SAE, wide_rows
from tests.featurestore.stores import plan_of

PARTS, DOCUMENTS = 6, 30  # a part; several parts, so that row groups are decoded up to the last moment
POOLS = ("max", "sum", "count")
DENSE = tuple(DenseColumn(f"resid_post_9__hidden_{name}", 640) for name in ("mean", "last"))
SCHEMA = StoreSchema((("label", "string"),), (SaeColumns("s", D_SAE, POOLS),), DENSE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands, and say how they ended."""
    parser = argparse.ArgumentParser(prog="tests.crash.endings", description=__doc__)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--demo", type=Path, help="what `sparsemill demo --out DIR` left")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="sparsemill-endings-") as folder:
        os.environ["SPARSEMILL_CACHE"] = f"{folder}/cache"
        store, model = (args.demo / "store", args.demo / "study/models/sae.json") if args.demo else made(Path(folder))
        ends = endings(commands(store, model), args.runs, args.streams)
    for name, codes in ends.items():
        print(f"{name:<8} {', '.join(f'{n} x exit code {code}' for code, n in sorted(codes.items()))}")
    return 0 if all(set(codes) == {0} for codes in ends.values()) else 1


def made(folder: Path) -> tuple[Path, Path]:
    """A store and a model trained from it."""
    store, out = folder / "store", folder / "study"
    plan = plan_of([DOCUMENTS] * PARTS, SCHEMA)
    create_store(str(store), plan)
    finish_store(str(store), [write_part(str(store), plan, unit, labelled_rows(unit)) for unit in range(PARTS)])
    study = {
        "store": str(store),
        "label": "label",
        "features": [{"sae": "s", "pool": "max"}],
        "probes": ["logistic_l2"],
        "split": {"test": 0.3, "folds": 2, "seeds": 1, "duplicates": "ignore"},
        "out": str(out),
    }
    spec = folder / "study.yaml"
    spec.write_text(yaml.safe_dump(study), encoding="utf-8")
    with contextlib.redirect_stdout(sys.stderr):
        assert sparsemill.main(["study", str(spec)]) == 0
    return store, out / "models/sae.json"


def labelled_rows(unit: int) -> PartRows:
    """As large as real ones: 2,200 features a document, in three poolings."""
    rows = wide_rows(DOCUMENTS, POOLS)
    dense = {column.name: np.full((DOCUMENTS, column.dim), unit, np.float32) for column in DENSE}
    labels = {"label": [("benign", "malicious")[i % 2] for i in range(DOCUMENTS)]}
    return replace(rows, doc_id=[f"u{unit}-{i}" for i in range(DOCUMENTS)], keep=labels, dense=dense)


def commands(store: Path, model: Path) -> dict[str, list[str]]:
    """Name -> arguments."""
    doc_id = FeatureStore.open(str(store)).documents().collect()["doc_id"][5]
    return {
        "verify": ["verify", str(store)],
        "predict": ["predict", str(model), "--store", str(store)],
        "show": ["show", str(store), "--doc", doc_id],
    }


def endings(commands: dict[str, list[str]], runs: int, streams: int) -> dict[str, Counter[int]]:
    """Command -> exit code -> how often."""
    ends = {name: Counter[int]() for name in commands}

    def run(name: str) -> None:
        command = [sys.executable, "-m", "sparsemill", *commands[name]]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        ends[name][done.returncode] += 1
        if done.returncode:
            print(f"{name}: exit code {done.returncode}: {done.stderr.strip()[-300:]}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(run, itertools.islice(itertools.cycle(commands), runs)))
    return ends


if __name__ == "__main__":
    sys.exit(main())
