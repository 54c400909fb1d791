"""The command `completion`: a script that lets a shell complete commands, options, choices and names of files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from featurestore.base.json_text import print_json

SHELLS = ("bash", "zsh", "fish")
FILES = frozenset(
    ["store", "out", "job", "study", "model", "place", "files", "corpus", "rates", "input", "runtime_env"]
)
"""Arguments that name files, directories or URLs; of the others a shell knows nothing."""


def completion_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `completion`."""
    parser.description = "Print a script that lets a shell complete commands, options, choices and names of files."
    parser.epilog = (
        "examples:\n"
        "  sparsemill completion bash > ~/.local/share/bash-completion/completions/sparsemill\n"
        "  sparsemill completion zsh > ~/.zfunc/_sparsemill\n"
        "  sparsemill completion fish > ~/.config/fish/completions/sparsemill.fish\n\n"
        "A new shell reads it. The folder has to be there; zsh's on its fpath: `fpath+=~/.zfunc` before compinit.\n"
        "The script knows the commands of this version: write it anew after an update."
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell it is for")


def completion(args: argparse.Namespace) -> int:
    """Run `sparsemill completion`."""
    import shtab

    whole: Callable[[], argparse.ArgumentParser] = args.whole_parser  # the front door's, which alone has all commands
    parser = whole()
    for action in _actions(parser):
        if action.dest in FILES and not action.choices and action.nargs != 0:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
    script = shtab.complete(parser, args.shell)
    if args.json:
        return print_json({"shell": args.shell, "script": script})
    print(script)
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
