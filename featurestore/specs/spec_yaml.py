"""Parse the YAML of spec files: the safe part of it, with what people write taken as they meant it.

YAML reads `no` as false, `010` as eight and 2020-01-01 as a date; here a word is a word and a number remembers how it
was written, so that names and values of columns can be compared with what stands in a file. A mistake becomes a few
words with its line.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_QUOTES = "put quotes around the value"
_REMEDIES = {  # what PyYAML says -> what to do about it
    r"character '\\t'": "it is a tab; YAML is indented with spaces, so replace it",
    r"character .* cannot start": _QUOTES,
    r"mapping values are not allowed": "put quotes around a value that holds ': ', or mend the indentation",
    r"unknown escape": "write paths with / or between single quotes",
    r"unexpected end of stream": "close the quote",
    r"another document": "keep one of the parts that --- separates",
    r"tag '!": _QUOTES,
    r"block end|sequence entries": "check quotes and indentation there",
}


class Refused(yaml.YAMLError):
    """A construct that YAML allows and a spec file does not; the message has no file name yet."""


class WrittenWord(str):
    """A word that YAML takes for a truth value."""

    truth: bool


class WrittenInt(int):
    """A whole number that remembers how it was written."""

    written: str


class WrittenFloat(float):
    """A number that remembers how it was written."""

    written: str


class WrittenSafeLoader(yaml.SafeLoader):
    """SafeLoader that makes numbers of what plainly is one, and leaves words and dates as they are written."""


def _word(loader: WrittenSafeLoader, node: yaml.ScalarNode) -> str:
    word = WrittenWord(loader.construct_scalar(node))
    word.truth = bool(loader.construct_yaml_bool(node))
    return word


def _int(loader: WrittenSafeLoader, node: yaml.ScalarNode) -> object:
    text = str(loader.construct_scalar(node))
    if _DECIMAL.fullmatch(text) is None:  # octal, hexadecimal, a time of day: no number that a spec has
        return text
    number = WrittenInt(text.replace("_", ""))
    number.written = text
    return number


def _float(loader: WrittenSafeLoader, node: yaml.ScalarNode) -> object:
    text = str(loader.construct_scalar(node))
    if ":" in text:
        return text
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.written = text
    return number


def _date(loader: WrittenSafeLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    try:
        loader.construct_yaml_timestamp(node)
    except ValueError:
        raise Refused(f"line {node.start_mark.line + 1}: {text} is no day of the calendar; correct it") from None
    return text


WrittenSafeLoader.add_constructor("tag:yaml.org,2002:bool", _word)
WrittenSafeLoader.add_constructor("tag:yaml.org,2002:int", _int)
WrittenSafeLoader.add_constructor("tag:yaml.org,2002:float", _float)
WrittenSafeLoader.add_constructor("tag:yaml.org,2002:timestamp", _date)


def plain(value: object) -> Any:
    """What was read, for those who want truth values and not words."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.truth if isinstance(value, WrittenWord) else value


def yaml_problem(exc: Exception) -> str:
    """What is wrong with a file that cannot be read as YAML, where, and what to do."""
    if isinstance(exc, Refused):
        return str(exc)
    if isinstance(exc, RecursionError):
        return "is nested too deeply to be a spec; flatten it"
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or str(exc).splitlines()[0]
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    remedy = next((remedy for said, remedy in _REMEDIES.items() if re.search(said, problem)), "correct it there")
    if getattr(exc, "context", None) == "while scanning an alias":
        remedy = _QUOTES
    return f"{place}not valid YAML ({problem}); {remedy}"
