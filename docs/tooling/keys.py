"""The keys of JOB.yaml, LABEL.yaml and STUDY.yaml: a page of reference and a JSON Schema of each, from the models.

What a key means stands in one place, the `Attributes:` of its model's docstring; default, type and bounds are the
field's. An example of each comes from whole files in docs/reference/examples, which tests validate. A key that is
younger than the first version says so in its field: `Field(json_schema_extra={"since": "0.2.0"})`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from docs.tooling.docstrings import docstring_of
from docs.tooling.markdown import MADE, cell, table
from featurestore.specs.spec_sentences import levels

EXAMPLES = Path(__file__).parent.parent / "reference" / "examples"
FIRST = "0.1.0"


class Key(NamedTuple):
    """A key as a reader meets it."""

    place: tuple[str, ...]
    takes: str
    default: str
    meaning: str
    example: str
    since: str


class Section(NamedTuple):
    """A mapping of a spec file.

    Attributes:
        place: The way of keys that leads to it.
        heading: What it is called; where several kinds of mappings may stand in one place, by the key that each needs.
        about: What it is.
        rows: Its keys; none where they stand elsewhere.
        like: The link to where they stand, and what that is called.
    """

    place: tuple[str, ...]
    heading: str
    about: str
    rows: list[Key]
    like: tuple[str, str] | None = None


class Kind(NamedTuple):
    """A kind of spec file.

    Attributes:
        name: As pages call it; examples are called likewise.
        model: What validates it.
        about: What it says.
        of_job: Its mappings whose keys are those of a JOB.yaml.
    """

    name: str
    model: type[BaseModel]
    about: str
    of_job: tuple[str, ...] = ()


def kinds() -> dict[str, Kind]:
    """The kinds of files."""
    from ray_jobs.labels.spec import LabelSpec
    from ray_jobs.spec import JobSpec
    from training.spec import StudySpec

    return {
        "job": Kind("JOB.yaml", JobSpec, "what to compute: a corpus, a model, its SAEs, and the store they go to"),
        "label": Kind(
            "LABEL.yaml",
            LabelSpec,
            "what to ask a model about each row of a corpus: a JOB.yaml for `sparsemill label`, with a task and a "
            "table in place of SAEs and a store",
            ("corpus", "model", "workers", "units"),
        ),
        "study": Kind("STUDY.yaml", StudySpec, "what to ask of a store: labels, features, baselines, how to split"),
    }


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a kind of file, with meanings and examples, for editors."""
    found = kind.model.model_json_schema()
    shown = examples(kind)
    for place, model in levels(kind.model):
        here = found if not place else found["$defs"][model.__name__]
        said = docstring_of(model)
        here["description"] = said.summary
        here.pop("title", None)
        for name, of_key in here["properties"].items():
            of_key.pop("title", None)
            of_key.pop("since", None)
            of_key["description"] = _plain(_meaning(model, name))
            if (value := shown.get((*place, name))) is not None and not isinstance(value, Mapping):
                of_key["examples"] = [value]
    title = f"{kind.name} of Sparsemill"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **found}


def keys(kind: Kind) -> Iterator[Section]:
    """Every mapping of a kind of file, the outermost first; of a mapping in several places the keys come once."""
    whole = kind.model.model_json_schema()
    found = list(dict.fromkeys(levels(kind.model)))
    shown = examples(kind)
    sections = {place for place, _ in found if not place or place[0] not in kind.of_job}
    first: dict[type[BaseModel], str] = {}
    for place, model in found:
        heading = _heading(place, model, [of for there, of in found if there == place])
        about = docstring_of(model).summary
        if place and place not in sections:
            if len(place) == 1:
                yield Section(place, heading, about, [], (f"job.md#{place[0]}", "JOB.yaml"))
            continue
        if model in first:
            yield Section(place, heading, about, [], (f"#{_anchor(first[model])}", first[model]))
            continue
        first[model] = heading
        here = whole if not place else whole["$defs"][model.__name__]
        rows = [_key(model, name, place, here["properties"], whole, sections, shown) for name in model.model_fields]
        yield Section(place, heading, about, rows)


def _heading(place: tuple[str, ...], model: type[BaseModel], there: list[type[BaseModel]]) -> str:
    name = ".".join(place) or "At the top"
    needed = next((name for name, field in model.model_fields.items() if field.is_required()), "")
    return name if len(there) == 1 else f"{name} with {needed}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _key(
    model: type[BaseModel],
    attribute: str,
    place: tuple[str, ...],
    properties: Mapping[str, Any],
    whole: Mapping[str, Any],
    sections: set[tuple[str, ...]],
    shown: Mapping[tuple[str, ...], Any],
) -> Key:
    field = model.model_fields[attribute]
    name = field.alias or attribute
    value = None if (*place, name) in sections else shown.get((*place, name))
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Key(
        (*place, name),
        _takes(properties[name], whole.get("$defs", {})),
        "required" if field.is_required() else _default(field.get_default(call_default_factory=True)),
        _meaning(model, name),
        "" if value is None else f"{name}: {_flow(value)}",
        str(extra.get("since", FIRST)),
    )


def examples(kind: Kind) -> dict[tuple[str, ...], Any]:
    """Place of a key -> its value in the first example that has it."""
    found: dict[tuple[str, ...], Any] = {}
    for path in sorted(EXAMPLES.glob(f"{kind.name.partition('.')[0].lower()}*.yaml")):
        for place, value in _walk(yaml.safe_load(path.read_text(encoding="utf-8")), ()):
            found.setdefault(place, value)
    return found


def page(name: str, kind: Kind) -> str:
    """The reference page of a kind of file."""
    lines = [
        f"# Every key of {kind.name}",
        "",
        MADE,
        "",
        f"{kind.name} says {kind.about}. Unknown keys and impossible values are refused in one sentence, before "
        "anything is downloaded or started.",
        "",
        f"Editors complete and check it by its [JSON Schema](../../featurestore/specs/schemas/{name}.schema.json), "
        "which a file's first line names (`# yaml-language-server: $schema=...`; VS Code needs the YAML extension). "
        "What `sparsemill init` writes names the copy that is installed.",
    ]
    for section in keys(kind):
        lines += ["", f"## {section.heading}", "", _ticked(section.about), ""]
        if section.like is not None:
            lines.append(f"Its keys are those of [{section.like[1]}]({section.like[0]}).")
            continue
        lines += table(
            ("key", "takes", "default", "meaning", "example", "since"),
            [
                (f"`{row.place[-1]}`", row.takes, row.default, cell(row.meaning), _code(row.example), row.since)
                for row in section.rows
            ],
        )
    return "\n".join(lines) + "\n"


def _meaning(model: type[BaseModel], key: str) -> str:
    """What is said of a key, by the docstring of the model that has it or of one it is derived from."""
    attribute = next((name for name, field in model.model_fields.items() if field.alias == key), key)
    for cls in model.__mro__:
        if attribute in (entries := docstring_of(cls).entries.get("Attributes", {})):
            return entries[attribute]
    raise SystemExit(f"{model.__name__} does not say what '{key}' means; add it to the Attributes of its docstring")


def _takes(of_key: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if of_key.get("type") == "array" and " or " in (inner := _takes(of_key.get("items", {}), defs)):
        return f"a list of {inner}"
    return " or ".join(dict.fromkeys(_kinds_of(of_key, defs)))


def _kinds_of(of_key: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[str]:
    if "anyOf" in of_key or "oneOf" in of_key:
        options = [kind for one in of_key.get("anyOf", of_key.get("oneOf")) for kind in _kinds_of(one, defs)]
        yes = ("`yes`", "`no`", "`on`", "`off`")
        yield from (kind for kind in options if kind not in yes or "true or false" not in options)
    elif "$ref" in of_key:
        yield "a mapping"
    elif "enum" in of_key:
        yield from (f"`{value}`" for value in of_key["enum"])
    elif "const" in of_key:
        yield f"`{of_key['const']}`"
    elif of_key.get("type") == "array":
        inner = _takes(of_key.get("items", {}), defs)
        yield "a list" if inner == "a mapping" else f"a list of {inner}" if " or " not in inner else "a list of these"
    else:
        words = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
        yield words.get(of_key.get("type", ""), "null" if of_key.get("type") == "null" else "a mapping") + _bounds(
            of_key
        )


def _bounds(of_key: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {of_key[key]:,}".removesuffix(".0") for key, sign in signs.items() if key in of_key]
    return f" {', '.join(said)}" if said else ""


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "null"
    if isinstance(value, BaseModel):
        return "as below"
    return f"`{_flow(list(value) if isinstance(value, tuple) else value)}`"


class _OneLine(yaml.SafeDumper):
    """Writes a text with line breaks in one line."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\n" in value else None)


_OneLine.add_representer(str, _text)


def _flow(value: Any) -> str:
    style = {"default_flow_style": True, "width": 10_000, "sort_keys": False, "allow_unicode": True}
    text: str = yaml.dump(value, Dumper=_OneLine, **style)
    return text.removesuffix("\n").removesuffix("\n...")


def _walk(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield (*place, name), below
            yield from _walk(below, (*place, name))
    elif isinstance(value, list):
        for one in value:
            yield from _walk(one, place)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _ticked(text: str) -> str:
    return text.replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
