"""The commands of stage 2: `study` runs a YAML, `predict` applies a model it wrote, `explain` says what decides in one.

Imports nothing heavy until a command runs; errors are raised as they are and shown by the front door.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from featurestore.base.json_text import print_json
from featurestore.storage.outputs import overwrite_argument

if TYPE_CHECKING:
    from featurestore.models.model import Model
    from featurestore.models.predict import Predicted
    from featurestore.reader import FeatureStore

from featurestore.base.text import span
from featurestore.urls import shown


def study_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill study`."""
    parser.description = "Train and compare classifiers from a feature store: SAE features against baselines."
    parser.epilog = "example: sparsemill study STUDY.yaml --jobs 2\n\nRun it again: methods that are done are kept."
    parser.add_argument("study", metavar="STUDY.yaml", help="which labels, features and baselines; where results go")
    parser.add_argument("--jobs", type=_positive, default=None, help="threads (default: by size of the study)")
    parser.add_argument("--address", default=None, help="Ray cluster whose nodes share the work, e.g. auto")
    overwrite_argument(parser, "the results of another study in the same place")


def study(args: argparse.Namespace) -> int:
    """Run `sparsemill study`; prints the table, or with --json the content of results.json."""
    from training.evaluation import run_here
    from training.output.files import summary_json
    from training.output.report import format_explanation, format_study
    from training.spec import load_study
    from training.study import run_study

    spec = load_study(args.study)
    progress = _progress if sys.stderr.isatty() else None
    # Where the work runs is the front door's to say: this package knows no Ray.
    executor = getattr(args, "executor", None) or run_here
    result = run_study(spec, progress=progress, n_jobs=args.jobs, executor=executor, overwrite=args.overwrite)
    if args.json:
        paths = {name: shown(path) for name, path in result.paths.items()}
        return print_json({"summary": summary_json(result), "explanation": result.explanation, "paths": paths})
    print(format_study(result))
    if result.explanation is not None:
        print(f"\n{format_explanation(result.explanation)}")
    print(f"\nResults in {shown(spec.out)} ({span(result.seconds)})")
    return 0


def predict_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill predict`."""
    parser.description = "Classify documents with a model that a study wrote: those of a store, or new text end to end."
    parser.epilog = (
        "example:\n  sparsemill predict study/models/sae.json --store reviews --out answers.csv\n"
        "  sparsemill predict study/models/sae.json --job new-reviews.yaml    extracts first\n\n"
        "The table has doc_id, the columns that the store keeps, prediction, p_CLASS\n"
        "for each class (score_CLASS where a linear SVM has no probabilities), and\n"
        "in_training: whether the model was trained on a document of this id."
    )
    parser.add_argument("model", metavar="MODEL", help="NAME.json beside NAME.safetensors")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", help="a store made with the model and SAEs that it was trained on")
    source.add_argument("--job", metavar="JOB.yaml", help="a job over new text, which is extracted first")
    parser.add_argument("--out", metavar="FILE", help="write a table: .csv, .jsonl or .parquet")
    overwrite_argument(parser, "a file that is there already")


def predict(args: argparse.Namespace) -> int:
    """Run `sparsemill predict`: all that can be wrong is found first, then rows are read and written as they come."""
    from featurestore.models.model import load_model
    from featurestore.models.predict import check_model
    from featurestore.reader import FeatureStore
    from training.output.predictions import check_out

    model = load_model(args.model)
    if args.out:
        check_out(args.out, args.overwrite)
    if args.job:  # to extract is the front door's: this package knows no stage 1
        args.store = args.extracted(lambda plan, uri: _warn([c.sentence for c in check_model(model, plan, shown(uri))]))
    store = FeatureStore.open(args.store)
    cautions = [caution.counted(store) for caution in check_model(model, store.plan, shown(store.uri))]
    _warn(cautions)
    counts, trained, documents = _classify(args, model, store)
    if trained:
        _warn(
            [
                f"the ids of {trained:,} of {len(store):,} documents are those of training documents (in_training); "
                "how well these are classified says nothing about new ones"
            ]
        )
    if args.json:
        about = {
            "method": model.header["method"],
            "out": args.out and shown(args.out),
            "warnings": cautions,
            "trained_on": trained,
        }
        return print_json({**about, "predictions": documents})
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(
        f"{len(store):,} documents: {said}" + (f"; written to {shown(args.out)}" if args.out else ""), file=sys.stderr
    )
    return 0


def _classify(
    args: argparse.Namespace, model: Model, store: FeatureStore
) -> tuple[dict[str, int], int, list[dict[str, Any]]]:
    """Write or list the predictions; how many of each class, how many of training documents, and `--json`'s rows."""
    import numpy as np

    from featurestore.models.predict import predict_store
    from training.output.predictions import PredictionTable, open_table, score_prefix

    table, documents, trained = PredictionTable(model, store), [], 0
    predicted = np.zeros(len(model.classes) + 1, dtype=int)  # the last for documents without features
    if listed := not args.out and not args.json:
        print(f"doc_id\tprediction\t{score_prefix(model)}prediction\tin_training")
    with open_table(args.out, table.schema) if args.out else nullcontext() as write:
        for batch in predict_store(model, store):
            predicted += np.bincount(batch.y_pred % len(predicted), minlength=len(predicted))
            trained += 0 if batch.in_training is None else int(batch.in_training.sum())
            if write is not None:
                write(table.rows(batch))
            if listed or args.json:
                rows = [_answer(model.classes, batch, i) for i in range(len(batch.doc_id))]
                documents += rows if args.json else []
                for row in rows if listed else ():
                    print(_line(row))
    counts = dict(zip([*model.classes, "without features"], predicted.tolist(), strict=True))
    if not predicted[-1]:
        del counts["without features"]
    return counts, trained, documents


def _answer(classes: Sequence[str], batch: Predicted, i: int) -> dict[str, Any]:
    """One document for `--json`."""
    c = int(batch.y_pred[i])
    proba = [None if c < 0 else p for p in batch.proba[i].tolist()]
    return {
        "doc_id": str(batch.doc_id[i]),
        "prediction": None if c < 0 else classes[c],
        "probabilities": dict(zip(classes, proba, strict=True)),
        "in_training": None if batch.in_training is None else bool(batch.in_training[i]),
    }


def _line(row: Mapping[str, Any]) -> str:
    name, known = row["prediction"], row["in_training"]
    best = "" if name is None else f"{row['probabilities'][name]:.3f}"
    trained = "" if known is None else ("yes" if known else "no")
    return f"{row['doc_id']}\t{'(no features)' if name is None else name}\t{best}\t{trained}"


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"warning: {sentence}", file=sys.stderr, flush=True)


def explain_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill explain`."""
    parser.description = "Say which features decide in a model that a study wrote, with training documents as examples."
    parser.epilog = "example: sparsemill explain study/models/sae.json"
    parser.add_argument("model", metavar="MODEL", help="NAME.json beside NAME.safetensors")


def explain(args: argparse.Namespace) -> int:
    """Run `sparsemill explain`."""
    from featurestore.errors import StudyError
    from featurestore.models.model import load_model
    from training.output.report import format_explanation

    model = load_model(args.model)
    explanation = model.header.get("explanation")
    if not isinstance(explanation, dict):
        raise StudyError(f"{args.model}: is a model of {model.header['method']}, which has no features to name")
    if args.json:
        return print_json({"explanation": explanation})
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
