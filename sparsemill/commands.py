"""Mount the commands of all three packages in one program, and turn exceptions into exit codes.

A command's package is imported only when that command is asked for, so `sparsemill --help` answers at once. Exit codes:
0 done, 1 the work failed, 2 the input or usage was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.end_in_time import END_SECONDS, end_in_time
from sparsemill.first_job import model_for
from sparsemill.installation import missing
from sparsemill.stages import StageOne, extracted, gather_evidence, on_ray, scored, scored_parts
from sparsemill.usage import Parser, fail
from sparsemill.version import __version__

# What one is doing -> its commands -> (module, one line of help). Each module has `<name>_parser(parser)` and
# `<name>(args) -> exit code`.
GROUPS = {
    "start here": {
        "demo": ("sparsemill.chained", "the whole way on real Gemma weights and real text, no account, no GPU"),
        "init": ("featurestore.starting.cli", "look at a table, and write a first job and study for it"),
        "run": ("sparsemill.chained", "a job and its study, from corpus to report; again: go on"),
    },
    "from text to features": {
        "prepare": ("ray_jobs.cli", "build the model bundle that a job needs"),
        "plan": ("ray_jobs.cli", "price a job before anything is spent"),
        "extract": ("ray_jobs.cli", "run a job, or finish what is missing of it"),
        "label": ("ray_jobs.labels.cli", "have a model answer prompts: what it chose, and whether it was right"),
        "submit": ("ray_jobs.cli", "run a job on a Ray cluster, with its log here"),
        "stop": ("ray_jobs.cli", "stop the run of a job's store, here or on a cluster"),
        "saes": ("ray_jobs.saes", "which SAEs can be run, of the registry that sae-lens has"),
    },
    "look at a store": {
        "status": ("featurestore.cli", "how far a store has come"),
        "verify": ("featurestore.cli", "recheck every promise of a store's format"),
        "show": ("featurestore.cli", "look at documents and features of a store"),
        "tokens": ("ray_jobs.evidence.cli", "where in its documents a feature fires, token by token"),
        "names": ("featurestore.names.cli", "what features mean in words: imported, fetched, or from evidence"),
        "compact": ("featurestore.convert.cli", "merge the small parts of a store into a new one"),
        "export": ("featurestore.convert.cli", "write a store's features as npz, svmlight or AnnData"),
    },
    "from features to decisions": {
        "study": ("training.cli", "train and compare classifiers from a store"),
        "explain": ("training.cli", "which features decide in a trained model"),
        "report": ("training.cli", "a study or a store as one HTML page"),
        "predict": ("training.predict_cli", "classify texts, files or a store's documents with a trained model"),
    },
    "this machine": {
        "doctor": ("ray_jobs.doctor", "whether this machine, or a cluster, can do the work, and what to do where not"),
        "cache": ("featurestore.cache_cli", "what is kept so that it need not be made again, and removing it"),
        "completion": ("featurestore.completion_cli", "complete commands and options in bash, zsh or fish"),
    },
}
COMMANDS = {name: where for group in GROUPS.values() for name, where in group.items()}

SUBMIT_SECONDS = END_SECONDS + 60  # to end: its Ctrl-C stops the job, and waits a minute for the cluster to say so

EPILOG = """\
start here:
  sparsemill demo                 corpus -> features -> classifiers, in a few minutes
  sparsemill saes --model NAME    which SAEs there are for a model
  sparsemill plan JOB.yaml        documents, tokens, units, bytes
  sparsemill extract JOB.yaml     run it; the same command again resumes it
  sparsemill submit JOB.yaml      the same on a Ray cluster
  sparsemill study STUDY.yaml     classifiers over the stored features

`sparsemill COMMAND --help` explains a command. Every command takes --json.
exit codes: 0 done, 1 the work failed, 2 wrong input or usage.
"""

YOUNG_OBJECTS = 50_000  # before garbage is looked for: importing torch makes a million objects, none of which is any


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    if argv is not None:
        return _run(list(argv))
    # The process is ours alone.
    say = functools.partial(fail, as_json="--json" in sys.argv)
    end_in_time(say, SUBMIT_SECONDS if "submit" in sys.argv[1:2] else END_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()  # the system takes memory back at once; looking for what is garbage in it takes 0.4 s with torch


def _run(argv: list[str]) -> int:
    """Run one command; the exit code."""
    front = _front_parser()
    if not argv or argv[0] not in COMMANDS:
        front.parse_known_args(argv or ["--help"])  # prints help or the version and exits, or goes on
        front.error(_no_command(argv))
    name, rest = argv[0], argv[1:]
    module = importlib.import_module(COMMANDS[name][0])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    parser = command_parser(name)
    args = parser.parse_args(rest)
    from featurestore.errors import SparsemillError

    try:
        if name == "study" and args.address:
            args.executor = on_ray(args.address)
        if name == "study":
            args.gather_evidence = gather_evidence
        if name == "predict":
            args.extracted = functools.partial(extracted, args.job)
            args.scored, args.scored_parts = scored, scored_parts
        if name == "init":
            args.choose_model = model_for
        if name == "names":
            args.stage_one = StageOne()
        if name == "completion":
            args.whole_parser = _whole_parser
        code = int(getattr(module, name)(args))
        print(end="", flush=True)  # a full disk or a closed pipe shows here, not after the last handler
        return code
    except SparsemillError as error:
        return fail(str(error), error.exit_code, args.json)
    except ModuleNotFoundError as error:
        return fail(missing(name, error), 1, args.json)
    except KeyboardInterrupt:
        return fail("stopped; the same command goes on from here", 130, args.json)
    except SystemExit as stop:  # SIGTERM; argparse has had its turn
        return fail("stopped; the same command goes on from here", int(stop.code or 0), args.json)
    except BrokenPipeError:
        # the reader of our output has gone (`sparsemill ... | head`): nobody is left to tell
        _discard_output()
        return 0
    except OSError as error:  # storage refused, and whoever met it had nothing to add
        try:
            print(end="", flush=True)
        except OSError:  # it is stdout itself that takes no more
            _discard_output()
        where = f" ({error.filename})" if error.filename else ""
        return fail(f"{error.strerror or error}{where}; check space, path and access", 1, args.json)


def command_parser(name: str) -> Parser:
    """The parser of a command's arguments."""
    _, line = COMMANDS[name]
    parser = Parser(prog=f"sparsemill {name}", description=line, formatter_class=argparse.RawDescriptionHelpFormatter)
    return _with_arguments(parser, name)


def _with_arguments(parser: Parser, name: str) -> Parser:
    getattr(importlib.import_module(COMMANDS[name][0]), f"{name}_parser")(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    return parser


def _whole_parser() -> Parser:
    """All commands in one parser, which takes a second to make; `main` asks for one command's only."""
    parser = Parser(prog="sparsemill")
    parser.add_argument("--version", action="version", version=f"sparsemill {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (_, line) in COMMANDS.items():
        _with_arguments(commands.add_parser(name, help=line), name)
    return parser


def _no_command(argv: Sequence[str]) -> str:
    """What is wrong with arguments that do not begin with a command."""
    word = next((word for word in argv if not word.startswith("-")), None)
    if word is None:
        return f"unrecognized arguments: {' '.join(argv)}"
    if word == "help":
        return "there is no command 'help'; say `sparsemill --help`, or `sparsemill COMMAND --help`"
    if word in COMMANDS:
        return f"the command comes first: sparsemill {word} {' '.join(arg for arg in argv if arg != word)}"
    return f"there is no command '{word}'{did_you_mean(word, COMMANDS)} (commands: {', '.join(COMMANDS)})"


def _discard_output() -> None:
    """Send what is left of stdout nowhere, so that the interpreter can flush it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _front_parser() -> Parser:
    commands = "\n".join(
        "\n".join([f"{doing}:", *(f"  {name:<10} {line}" for name, (_, line) in group.items())])
        for doing, group in GROUPS.items()
    )
    parser = Parser(
        prog="sparsemill",
        description=f"Sparse-autoencoder features of text corpora, and classifiers over them.\n\n{commands}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="sparsemill COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"sparsemill {__version__}")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
