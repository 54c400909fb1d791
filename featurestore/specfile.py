"""Reading JOB.yaml and STUDY.yaml: safe YAML in, a frozen pydantic model out, one sentence when it is wrong.

A spec file is small and flat, so what only causes trouble is refused: anchors and aliases (alias bombs), duplicate
keys (the first would be lost silently), documents that are no mapping, files over 1 MB, and URLs with a secret in them
(specs are copied, recorded and shown). An unknown key is answered with the nearest valid name. What the keys mean is
the models' business.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from featurestore.errors import UsageError
from featurestore.urls import secret_in

SpecT = TypeVar("SpecT", bound=BaseModel)

_SAID = {  # what pydantic would say in Python's words
    "model_type": "must be a mapping of 'key: value' lines",
    "tuple_type": "must be a list, [a, b] or one '- a' a line",
    "string_too_short": "must be filled in",
}

MAX_BYTES = 1_000_000  # a spec is a page of text; anything larger is the wrong file (a corpus, weights)


class _Refused(yaml.YAMLError):
    """A construct that YAML allows and a spec file does not; the message has no file name yet."""


class _SpecLoader(yaml.SafeLoader):
    """SafeLoader without aliases, merges and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(f"line {event.start_mark.line + 1}: anchors and aliases are refused; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise _Refused(f"line {line}: a key must be plain text; put quotes around it")
            if key_node.value in seen:
                raise _Refused(f"line {line}: key '{key_node.value}' is given twice; remove one")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load_spec(path: str | Path, model: type[SpecT], error: type[UsageError]) -> SpecT:
    """Read a YAML file into a frozen model.

    Args:
        path: The spec file on the local file system.
        model: A pydantic model with `extra="forbid"`.
        error: The class to raise, e.g. `JobSpecError`.

    Returns:
        A validated instance of `model`.

    Raises:
        error: The file is missing, too large, not YAML, or does not validate; one sentence naming file and key.
    """
    return parse_spec(load_mapping(path, error), model, error, where=str(path))


def load_mapping(path: str | Path, error: type[UsageError]) -> dict[str, Any]:
    """Read a YAML file as a mapping, without validating it against a model; same refusals as `load_spec`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise error(f"{path}: there is no such file; check the path") from None
    except OSError as exc:
        raise error(f"{path}: cannot be read ({exc.strerror or exc}); give the path of a YAML file") from None
    if len(data) > MAX_BYTES:
        raise error(f"{path}: is larger than {MAX_BYTES:,} bytes, so it is no spec file; check the path")
    try:
        mapping = yaml.load(data.decode("utf-8-sig"), Loader=_SpecLoader)
    except UnicodeDecodeError:
        raise error(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise error(f"{path}: {_yaml_problem(exc)}") from None
    if not isinstance(mapping, dict):
        found = "is empty" if mapping is None else f"holds a {_kind(mapping)}"
        raise error(f"{path}: {found}, but a spec is a mapping of 'key: value' lines")
    return mapping


def parse_spec(mapping: Mapping[str, Any], model: type[SpecT], error: type[UsageError], where: str) -> SpecT:
    """Validate a mapping into a frozen model.

    Args:
        mapping: Plain data, as YAML or JSON gives it.
        model: A pydantic model with `extra="forbid"`.
        error: The class to raise.
        where: What to call the source in messages, e.g. "job.yaml".

    Raises:
        error: One sentence naming the source, the key path, what is wrong and, for an unknown key, the nearest name.
    """
    for key, text in _texts(mapping, ""):
        if (secret := secret_in(text)) is not None:
            raise error(
                f"{where}: the URL in '{key}' carries {secret}; leave it out, storage takes credentials from the "
                "environment or the cloud's own chain"
            )
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as exc:
        problems = exc.errors(include_url=False)
        # An unknown key is the cause, a missing one often its effect: speak of the cause.
        # Where text or a mapping may stand and a mapping does, what is wrong inside it counts, not that it is no text.
        problems = [
            p for p in problems if p["type"] != "string_type" or not isinstance(p["input"], Mapping)
        ] or problems
        first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
        others = len({_key(p) for p in problems}) - 1
        more = f" ({others} more like this)" if others else ""
        raise error(f"{where}: {_sentence(first, model)}{more}") from None


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key path, text) of every text in plain data."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from _texts(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, below in enumerate(value):
            yield from _texts(below, f"{key}.{i}")


def _yaml_problem(exc: Exception) -> str:
    if isinstance(exc, _Refused):
        return str(exc)
    if isinstance(exc, RecursionError):
        return "is nested too deeply to be a spec; flatten it"
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or str(exc).splitlines()[0]
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}not valid YAML ({problem}); correct it there"


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    location = list(problem["loc"])
    key = _key(problem)
    if problem["type"] == "extra_forbidden":
        valid = _valid_names(model, location[:-1])
        near = get_close_matches(str(location[-1]), valid, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"unknown key '{key}'{hint} (valid: {', '.join(valid)})"
    if problem["type"] == "missing":
        return f"key '{key}' is missing; add it"
    if problem["type"] in _SAID:
        return f"'{key}' {_SAID[problem['type']]}, not {_shown(problem['input'])}"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if problem["type"] in {"value_error", "assertion_error"}:  # written by our own validators: already a sentence
        return f"'{key}': {message}" if key else message
    return f"'{key}': {message[:1].lower()}{message[1:]}, not {_shown(problem['input'])}"


def _key(problem: Any) -> str:
    """The path of keys as the user wrote them."""
    location = list(problem["loc"])
    written = 1 if problem["type"] in {"extra_forbidden", "missing"} else 0  # then the last step is a key for certain
    tags = range(1, len(location) - written)
    return ".".join(str(step) for i, step in enumerate(location) if i not in tags or not _is_union_tag(step))


def _is_union_tag(step: Any) -> bool:
    """Pydantic puts the branch of a union ("str", "list[str]", "ModelName") into the path; a user never wrote it."""
    return isinstance(step, str) and (step in {"str", "int", "float", "bool"} or "[" in step or step[:1].isupper())


def _valid_names(model: type[BaseModel], path: list[Any]) -> list[str]:
    """The keys that are valid at `path` below `model`."""
    here: list[type[BaseModel]] = [model]
    for step in path:
        if isinstance(step, int):
            continue
        fields = [cls.model_fields[step] for cls in here if step in cls.model_fields]
        if fields:
            here = [cls for field in fields for cls in _models_in(field.annotation)]
    return [name for cls in here for name in cls.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [cls for part in typing.get_args(annotation) for cls in _models_in(part)]


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "truth value", int: "number", float: "number"}.get(type(value), "value")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
