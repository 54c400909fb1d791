"""The commands that are several others, one after the other: `demo`, and `run` from a corpus to its report."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
from collections.abc import Sequence

from featurestore.base.json_text import print_json
from featurestore.url_secrets import without_secrets
from sparsemill.commands import main

DEMO_CLOSING = """
What you have now:
  {files.store}    the feature store: plain Parquet, one row per document
  {files.results}    every score, prediction and split of the study
  {files.job}, {files.study}    what was run; edit a copy

The corpus is small (181 prompt-injection attacks and benign traps), so the intervals are wide. For one of your own,
point `corpus.path` in the job at Parquet, JSONL or CSV files, give it another store, and run `sparsemill plan`, then
`extract`.

Open the report in a browser; it says what was found in words, and shows it:
    {files.results}/report.html
"""


def demo_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparsemill demo`."""
    from featurestore.storage.user_outputs import overwrite_argument

    parser.add_argument(
        "--out", default="sparsemill-demo", metavar="DIR", help="folder for corpus, job, store and results"
    )
    overwrite_argument(parser, "files in it that are there already and say something else")
    parser.epilog = "example:\n  sparsemill demo --out demo-out\n\nRun it again: what is done is not done again."


def demo(args: argparse.Namespace) -> int:
    """Lay out the demo's files, then run the commands that a user would run, one after the other."""
    from featurestore.storage.user_outputs import local_folder
    from ray_jobs.demo import write_demo

    files = write_demo(local_folder(args.out, "the demo"), args.overwrite)
    steps = [
        ["prepare", str(files.job)],
        ["plan", str(files.job)],
        ["extract", str(files.job)],
        ["verify", str(files.store)],
        ["study", str(files.study), *(["--overwrite"] if args.overwrite else [])],
    ]
    code, outputs = _steps(steps, args.json)
    if code:
        return code
    if args.json:
        print_json({"store": str(files.store), "results": str(files.results), **outputs})
    else:
        print(DEMO_CLOSING.format(files=files))
    return 0


def run_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sparsemill run`."""
    from featurestore.storage.user_outputs import overwrite_argument

    parser.description = (
        "Run a job and the study of its store, one command after the other: prepare, plan, extract, verify, study, "
        "which writes the report. What is done is not done again."
    )
    parser.epilog = "example:\n  sparsemill run job.yaml study.yaml"
    parser.add_argument("job", metavar="JOB.yaml", help="the job")
    parser.add_argument("study", metavar="STUDY.yaml", help="the study of the store that the job writes")
    parser.add_argument("--address", help="Ray cluster to extract on, e.g. auto (default: a local Ray for this run)")
    overwrite_argument(parser, "the results and model files of another study in the same place")


def run(args: argparse.Namespace) -> int:
    """Run the commands from corpus to report, as a user would, and stop at the first that fails."""
    from featurestore.errors import StudyError
    from featurestore.url_secrets import shown
    from ray_jobs.spec import load_job
    from sparsemill.job_and_study import check_together
    from training.spec import load_study

    job, studied = load_job(args.job), load_study(args.study)
    store = job.store
    if _place(studied.store) != _place(store):
        raise StudyError(
            f"{args.study} reads the store {shown(studied.store)}, and {args.job} writes {shown(store)}; "
            "make them the same"
        )
    check_together(job, studied, args.job, args.study)  # said now, and not when the job has been paid for
    steps = [
        ["prepare", args.job],
        ["plan", args.job],
        ["extract", args.job, *(["--address", args.address] if args.address else [])],
        ["verify", store],
        ["study", args.study, *(["--overwrite"] if args.overwrite else [])],
    ]
    code, outputs = _steps(steps, args.json)
    if not code and args.json:
        print_json({"store": shown(store), "results": shown(studied.out), **outputs})
    return code


def _place(uri: str) -> str:
    """A path or URL of a store, for comparing."""
    return uri.rstrip("/") if "://" in uri else os.path.abspath(uri)  # noqa: PTH100  (links stay what they are)


def _steps(steps: Sequence[list[str]], as_json: bool) -> tuple[int, dict[str, object]]:
    """Run commands in a row, up to the first that fails: its exit code, and what each printed as JSON.

    On a page each command stands before what it prints; as JSON only what went wrong is printed here.
    """
    outputs: dict[str, object] = {}
    for step in steps:
        if as_json:
            captured = io.StringIO()
            with contextlib.redirect_stdout(captured):
                code = main([*step, "--json"])
            if code:  # what went wrong is the document
                print(captured.getvalue(), end="")
                return code, outputs
            outputs[step[0]] = json.loads(captured.getvalue())
        else:
            print(f"\n$ sparsemill {shlex.join(map(without_secrets, step))}", flush=True)
            if code := main(step):
                return code, outputs
    return 0, outputs
