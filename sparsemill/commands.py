"""Mount the commands of all three packages in one program, turn exceptions into exit codes, and run the demo.

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
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.end_in_time import END_SECONDS, end_in_time
from featurestore.base.json_text import json_text, print_json
from featurestore.urls import without_secrets
from sparsemill.installation import missing
from sparsemill.stages import StageOne, extracted, gather_evidence, on_ray, scored, scored_parts
from sparsemill.version import __version__

if TYPE_CHECKING:
    from training.spec import StudySpec

# What one is doing -> its commands -> (module, one line of help). Each module has `<name>_parser(parser)` and
# `<name>(args) -> exit code`.
GROUPS = {
    "start here": {
        "demo": ("sparsemill.commands", "the whole way on real Gemma weights and real text, no account, no GPU"),
        "init": ("featurestore.starting.cli", "look at a table, and write a first job and study for it"),
        "run": ("sparsemill.commands", "a job and its study, from corpus to report; again: go on"),
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


OF_EVERY_STORE = ("doc_id", "n_tokens", "truncated", "error", "length")  # what a study may name though no job keeps it

YOUNG_OBJECTS = 50_000  # before garbage is looked for: importing torch makes a million objects, none of which is any


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    if argv is not None:
        return _run(list(argv))
    # The process is ours alone.
    say = functools.partial(_fail, as_json="--json" in sys.argv)
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
            args.choose_model = _first_model_for
        if name == "names":
            args.stage_one = StageOne()
        if name == "completion":
            args.whole_parser = _whole_parser
        code = int(getattr(module, name)(args))
        print(end="", flush=True)  # a full disk or a closed pipe shows here, not after the last handler
        return code
    except SparsemillError as error:
        return _fail(str(error), error.exit_code, args.json)
    except ModuleNotFoundError as error:
        return _fail(missing(name, error), 1, args.json)
    except KeyboardInterrupt:
        return _fail("stopped; the same command goes on from here", 130, args.json)
    except SystemExit as stop:  # SIGTERM; argparse has had its turn
        return _fail("stopped; the same command goes on from here", int(stop.code or 0), args.json)
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
        return _fail(f"{error.strerror or error}{where}; check space, path and access", 1, args.json)


def command_parser(name: str) -> _Parser:
    """The parser of a command's arguments."""
    _, line = COMMANDS[name]
    parser = _Parser(prog=f"sparsemill {name}", description=line, formatter_class=argparse.RawDescriptionHelpFormatter)
    return _with_arguments(parser, name)


def _with_arguments(parser: _Parser, name: str) -> _Parser:
    getattr(importlib.import_module(COMMANDS[name][0]), f"{name}_parser")(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    return parser


def _whole_parser() -> _Parser:
    """All commands in one parser, which takes a second to make; `main` asks for one command's only."""
    parser = _Parser(prog="sparsemill")
    parser.add_argument("--version", action="version", version=f"sparsemill {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (_, line) in COMMANDS.items():
        _with_arguments(commands.add_parser(name, help=line), name)
    return parser


_BORROWED_SAE = (
    "  - release: gemma-scope-2b-pt-res-canonical",
    "    id: layer_12/width_16k/canonical",
    "    name: l12_16k",
    "    allow_mismatch: true",
)
"""An SAE that was trained on Gemma 2 2B, in a job of another model made from it."""


def _first_model_for(reads: str) -> Any:
    """A model and an SAE for somebody's first job of `text`, `image` or `messages`."""
    return {"text": _first_model, "image": _first_vision_model, "messages": _first_chat_model}[reads]()


def _first_model() -> Any:
    """A model and an SAE for somebody's first job: what this machine can run without an account, or with one."""
    from featurestore.starting.cli import ModelChoice
    from ray_jobs.demo import SAE_DIR, SAE_NAME, model_file
    from ray_jobs.quiet import silence_libraries

    silence_libraries()
    has_token = bool(os.environ.get("HF_TOKEN")) or Path("~/.cache/huggingface/token").expanduser().is_file()
    if has_token and _has_gpu():
        why = "Gemma 2 2B at layer 12, for there is a GPU and an access token of the hub"
        return ModelChoice(
            (
                f"model:  # {why}",
                "  name: google/gemma-2-2b  # its licence has to be accepted on the hub once",
                "  dtype: bfloat16",
                "saes:",
                "  - {release: gemma-scope-2b-pt-res-canonical, id: layer_12/width_16k/canonical, name: l12_16k}",
            ),
            "l12_16k",
            why,
        )
    why = "Gemma 3 270M at layer 9, which runs here without an account or a GPU"
    return ModelChoice(
        (
            f"model:  # {why}",
            f"  name: {json_text(str(model_file()))}",
            "saes:",
            f"  - {{path: {json_text(str(SAE_DIR))}, name: {SAE_NAME}}}",
        ),
        SAE_NAME,
        why,
    )


def _first_vision_model() -> Any:
    """A model and an SAE for somebody's first job of images; there is none that needs no account."""
    from featurestore.starting.cli import ModelChoice

    why = "PaliGemma 2 3B at layer 12 of its Gemma 2 2B; it needs an access token of the hub, and a GPU to be quick"
    return ModelChoice(
        (
            f"model:  # {why}",
            "  name: google/paligemma2-3b-pt-224  # its licence has to be accepted on the hub once",
            "  # prompt: caption en  # what is fed behind every image",
            "saes:  # trained on texts of Gemma 2 2B: that it is another model is allowed here, and recorded",
            *_BORROWED_SAE,
        ),
        "l12_16k",
        why,
    )


def _first_chat_model() -> Any:
    """A model with a chat template, and an SAE, for somebody's first job of conversations; it needs an account."""
    from featurestore.starting.cli import ModelChoice

    why = "Gemma 2 2B-IT at layer 12, which has a chat template; it needs an access token of the hub"
    return ModelChoice(
        (
            f"model:  # {why}",
            "  name: google/gemma-2-2b-it  # its licence has to be accepted on the hub once",
            "  chat: true  # conversations are rendered by the model's own template",
            "  turns: [user]  # whose turns are pooled",
            "saes:  # trained on Gemma 2 2B: that it is another model is allowed here, and recorded",
            *_BORROWED_SAE,
        ),
        "l12_16k",
        why,
    )


def _has_gpu() -> bool:
    """Whether there is an NVIDIA driver; torch, which would know better, takes seconds to ask."""
    return Path("/proc/driver/nvidia/version").is_file()


class _Parser(argparse.ArgumentParser):
    """A usage error is a JSON document too where one was asked for."""

    as_json = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it; parsers of sub-commands are asked with their own arguments."""
        self.as_json = "--json" in (args or ())
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it; an argument that is empty names nothing, a text that is to be classified aside."""
        found = super().parse_args(args, namespace)
        for action in _actions(self):
            given = getattr(found, action.dest, None)
            if action.metavar != "TEXT" and (given == "" or (isinstance(given, list) and "" in given)):
                name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
                self.error(f"{name} is empty, as a variable of the shell without a value makes it; name something")
        return found

    def error(self, message: str) -> NoReturn:
        message = _in_plain_words(message, [option for action in _actions(self) for option in action.option_strings])
        self.print_usage(sys.stderr)
        see = "" if re.search("; |not allowed", message) else f"; see `{self.prog.removesuffix(' COMMAND')} --help`"
        sys.exit(_fail(message + see, 2, self.as_json))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser, and of the parsers of its sub-commands."""
    for action in parser._actions:
        yield action
        for below in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from _actions(below)


def _in_plain_words(message: str, options: Iterable[str]) -> str:
    """What argparse says of an argument, in our words and with what was meant where that is plain.

    Args:
        message: What it says.
        options: Those that the command has.
    """
    if option := re.match(r"unrecognized arguments: (--[\w-]+)", message):
        return message + did_you_mean(option[1], options)
    if needed := re.match("the following arguments are required: (.*)", message):
        return f"{needed[1]} {'are' if ', ' in needed[1] else 'is'} missing"
    if value := re.match("argument (.*): expected (one|at least one) argument", message):
        return f"{value[1]} needs a value behind it"
    if clash := re.match("argument (.*): not allowed with argument (.*)", message):
        return f"{clash[2]} and {clash[1]} do not go together; leave one of them out"
    message = re.sub("invalid int value: (.*)", r"must be a whole number, not \1", message)
    message = re.sub("invalid float value: (.*)", r"must be a number, not \1", message)
    if choice := re.match(r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)", message):
        there = [name.strip("'") for name in choice[3].split(", ")]
        if choice[1] == "-":  # of `predict`
            return f"'{choice[2]}' stands alone; texts are given with --text, files with --input, and - reads lines"
        return (
            f"{choice[1]}: there is no '{choice[2]}'{did_you_mean(choice[2], there) or ';'} there is {', '.join(there)}"
        )
    return message


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
    from featurestore.urls import shown
    from ray_jobs.spec import load_job
    from training.spec import load_study

    job, studied = load_job(args.job), load_study(args.study)
    store = job.store
    if _place(studied.store) != _place(store):
        raise StudyError(
            f"{args.study} reads the store {shown(studied.store)}, and {args.job} writes {shown(store)}; "
            "make them the same"
        )
    for key, column in _columns_read(studied):
        if column not in job.corpus.keep:  # said now, and not when the job has been paid for
            raise StudyError(
                f"{args.study}: {key}: {args.job} keeps no column '{column}'"
                f"{did_you_mean(column, job.corpus.keep) or ';'} add it to corpus.keep"
            )
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


def _columns_read(studied: StudySpec) -> Iterator[tuple[str, str]]:
    """(key, column) of what a study reads in the columns that its store keeps."""
    split = studied.split
    asked: list[tuple[str, object]] = [("label", studied.label), ("split.group", split.group)]
    asked += [("split.column.name", split.column and split.column.name), *(("by", one) for one in studied.by)]
    yield from ((key, column) for key, column in asked if isinstance(column, str) and column not in OF_EVERY_STORE)


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


def _front_parser() -> _Parser:
    commands = "\n".join(
        "\n".join([f"{doing}:", *(f"  {name:<10} {line}" for name, (_, line) in group.items())])
        for doing, group in GROUPS.items()
    )
    parser = _Parser(
        prog="sparsemill",
        description=f"Sparse-autoencoder features of text corpora, and classifiers over them.\n\n{commands}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="sparsemill COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"sparsemill {__version__}")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _fail(sentence: str, code: int, as_json: bool) -> int:
    from featurestore.storage.reachable import leave

    sentence = without_secrets(sentence)  # arguments and other libraries' words repeat a URL as it was given
    print(f"sparsemill: {sentence}", file=sys.stderr)
    if as_json:
        print_json({"error": sentence, "exit_code": code})
    leave(code)
    return code
