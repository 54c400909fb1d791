"""The command `label`: have a model answer prompts, and write one table of what it answered."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from featurestore.base.arguments import count_argument
from featurestore.base.hostile_text import visible, visible_lines
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted, share, span
from featurestore.base.terminal import print_facts
from ray_jobs.quiet import silence_libraries

if TYPE_CHECKING:
    from ray_jobs.labels.run import Labelled
    from ray_jobs.labels.spec import LabelSpec
    from ray_jobs.spec import JobSpec

SHOWN_CHARACTERS = 2_000  # of a prompt that is shown


def label_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `label`."""
    from featurestore.storage.user_outputs import overwrite_argument

    parser.description = (
        "Ask a model a question for each row of a corpus, and write what it answered, how sure it was and whether it "
        "was right as one Parquet table, which a study takes for its labels. What is done is not done again."
    )
    parser.epilog = (
        "examples:\n  sparsemill label boolq.yaml --show 2    # the first prompts, without a model\n"
        "  sparsemill label boolq.yaml\n\nHow a task is written: docs/labels.md."
    )
    parser.add_argument("job", metavar="JOB.yaml", help="the label job: corpus, model, task and out")
    parser.add_argument("--address", help="Ray cluster to run on, e.g. auto (default: a local Ray for this run)")
    parser.add_argument("--workers", type=count_argument, metavar="N", help="at most so many")
    parser.add_argument(
        "--show",
        type=count_argument,
        metavar="N",
        help="show the first N questions as they will be asked, and do no more",
    )
    parser.add_argument("--force", action="store_true", help="take the parts from another run that holds them")
    overwrite_argument(parser, "another table in the same place")


def label(args: argparse.Namespace) -> int:
    """Run a label job, or finish what is missing of it."""
    silence_libraries()
    from ray_jobs.labels.spec import load_label_job

    spec, job = load_label_job(args.job)
    if args.show is not None:
        return _show(spec, job, args.show, args.json)
    from ray_jobs.labels.run import label as run

    found = run(spec, job.at_most(args.workers), args.address, overwrite=args.overwrite, force=args.force)
    if args.json:
        return print_json(_facts(found))
    _print(found)
    return 0


def _facts(found: Labelled) -> dict[str, Any]:
    from featurestore.storage.files import shown

    return {**asdict(found), "table": shown(found.table)}


def _print(found: Labelled) -> None:
    from featurestore.storage.files import shown

    answered = found.prompts - found.errors
    took = f"in {span(found.seconds)}" if found.units_run else "nothing to do, the table is there"
    print(f"{shown(found.table)}: {counted(found.prompts, 'prompt')}; {took}")
    facts = [
        ("right", f"{found.correct:,} of {answered:,}" + (f" ({share(found.correct, answered)})" if answered else "")),
        ("errors", f"{found.errors:,}"),
    ]
    print_facts(facts, margin=2)


def _show(spec: LabelSpec, job: JobSpec, count: int, as_json: bool) -> int:
    """The first questions of a corpus."""
    from ray_jobs.corpus.read import read_batches
    from ray_jobs.corpus.scan import scan
    from ray_jobs.corpus.slices import slices
    from ray_jobs.labels.prompts import Asker, Question
    from ray_jobs.labels.spec import as_asked, of_text

    scanned, job = of_text(spec, job, lambda settled: (scan(settled.corpus), settled))
    parts = slices(scanned, 0, min(count, scanned.rows))
    asker = Asker(spec.task, spec.text)
    shown: list[dict[str, Any]] = []
    for rows in read_batches(parts, as_asked(job.corpus), scanned.keep_types):
        for number, doc_id in itertools.islice(enumerate(rows.doc_id), count):
            found = rows.error[number] or asker.question({name: values[number] for name, values in rows.keep.items()})
            asked = asdict(found) if isinstance(found, Question) else {"error": found}
            shown.append({"id": doc_id, **asked, "separator": spec.separator})
    if as_json:
        return print_json({"rows": scanned.rows, "questions": shown})
    print(f"{counted(scanned.rows, 'row')}; the first {len(shown)}:")
    for one in shown:
        print(f"\n--- {visible(one['id'])}")
        if "error" in one:
            print(f"error: {visible(one['error'])}")
            continue
        print(visible_lines(one["prompt"][:SHOWN_CHARACTERS]))
        for place, choice in enumerate(one["choices"]):
            print(f"  {'*' if place == one['right'] else ' '} {place}: {visible(choice)}")
        for answer in one["answers"]:
            print(f"  * {visible(answer)}")
    return 0
