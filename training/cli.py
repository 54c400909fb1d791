"""The commands of stage 2: `study` runs a YAML, `predict` applies a model it wrote, `explain` says what decides in one.

Imports nothing heavy until a command runs; errors are raised as they are and shown by the front door.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

from featurestore.wording import span


def study_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill study`."""
    parser.description = "Train and compare classifiers from a feature store: SAE features against baselines."
    parser.epilog = "example: sparsemill study STUDY.yaml --jobs 2\n\nRun it again: cells that are done are kept."
    parser.add_argument("study", metavar="STUDY.yaml", help="which labels, features and baselines; where results go")
    parser.add_argument("--jobs", type=_positive, default=None, help="threads (default: by size of the study)")
    parser.add_argument("--address", default=None, help="Ray cluster whose nodes share the work, e.g. auto")


def study(args: argparse.Namespace) -> int:
    """Run `sparsemill study`; prints the table, or with --json the content of results.json."""
    from training.cells import run_here
    from training.report import format_explanation, format_study
    from training.spec import load_study
    from training.study import run_study
    from training.writing import summary_json

    spec = load_study(args.study)
    progress = _progress if sys.stderr.isatty() else None
    # Where the work runs is the front door's to say: this package knows no Ray.
    executor = getattr(args, "executor", None) or run_here
    result = run_study(spec, progress=progress, n_jobs=args.jobs, executor=executor)
    if args.json:
        print(json.dumps({"summary": summary_json(result), "explanation": result.explanation, "paths": result.paths}))
        return 0
    print(format_study(result))
    if result.explanation is not None:
        print(f"\n{format_explanation(result.explanation)}")
    print(f"\nResults in {spec.out} ({span(result.seconds)})")
    return 0


def predict_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill predict`."""
    parser.description = "Classify documents with a model that a study wrote: those of a store, or new text end to end."
    parser.epilog = (
        "example:\n  sparsemill predict study/models/sae.json --store reviews\n"
        "  sparsemill predict study/models/sae.json --job new-reviews.yaml    extracts first"
    )
    parser.add_argument("model", metavar="MODEL", help="NAME.json beside NAME.safetensors")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", help="a store made with the model and SAEs that it was trained on")
    source.add_argument("--job", metavar="JOB.yaml", help="a job over new text, which is extracted first")
    parser.add_argument("--out", metavar="FILE.parquet", help="write doc_id, class and probabilities here")


def predict(args: argparse.Namespace) -> int:
    """Run `sparsemill predict` on a store; prints a class for each document, or where the table is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from featurestore.reader import FeatureStore
    from training.models import load_model, predict_store

    model = load_model(args.model)
    classes = [*model.classes, None]  # the last for documents without features
    ids: list[str] = []
    named: list[str | None] = []
    proba: list[list[float | None]] = []
    for batch in predict_store(model, FeatureStore.open(args.store)):
        ids += batch.doc_id.tolist()
        named += [classes[c] for c in batch.y_pred]
        proba += [[None if math.isnan(p) else p for p in row] for row in batch.proba.tolist()]
    if args.out:
        columns: dict[str, Any] = {"doc_id": pa.array(ids, pa.string()), "prediction": pa.array(named, pa.string())}
        for c, label in enumerate(model.classes):
            columns[f"p_{label}"] = pa.array([row[c] for row in proba], pa.float64())
        pq.write_table(pa.table(columns), args.out)
    counts = {name: named.count(name) for name in dict.fromkeys([*model.classes, *named])}
    if args.json:
        rows = [
            {"doc_id": doc_id, "prediction": name, "probabilities": dict(zip(model.classes, row, strict=True))}
            for doc_id, name, row in zip(ids, named, proba, strict=True)
        ]
        print(json.dumps({"method": model.header["method"], "out": args.out, "predictions": rows}))
        return 0
    if not args.out:
        for doc_id, name, row in zip(ids, named, proba, strict=True):
            best = max((p for p in row if p is not None), default=None)
            print(f"{doc_id}\t{'(no features)' if name is None else name}\t{'' if best is None else f'{best:.3f}'}")
    said = ", ".join(f"{'without features' if name is None else name} {count:,}" for name, count in counts.items())
    print(f"{len(ids):,} documents: {said}" + (f"; written to {args.out}" if args.out else ""), file=sys.stderr)
    return 0


def explain_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill explain`."""
    parser.description = "Say which features decide in a model that a study wrote, with training documents as examples."
    parser.epilog = "example: sparsemill explain study/models/sae.json"
    parser.add_argument("model", metavar="MODEL", help="NAME.json beside NAME.safetensors")


def explain(args: argparse.Namespace) -> int:
    """Run `sparsemill explain`."""
    from featurestore.errors import StudyError
    from training.models import load_model
    from training.report import format_explanation

    model = load_model(args.model)
    explanation = model.header.get("explanation")
    if not isinstance(explanation, dict):
        raise StudyError(f"{args.model}: is a model of {model.header['method']}, which has no features to name")
    if args.json:
        print(json.dumps({"explanation": explanation}))
        return 0
    try:
        print(format_explanation(explanation))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise StudyError(f"{args.model}: its explanation is damaged; run the study again") from None
    return 0


def _progress(done: int, total: int, method: str) -> None:
    end = "\n" if done == total else ""
    print(f"\r\x1b[K{done}/{total} methods  {method}", end=end, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
