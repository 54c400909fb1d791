"""The YAML of spec files: the safe part of it, with what people write taken as they meant it.

YAML reads `no` as false, `010` as eight and 2020-01-01 as a date; here a word is a word and a number remembers how it
was written, so that names and values of columns can be compared with what stands in a file. What only causes trouble
is refused: anchors and aliases (alias bombs), duplicate keys (the first would be lost silently), keys that are no text.
A mistake becomes a few words with its line.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
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


class WrittenInt(int):
    """A whole number that remembers how it was written."""

    written: str


class WrittenFloat(float):
    """A number that remembers how it was written."""

    written: str


class StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases, merges and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise Refused(
                f"line {event.start_mark.line + 1}: anchors and aliases are refused; write the value out, or put "
                "quotes around one that begins with & or *"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                cut = str(key_node.value).isdecimal() and value_node.value == ""  # {max_tokens: 1,000} has the key 000
                comma = ", or remove the comma before it from a number" if cut else ""
                raise Refused(f"line {line}: a key must be plain text; put quotes around it{comma}")
            if key_node.value in seen:
                raise Refused(f"line {line}: key '{key_node.value}' is given twice; remove one")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class SpecLoader(StrictLoader):
    """StrictLoader that makes numbers of what plainly is one, and leaves words and dates as they are written."""


def _word(loader: SpecLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _int(loader: SpecLoader, node: yaml.ScalarNode) -> Any:
    text = _word(loader, node)
    if _DECIMAL.fullmatch(text) is None:  # octal, hexadecimal, a time of day: no number that a spec has
        return text
    number = WrittenInt(text.replace("_", ""))
    number.written = text
    return number


def _float(loader: SpecLoader, node: yaml.ScalarNode) -> Any:
    text = _word(loader, node)
    if ":" in text:
        return text
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.written = text
    return number


def _date(loader: SpecLoader, node: yaml.ScalarNode) -> str:
    loader.construct_yaml_timestamp(node)  # raises ValueError where there is no such day
    return _word(loader, node)


SpecLoader.add_constructor("tag:yaml.org,2002:bool", _word)
SpecLoader.add_constructor("tag:yaml.org,2002:int", _int)
SpecLoader.add_constructor("tag:yaml.org,2002:float", _float)
SpecLoader.add_constructor("tag:yaml.org,2002:timestamp", _date)


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
