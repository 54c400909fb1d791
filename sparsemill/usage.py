"""Take a command's arguments, and say in one sentence what is wrong with them, or with what was done."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.hostile_text import visible_lines
from featurestore.base.json_text import print_json
from featurestore.url_secrets import without_secrets


class Parser(argparse.ArgumentParser):
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
        sys.exit(fail(message + see, 2, self.as_json))


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


def fail(sentence: str, code: int, as_json: bool) -> int:
    from featurestore.storage.reachable import leave

    sentence = without_secrets(sentence)  # arguments and other libraries' words repeat a URL as it was given
    print(f"sparsemill: {visible_lines(sentence)}", file=sys.stderr)  # and files' words what a terminal would obey
    if as_json:
        print_json({"error": sentence, "exit_code": code})
    leave(code)
    return code
