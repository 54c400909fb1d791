"""Retell pydantic's findings about a spec as one sentence, in the words of the file and not of Python.

A sentence names the key as the user wrote it, what is wrong and what to do. An unknown key is looked for at every
level, for a key in the wrong place is the commonest mistake after a slip of the pen.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from featurestore.base.did_you_mean import did_you_mean, nearest

_SAID = {  # what pydantic would say in Python's words
    "model_type": "must be a mapping of 'key: value' lines",
    "tuple_type": "must be a list, [a, b] or one '- a' a line",
    "bool_type": "must be true or false",
    "string_too_short": "must be filled in",
    "too_short": "is empty; name at least one",
}
_KINDS = {  # of files: the keys that tell each, and what to do with one in another's place
    "a file that a command wrote": (
        {"format", "format_version", "fingerprint", "methods", "versions"},
        "give the YAML file",
    ),
    "a job": ({"corpus", "model", "saes"}, "give it to `sparsemill plan`, `extract` or `submit`"),
    "a label job": ({"corpus", "model", "task"}, "give it to `sparsemill label`"),
    "a study": ({"label", "features", "baselines", "probes", "split", "transfer"}, "give it to `sparsemill study`"),
    "a rates file": ({"hardware", "currency"}, "give it to `sparsemill plan --rates`"),
}
_QUOTED, _POWER = re.compile("'([^']+)'"), re.compile(r"([1-9][0-9]{0,3})[eE]\+?([0-9]{1,2})")
_PERCENT, _NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*%\s*"), re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def another_kind(mapping: Mapping[str, Any], model: type[BaseModel]) -> str | None:
    """The sentence for a file of another kind than `model` describes, such as a study where a job is expected."""

    def told_by(names: set[str]) -> int:
        return len(names & set(mapping))

    wanted = next((kind for kind, (names, _) in _KINDS.items() if names <= set(model.model_fields)), None)
    found = max(_KINDS, key=lambda kind: told_by(_KINDS[kind][0]))
    if wanted is None or told_by(_KINDS[found][0]) <= told_by(_KINDS[wanted][0]):
        return None
    return f"is {found}, and {wanted} is expected here; {_KINDS[found][1]}"


def sentence_of(problems: list[Any], mapping: Mapping[str, Any], model: type[BaseModel]) -> str:
    """The most telling of pydantic's findings, and how many more there are."""
    # Where text, nothing or a mapping may stand and a mapping does, what is wrong inside it counts, not what it is not.
    instead = {"string_type", "none_required"}
    problems = [p for p in problems if p["type"] not in instead or not isinstance(p["input"], Mapping)] or problems
    # An unknown key is the cause, a missing one often its effect: speak of the cause.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    # A union has said what else might have stood there.
    same = [p for p in problems if p is not first and _key(p, mapping) == _key(first, mapping)]
    words = [p["ctx"]["expected"] for p in same if p["type"] == "literal_error"]
    sentence = _sentence(first, mapping, model, words)
    # A key that is missing because it was misspelt has been named already.
    meant = [p for p in problems if p["type"] == "missing" and f"'{p['loc'][-1]}'" in sentence and p is not first]
    others = len({_key(p, mapping) for p in problems if p not in meant}) - 1
    return sentence + (f" ({others} more like this)" if others else "")


def _sentence(problem: Any, mapping: Mapping[str, Any], model: type[BaseModel], words: Sequence[str]) -> str:
    key, kind, given = _key(problem, mapping), problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return _unknown(key, _steps(problem, mapping), model)
    if kind == "missing":
        return f"key '{key}' is missing; add it"
    if given is None:
        return f"'{key}' has no value; write one behind the colon"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in {"value_error", "assertion_error"}:  # written by our own validators: already a sentence
        return f"'{key}': {message}" if key else message
    if kind == "too_short":
        return f"'{key}': {_SAID[kind]}"
    if kind.endswith("_parsing") or kind == "int_from_float":
        message = message.partition(",")[0]  # what follows is about Python's parser
    said = f"'{key}' {_SAID[kind]}" if kind in _SAID else f"'{key}': {message[:1].lower()}{message[1:]}"
    return f"{' or '.join([said, *words])}, not {shown(given)}{_remedy(problem, key, model)}"


def _remedy(problem: Any, key: str, model: type[BaseModel]) -> str:
    """What to do about a value of the wrong type or size, where that is plain."""
    kind, given = problem["type"], problem["input"]
    is_number = isinstance(given, int | float)
    if kind == "string_type":
        return "; put quotes around it" if is_number else ""
    if kind == "literal_error":
        return did_you_mean(str(given), _QUOTED.findall(problem["ctx"]["expected"]))
    if kind == "tuple_type" and (isinstance(given, str | Mapping) or is_number):
        items = next((cls for place, cls in levels(model) if ".".join(place) == key), None)
        needed = [name for name, field in items.model_fields.items() if field.is_required()] if items else []
        one = {needed[0]: given} if len(needed) == 1 and not isinstance(given, Mapping) else given
        return f"; write {key.rpartition('.')[2]}: [{shown(one)}]"
    if kind == "model_type":
        wanted = next(cls for _, cls in levels(model) if cls.__name__ == problem["ctx"]["class_name"])
        required = [(f.alias or name, f.annotation) for name, f in wanted.model_fields.items() if f.is_required()]
        if len(required) != 1 or (required[0][1] is int) != is_number or not isinstance(given, str | int | float):
            return ""
        name = key.rpartition(".")[2]
        return f"; write {'' if name.isdecimal() else f'{name}: '}{{{required[0][0]}: {shown(given)}}}"
    bound = next((bound for name, bound in problem.get("ctx", {}).items() if name in {"le", "lt"}), None)
    if bound is not None and bound <= 1 and 1 < float(given) <= 100:
        return f"; it is a fraction, and {float(given):g} percent are {float(given) / 100:g}"
    if isinstance(given, str) and (percent := _PERCENT.fullmatch(given)) and kind.startswith("float_"):
        return f"; it is a fraction, and {given.strip()} are {float(percent[1]) / 100:g}"
    if isinstance(given, str) and kind.startswith("int_") and (power := _POWER.fullmatch(given)):
        return f"; write {int(power[1]) * 10 ** int(power[2])}"
    if isinstance(given, str) and kind.startswith(("int_", "float_")) and _NUMBER.fullmatch(given.strip()):
        return "; remove the quotes"
    return ""


def _unknown(key: str, steps: list[Any], model: type[BaseModel]) -> str:
    """The sentence for a key that does not exist there: a slip, or one that belongs elsewhere."""
    *way, name = steps
    level = tuple(step for step in way if isinstance(step, str))
    here: dict[str, None] = {}
    elsewhere: dict[str, list[tuple[str, ...]]] = {}
    for place, cls in levels(model):
        for there in (field.alias or attribute for attribute, field in cls.model_fields.items()):
            if place == level:
                here[there] = None
            else:
                elsewhere.setdefault(there, []).append(place)
    hint = did_you_mean(str(name), here)
    near = nearest(str(name), elsewhere, slips_only=True)
    if near and not nearest(str(name), here, slips_only=True):
        places = [f"under '{'.'.join(place)}'" if place else "at the top level" for place in elsewhere[near[0]]]
        where = " or ".join(sorted(places, key=lambda place: place.count("."))[:2])
        hint = f"; it belongs {where}" if near[0] == name else f"; did you mean '{near[0]}', which belongs {where}?"
    return f"unknown key '{key}'{hint} (valid: {', '.join(here)})"


def levels(model: type[BaseModel], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """(way of keys, what stands there) of a model and all that are inside it."""
    yield place, model
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            yield from levels(inner, (*place, name))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [cls for part in typing.get_args(annotation) for cls in _models_in(part)]


def _key(problem: Any, mapping: Mapping[str, Any]) -> str:
    return ".".join(str(step) for step in _steps(problem, mapping))


def _steps(problem: Any, mapping: Mapping[str, Any]) -> list[Any]:
    """The way of keys and list positions as the user wrote them.

    Pydantic puts the branches of unions ("str", "ModelName") into it, and positions of lists that the user wrote as a
    lone value; what is not in the mapping was not written.
    """
    found: list[Any] = []
    here: Any = mapping
    for step in problem["loc"]:
        if (isinstance(here, Mapping) and step in here) or (isinstance(here, list | tuple) and isinstance(step, int)):
            here = here[step]
            found.append(step)
    if problem["type"] == "missing":
        found.append(problem["loc"][-1])
    return found


def shown(value: object) -> str:
    """A value as YAML has it, in a few words."""
    text = _yaml(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _yaml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(inner) for inner in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(getattr(value, "written", None) or repr(value))


def kind_of(value: object) -> str:
    """What a YAML file holds that is no mapping."""
    names = {list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "value")
