"""What bfloat16 changes: active features and scores beside float32, and a short document among others beside alone.

    python -m benchmarks.precision CORPUS.jsonl [--out DIR] [--record]

The demo's model and SAE read a corpus of JSON lines with `id`, `text`, `label` and `group` in either dtype, and a study
is run on each store. Then short texts (the first two to five words of its documents) are extracted in bfloat16
alone and among a hundred others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report
from featurestore.reader import FeatureStore

DTYPES = ("float32", "bfloat16")
POOLS = ("max", "sum")
SHORT, OTHERS = 24, 100  # texts alone and among others


def build(corpus: Path, dtype: str, out: Path) -> FeatureStore:
    """The corpus's store in one dtype, and the study of it; what is there stays."""
    import yaml

    import sparsemill
    from ray_jobs.demo import SAE_DIR, SAE_NAME, model_file

    job = {
        "corpus": {"path": str(corpus.absolute()), "text": "text", "id": "id", "keep": ["label", "group"]},
        "model": {"name": str(model_file()), "dtype": dtype},
        "saes": [{"path": str(SAE_DIR), "name": SAE_NAME}],
        "pool": list(POOLS),
        "store": f"store-{dtype}",
    }
    study = {
        "store": job["store"],
        "label": "label",
        "features": [{"sae": SAE_NAME, "pool": list(POOLS)}],
        "split": {"group": "group"},
        "out": f"study-{dtype}",
    }
    for name, spec in (("job", job), ("study", study)):
        (out / f"{name}-{dtype}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    for command, name in (("extract", "job"), ("study", "study")):
        if sparsemill.main([command, str(out / f"{name}-{dtype}.yaml")]):
            sys.exit(1)
    return FeatureStore.open(str(out / f"store-{dtype}"))


def overlap(stores: Sequence[FeatureStore]) -> np.ndarray:
    """Jaccard index of the two stores' active features, of each document [documents]."""
    a, b = ((matrix.X > 0).astype(np.float64) for matrix in (s.matrix(s.schema.saes[0].name, "max") for s in stores))
    both = np.asarray(a.multiply(b).sum(axis=1)).ravel()
    either = np.asarray(a.sum(axis=1)).ravel() + np.asarray(b.sum(axis=1)).ravel() - both
    return both / np.maximum(either, 1)


def neighbours(bundle: Path, texts: Sequence[str]) -> dict[str, float]:
    """Short texts alone and among others: documents with the same features, mean Jaccard index, largest change."""
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.engine.extractor import Extractor, ExtractSettings

    extractor = Extractor(open_bundle(bundle), ExtractSettings(pools=("max",), hidden=(), max_tokens=2048, threads=2))
    short = [" ".join(text.split()[: 2 + i % 4]) for i, text in enumerate(texts[:SHORT])]
    (among,) = extractor.extract([*texts[-OTHERS:], *short]).saes.values()
    shares, moved = [], 0.0
    for i, text in enumerate(short):
        (alone,) = extractor.extract([text]).saes.values()
        one, other = alone.row(0), among.row(OTHERS + i)
        common, at, there = np.intersect1d(one.indices, other.indices, return_indices=True)
        shares.append(len(common) / len(np.union1d(one.indices, other.indices)))
        values, others = one.values["max"][at], other.values["max"][there]
        moved = max(moved, float(np.max(np.abs(values - others) / np.maximum(values, 1.0))))
    return {
        "documents": len(short),
        "documents_with_other_features": sum(share < 1 for share in shares),
        "jaccard": float(np.mean(shares)),
        "largest_change_of_a_value": moved,
    }


def measure(corpus: Path, out: Path) -> dict[str, Any]:
    """All figures of one corpus."""
    stores = [build(corpus, dtype, out) for dtype in DTYPES]
    shares = overlap(stores)
    scores: dict[str, Any] = {}
    for dtype in DTYPES:
        summary = json.loads((out / f"study-{dtype}" / "results.json").read_text(encoding="utf-8"))["summary"]
        for row in summary:
            if row["kind"] == "sae":
                scores.setdefault(row["method"], {})[dtype] = row["macro_f1"]
    texts = [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    bundle = newest_bundle(out / f"job-{DTYPES[1]}.yaml")
    return {
        "documents": len(shares),
        "jaccard": {
            "mean": float(shares.mean()),
            "standard_error": float(shares.std(ddof=1) / np.sqrt(len(shares))),
            "lowest": float(shares.min()),
        },
        "macro_f1": scores,
        "neighbours": neighbours(bundle, texts),
    }


def newest_bundle(job: Path) -> Path:
    """The bundle that a job reads."""
    from ray_jobs.prepare.build import prepare
    from ray_jobs.spec import load_job

    return prepare(load_job(str(job)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, metavar="CORPUS.jsonl", help="lines with id, text, label and group")
    parser.add_argument("--out", type=Path, default=Path("bench-precision"), help="for stores and studies")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    figures = {"machine": described, **measure(args.corpus, args.out)}
    print(json.dumps(figures, indent=2))
    if args.record:
        print(report.record(f"precision-{args.corpus.stem}", figures, described), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
