"""Two commands of stage 2: `study` runs a YAML, `explain` says what decides in a model it wrote.

Imports nothing heavy until a command runs; errors are raised as they are and shown by the front door.
"""

from __future__ import annotations

import argparse
import sys

from featurestore.base.json_text import print_json
from featurestore.base.text import span
from featurestore.storage.outputs import overwrite_argument
from featurestore.urls import shown


def study_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill study`."""
    parser.description = "Train and compare classifiers from a feature store: SAE features against baselines."
    parser.epilog = (
        "example: sparsemill study STUDY.yaml --jobs 2\n\nRun it again: methods that are done are kept.\n\n"
        "In STUDY.yaml, beside features, baselines, probes and split:\n"
        "  operating_point: {class: spam, precision: 0.95, undecided: 0.05}\n"
        "      a threshold with its interval; or recall, false_positive_rate, cost\n"
        "  class_weight: balanced   every class counts alike in training\n"
        "  by: [lang, length]       all scores by slices\n"
        "  calibrate: false         leave the probabilities of model files as they are\n"
        "  refit: false             model files keep the evaluated models"
    )
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
