"""The page of every command: what it does, its arguments and its examples, from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from docs.tooling.markdown import MADE, cell, table
from sparsemill.commands import COMMANDS, GROUPS, command_parser

ROOT = Path(__file__).parent.parent.parent


def page() -> str:
    """The reference page."""
    lines = [
        "# Every command",
        "",
        MADE,
        "",
        "`sparsemill COMMAND --help` prints the same. Every command takes `--json` ([what it prints](json.md)). Exit "
        "codes: 0 done, 1 the work failed, 2 wrong input or usage, in one sentence.",
        "",
    ]
    for doing, group in GROUPS.items():
        lines.append(f"- {doing}: {', '.join(f'[{name}](#{name})' for name in group)}")
    for name, (_, line) in COMMANDS.items():
        lines += ["", f"## {name}", "", *_of_parser(command_parser(name), line)]
    return "\n".join(lines) + "\n"


def _of_parser(parser: argparse.ArgumentParser, line: str) -> Iterator[str]:
    about = parser.description or line
    yield f"{cell(about[:1].upper() + about[1:]).rstrip('.')}."
    yield ""
    yield from ("```text", usage(parser), "```")
    rows = [
        (f"`{_written(action)}`", cell(_help(parser, action)))
        for action in parser._actions
        if action.help is not argparse.SUPPRESS
        and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        and action.dest != "json"
    ]
    if rows:
        yield ""
        yield from table(("argument", "is"), rows)
    if parser.epilog:
        yield ""
        yield "```text"
        yield parser.epilog.replace(f"{ROOT}/", "").strip()
        yield "```"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                help_lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
                yield from ("", f"### {inner.prog.removeprefix('sparsemill ')}", "")
                yield from _of_parser(inner, help_lines.get(name, ""))


def usage(parser: argparse.ArgumentParser) -> str:
    """How a command is called, in one line, the same in every version of Python."""
    words = [parser.prog]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words.append("{" + ",".join(action.choices) + "}")
        elif not action.option_strings:
            name = _value(action)
            words.append({"?": f"[{name}]", "+": f"{name}...", "*": f"[{name}...]"}.get(str(action.nargs), name))
        elif action.required:
            words.append(_written(action))
    return " ".join([*words, "[OPTIONS]"])


def _written(action: argparse.Action) -> str:
    if not action.option_strings:
        return _value(action)
    value = "" if action.nargs == 0 else f" {_value(action)}{'...' if action.nargs in ('+', '*') else ''}"
    return ", ".join(f"{option}{value}" for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action).replace(f"{ROOT}/", "") if action.help else ""
