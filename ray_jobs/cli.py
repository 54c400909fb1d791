"""Parse and run the commands of stage 1: `prepare`, `plan`, `extract`, `submit`, `stop`.

Each prints a page for people (`console`), or one JSON document with `--json`; progress goes to stderr. What libraries
would print on their own is silenced here and nowhere else. torch and Ray are loaded only when a command comes to need
them.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.arguments import count_argument
from featurestore.base.json_text import json_text, print_json
from featurestore.base.number_words import counted, there
from featurestore.base.terminal import print_facts, say
from featurestore.errors import UsageError
from ray_jobs.console import (
    bundle_facts,
    plan_facts,
    print_bundle,
    print_calibration,
    print_plan,
    print_result,
    result_facts,
)
from ray_jobs.quiet import silence_libraries

if TYPE_CHECKING:
    from ray_jobs.spec import JobSpec


def prepare_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `prepare`."""
    parser.epilog = "example:\n  sparsemill prepare job.yaml"
    parser.add_argument("job", metavar="JOB.yaml", help="the job")


def prepare(args: argparse.Namespace) -> int:
    """Build the bundle of a job, or find it built, and say where it is."""
    silence_libraries()
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.prepare.build import prepare as build
    from ray_jobs.spec import load_job

    bundle = open_bundle(build(load_job(args.job), progress=say))
    if args.json:
        return print_json({"bundle": str(bundle.path), **bundle_facts(bundle)})
    print_bundle(bundle)
    return 0


def plan_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `plan`."""
    parser.epilog = (
        "example:\n  sparsemill plan job.yaml --calibrate\n  sparsemill plan job.yaml --hardware h100\n"
        "  sparsemill plan job.yaml --rate 190000 --price 2.5\n"
        "  sparsemill plan --preset gemma-2-9b-it/l20_16k --corpus reviews.csv --store reviews-9b\n\n"
        "The store is not touched. The first plan of a model prepares it as `prepare` does, and keeps that in the\n"
        "cache.\n\n"
        f"The kinds of hardware and their figures are in {Path(__file__).parent / 'planning/rates.yaml'}; edit a "
        "copy."
    )
    _job_arguments(parser)
    parser.add_argument("--hardware", metavar="KIND", help="price this kind of the rates file, e.g. h100")
    parser.add_argument("--rates", metavar="FILE", help="your rates file (default: the shipped one)")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="run the engine on a sample of the job's own documents first, and use the rate that this machine reached",
    )
    parser.add_argument(
        "--rate",
        type=_positive,
        metavar="TOKENS",
        help="tokens a second of one worker (default: as last measured here)",
    )
    parser.add_argument("--price", type=_positive, metavar="MONEY", help="of one worker for an hour")


def plan(args: argparse.Namespace) -> int:
    """Say what a job will take; nothing is written into its store."""
    silence_libraries()
    from ray_jobs.planning.calibrate import calibrate
    from ray_jobs.planning.estimate import estimate
    from ray_jobs.planning.hardware import device_of
    from ray_jobs.planning.job_plan import check_device, make_plan
    from ray_jobs.planning.warnings import notes_of, warnings_of

    if (job := _job_of(args)) is None:
        return 0
    hardware, rates_file = args.hardware or job.workers.hardware, args.rates or job.workers.rates
    device = None
    if hardware is not None:  # before minutes are spent on scanning
        device = device_of(hardware, rates_file)
    elif args.rates is not None:
        raise UsageError("--rates says what each kind of hardware does; choose one of them with --hardware KIND")
    if args.calibrate and (args.rate is not None or hardware is not None):
        other = "a rate that is given" if args.rate is not None else f"the hardware '{hardware}'"
        raise UsageError(f"--calibrate measures this machine, which does not go with {other}; leave one of them out")
    made = make_plan(job, say, device)
    measured = None
    if args.calibrate:
        check_device(made.compute, made.settings["devices"])
        measured = calibrate(made, say)
    figures = estimate(made, args.rate, args.price, hardware, rates_file)
    warned, noted = warnings_of(made, figures), notes_of(made)
    if args.json:
        facts = plan_facts(made, figures)
        calibration = None if measured is None else asdict(measured)
        return print_json({**facts, "calibration": calibration, "notes": list(noted), "warnings": list(warned)})
    print_plan(made, figures)
    if measured is not None:
        print_calibration(measured, figures)
    print_facts([*(("note", said) for said in noted), *(("warning", said) for said in warned)])
    return 0


def extract_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `extract`."""
    parser.epilog = (
        "example:\n  sparsemill extract job.yaml\n  sparsemill extract job.yaml --address auto\n"
        "  sparsemill extract --preset gemma-2-2b/l12_16k --corpus reviews.csv --text body --store reviews-2b\n"
        "  sparsemill extract --preset gemma-2-2b/l5_16k --preset gemma-2-2b/l19_16k --corpus 'r/*.parquet' "
        "--store s --print > job.yaml"
    )
    _job_arguments(parser)
    parser.add_argument("--address", help="Ray cluster to run on, e.g. auto (default: a local Ray for this run)")
    parser.add_argument(
        "--workers", type=count_argument, metavar="N", help="at most so many, instead of the job's workers.max"
    )
    parser.add_argument("--force", action="store_true", help="take the store from another run that holds it")


def extract(args: argparse.Namespace) -> int:
    """Run a job, or finish what is missing of it."""
    silence_libraries()
    from featurestore.storage.files import shown
    from ray_jobs.cluster.session import sigterm_unwinds
    from ray_jobs.planning.job_plan import make_plan
    from ray_jobs.reporting.progress import Progress
    from ray_jobs.run.driver import run_plan
    from ray_jobs.run.outcome import TooManyErrors
    from ray_jobs.run.store_lease import check_free

    if (job := _job_of(args)) is None:
        return 0
    job = job.at_most(args.workers)
    progress = Progress()
    try:
        with sigterm_unwinds():
            if not args.force:
                check_free(job.store, progress.note)
            made = make_plan(job, progress.note)
            if missing := made.missing:
                tokens = round(made.mean_tokens * sum(unit.rows for unit in missing))
                done = len(made.units) - len(missing)
                said = f" ({there(done)})" if done else ""
                ray = "starting Ray" if args.address is None else f"connecting to Ray at {shown(args.address)}"
                progress.note(f"{counted(len(missing), 'unit')} to do{said}, about {tokens:,} tokens; {ray}")
            result = run_plan(made, args.address, progress, args.force)
    except (KeyboardInterrupt, SystemExit):
        progress.note(f"stopped; parts that are done stay in {shown(job.store)}")
        raise
    except TooManyErrors as failed:
        if not args.json:
            print_result(failed.result)
            raise
        print(f"sparsemill: {failed}", file=sys.stderr)
        kinds = [asdict(kind) for kind in failed.kinds]
        facts = {"error": str(failed), "exit_code": failed.exit_code, "error_kinds": kinds}
        print_json({**result_facts(made, failed.result), **facts})
        return failed.exit_code
    if args.json:
        return print_json(result_facts(made, result))
    print_result(result)
    return 0


def _job_arguments(parser: argparse.ArgumentParser) -> None:
    """A job: its file, or presets with a corpus and a store."""
    parser.add_argument("job", metavar="JOB.yaml", nargs="?", help="the job; or --preset, --corpus and --store")
    preset = parser.add_argument_group(
        "in place of JOB.yaml",
        "Models and SAEs come from the Hugging Face hub: accept Gemma's terms there and set HF_TOKEN.",
    )
    preset.add_argument(
        "--preset",
        action="append",
        metavar="NAME",
        help="an SAE of Gemma Scope with its model, e.g. gemma-2-9b-it/l20_16k or gemma-3-4b-it/l17_65k_medium; "
        "again for further ones of that model",
    )
    preset.add_argument("--corpus", metavar="FILE", help="the documents: a file, a directory, a glob or a URL")
    preset.add_argument("--text", metavar="COLUMN", help="the column that holds them (default: text)")
    preset.add_argument("--id", metavar="COLUMN", help="the column that holds their ids")
    preset.add_argument("--store", help="directory or URL of the store to write")
    preset.add_argument("--print", action="store_true", dest="print_job", help="print the job as YAML, and do no more")


def _job_of(args: argparse.Namespace) -> JobSpec | None:
    """The job that a command is about; None where it was asked for and has been printed.

    Raises:
        UsageError: It is given twice, not at all, or in part.
    """
    from ray_jobs.spec import job_from_mapping, load_job

    given = [f"--{key}" for key in ("corpus", "text", "id", "store") if getattr(args, key) is not None]
    given += ["--print"] if args.print_job else []
    if args.job is not None:
        if args.preset or given:
            given = ["--preset"] if args.preset else given
            raise UsageError(f"{args.job} is a whole job; leave out {given[0]}")
        return load_job(args.job)
    if not args.preset:
        needed = f"{given[0]} needs a preset" if given else "there is no job"
        raise UsageError(f"{needed}; give JOB.yaml, or --preset NAME --corpus FILE --store STORE")
    for key in ("corpus", "store"):
        if getattr(args, key) is None:
            raise UsageError(f"--preset needs --{key} too; give --preset NAME --corpus FILE --store STORE")
    from ray_jobs.prepare.presets import preset_job

    mapping = preset_job(args.preset, args.corpus, args.store, args.text, args.id)
    job = job_from_mapping(mapping, Path.cwd(), where="--preset")
    if not args.print_job:
        releases = ", ".join(dict.fromkeys(str(sae.release) for sae in job.saes))
        say(
            f"{job.model.name} and {releases} come from the Hugging Face hub, once; their terms are accepted on its "
            "pages, and HF_TOKEN says by whom"
        )
        return job
    if args.json:
        print(json_text(mapping, ascii=True))  # a job, and so without a version
    else:
        import yaml

        print(yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True), end="")
    return None


def submit_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `submit`."""
    from featurestore.storage.user_outputs import overwrite_argument

    parser.epilog = (
        "example:\n  sparsemill submit job.yaml --address http://127.0.0.1:8265\n\n"
        "Relative paths in the job become absolute ones of this machine; on a cluster of several machines corpus and\n"
        "store are URLs or lie on a disk that all nodes share. Ctrl-C stops the job, a lost connection does not;\n"
        "the same command again follows a job that runs and resumes one that has ended."
    )
    parser.add_argument("job", metavar="JOB.yaml", help="the job, or a label job")
    _dashboard_argument(parser)
    parser.add_argument(
        "--workers", type=count_argument, metavar="N", help="at most so many, instead of the job's workers.max"
    )
    parser.add_argument("--runtime-env", metavar="FILE", help="a runtime environment of Ray, as YAML (env_vars, pip)")
    parser.add_argument("--force", action="store_true", help="take the store from another run that holds it")
    parser.add_argument("--detach", action="store_true", help="do not wait for the job")
    overwrite_argument(parser, "another table in the same place, of a label job")


def _dashboard_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="URL",
        default=os.environ.get("RAY_API_SERVER_ADDRESS"),
        help="of the cluster's dashboard, e.g. http://127.0.0.1:8265 (default: $RAY_API_SERVER_ADDRESS)",
    )


def submit(args: argparse.Namespace) -> int:
    """Run a job on a Ray cluster, with its log here."""
    silence_libraries()
    from featurestore.storage.files import shown
    from ray_jobs.cluster.package import load_runtime_env
    from ray_jobs.cluster.submit import submit as send
    from ray_jobs.labels.spec import as_mapping, load_either

    if args.address is None:
        raise UsageError("--address is missing; give the URL of the cluster's dashboard, e.g. http://127.0.0.1:8265")
    spec, job = load_either(args.job)
    if args.overwrite and spec is None:
        raise UsageError("--overwrite is for the table of a label job, and this job writes a store; leave it out")
    runtime_env = load_runtime_env(args.runtime_env) if args.runtime_env else None
    options = ["--workers", str(args.workers)] if args.workers is not None else []
    options += [name for name in ("--force", "--overwrite") if getattr(args, name[2:])]
    stream = sys.stderr if args.json else sys.stdout

    def log(text: str) -> None:
        print(text, end="", file=stream, flush=True)

    done = send(job, args.address, say, log, options, runtime_env, args.detach, as_mapping(spec, job) if spec else None)
    if args.json:
        return print_json({"address": args.address, "store": shown(job.store), **asdict(done)})
    if args.detach:
        print(f"{done.submission_id}: {done.status.lower()}; the same command without --detach follows it,")
        print(f"`sparsemill stop {shlex.quote(args.job)} --address {shlex.quote(args.address)}` stops it,")
        print(f"`sparsemill status {shlex.quote(shown(job.store))}` says how far it is, once it has planned")
    return 0


def stop_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `stop`."""
    parser.epilog = (
        "examples:\n  sparsemill stop job.yaml\n  sparsemill stop job.yaml --address http://127.0.0.1:8265\n\n"
        "Parts that are done stay, and the same job goes on when it is run again. With --address, the cluster's jobs\n"
        "that write to this job's store are stopped, also those that have not come to write; otherwise, the run that\n"
        "holds the store is asked to stop through the store, wherever it runs. Exit code 1 if nothing runs."
    )
    parser.add_argument("job", metavar="JOB.yaml", help="the job")
    _dashboard_argument(parser)


def stop(args: argparse.Namespace) -> int:
    """Stop the run of a job's store."""
    silence_libraries()
    from featurestore.storage.files import shown
    from ray_jobs.labels.spec import load_either
    from ray_jobs.run.stop import stop as end

    store = load_either(args.job)[1].store
    stopped = end(store, args.address, say)
    if args.json:
        return print_json({"store": shown(store), "stopped": list(stopped)})
    print(f"{shown(store)}: stopped {', '.join(stopped)}")
    return 0


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number
