"""The `study` command: one YAML in, a table and a directory of results out.

Imports nothing heavy until the command runs; errors are raised as they are and shown by the front door.
"""

from __future__ import annotations

import argparse
import json
import sys


def study_parser(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sparsemill study`."""
    parser.description = "Train and compare classifiers from a feature store: SAE features against baselines."
    parser.epilog = "example: sparsemill study STUDY.yaml --jobs 2"
    parser.add_argument("study", metavar="STUDY.yaml", help="which labels, features and baselines; where results go")
    parser.add_argument("--jobs", type=_positive, default=None, help="processes (default: by size of the study)")


def study(args: argparse.Namespace) -> int:
    """Run `sparsemill study`; prints the table, or with --json the content of results.json."""
    from training.report import format_explanation, format_study
    from training.spec import load_study
    from training.study import run_study
    from training.writing import summary_json

    spec = load_study(args.study)
    result = run_study(spec, progress=_progress if sys.stderr.isatty() else None, n_jobs=args.jobs)
    if args.json:
        print(json.dumps({"summary": summary_json(result), "explanation": result.explanation, "paths": result.paths}))
        return 0
    print(format_study(result))
    if result.explanation is not None:
        print(f"\n{format_explanation(result.explanation)}")
    print(f"\nResults in {spec.out} ({result.seconds:.1f} s)")
    return 0


def _progress(done: int, total: int, method: str) -> None:
    end = "\n" if done == total else ""
    print(f"\r\x1b[K{done}/{total} methods  {method}", end=end, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
