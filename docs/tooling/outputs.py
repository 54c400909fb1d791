"""What every command prints with `--json`: shapes with a version, as a page and as JSON Schemas.

Keys that come from a record of the code are read off its fields, what they mean off its docstring; only what a command
adds is written here. Every document that a test's command prints is held to one of these shapes (tests/conftest.py).
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from docs.tooling.docstrings import docstring_of
from docs.tooling.markdown import MADE, cell, table
from featurestore.base.json_text import json_text


class Shape(NamedTuple):
    """One shape of a document.

    Attributes:
        command: Whose, "" for errors of all.
        when: Which of the command's documents.
        records: Dataclasses ("module:Class") whose fields are keys of it.
        own: Key -> "type: what it is" of what the command adds. Types are words of `_WORDS`, records, and [lists] of
            them; a ? behind it allows null.
        optional: Keys that may be left out.
        version: As it is printed.
    """

    command: str
    when: str
    records: tuple[str, ...]
    own: Mapping[str, str]
    optional: tuple[str, ...] = ()
    version: int = 1

    @property
    def title(self) -> str:
        """The name of its schema."""
        return " ".join(word for word in (self.command, self.when) if word)


_WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("text", {"type": "string"}),
    "whole": ("a whole number", {"type": "integer"}),
    "number": ("a number", {"type": "number"}),
    "flag": ("true or false", {"type": "boolean"}),
    "map": ("a mapping", {"type": "object"}),
    "counts": ("name -> count", {"type": "object", "additionalProperties": {"type": "integer"}}),
    "document": ("a mapping", {"type": "object", "required": ["version"]}),
}
_BUNDLE = {
    "sha256": "text: of the bundle",
    "model": "text: the language model",
    "dtype": "text: of its weights",
    "hook_layers": "[whole?]: layers at whose hooks SAEs read, null for the embedding",
    "saes": "[map]: name, layer, site, d_sae, what does not match, and sha256 of each SAE",
    "bytes": "whole: on disk",
}
_NAMED = {"sha256": "text: of the SAE's encoder", "d_sae": "whole: its features"}
_STEPS = {
    "store": "text: the store",
    "results": "text: directory of the study",
    **{name: f"document: what `{name}` printed" for name in ("prepare", "plan", "extract", "verify", "study")},
}
_CACHE = {"cache": "text: the cache's directory"}

SHAPES = (
    Shape("", "of an error", (), {"error": "text: one sentence", "exit_code": "whole: 1, 2, 130 or 143"}),
    Shape("demo", "", (), _STEPS),
    Shape(
        "init",
        "",
        ("featurestore.starting.guess:Roles",),
        {
            "rows_seen": "whole: rows that were looked at",
            "model": "text: which model was chosen, and why",
            "written": "[text]: the files",
        },
    ),
    Shape(
        "init",
        "of a folder of images",
        (),
        {
            "images": "whole: image files in it",
            "classes": "counts: folders that hold them, and how many each does",
            "model": "text: which model was chosen, and why",
            "written": "[text]: the files",
        },
    ),
    Shape("run", "", (), _STEPS),
    Shape("prepare", "", (), {"bundle": "text: its directory", **_BUNDLE}),
    Shape(
        "plan",
        "",
        ("ray_jobs.planning.estimate:Estimate",),
        {
            "store": "text: where it goes",
            "fingerprint": "text: hash of everything that decides a value",
            "begun": "flag: whether the store has something",
            "finished": "flag: whether nothing is missing",
            "mean_tokens": "number: of a document, sampled",
            "sampled_documents": "whole: documents that were tokenised for that",
            "truncated_share": "number: share of documents that will be cut",
            "unreadable": "map: rows that cannot be read, their share, and in which files",
            "unkept": "[map]: kept columns whose values are not all kept as they are",
            "files": "whole: files of the corpus",
            "csv": "counts: how CSV files are written, and how many are",
            "reached_twice": "[list]: files that two paths reach",
            "bundle": "map: as `prepare` prints it",
            "compute": "map: device, dtype, threads, batch and attention",
            "memory": "map: bytes that a worker needs of each device, what there is, and whether it fits",
            "calibration": "ray_jobs.planning.calibrate:Calibration?: what --calibrate measured",
            "notes": "[text]: sentences that are good to know",
            "warnings": "[text]: sentences to think about first",
        },
    ),
    Shape(
        "extract",
        "",
        ("ray_jobs.run.outcome:ExtractResult",),
        {
            "fingerprint": "text: hash of everything that decides a value",
            "error": "text: why the exit code is 1, where too many documents failed",
            "exit_code": "whole: then",
            "error_kinds": "[map]: then: the commonest errors",
        },
        ("error", "exit_code", "error_kinds"),
    ),
    Shape("label", "", ("ray_jobs.labels.run:Labelled",), {}),
    Shape(
        "label",
        "of questions",
        (),
        {
            "rows": "whole: of the corpus",
            "questions": "[map]: of the first rows: id, prompt, choices with the place of the right one or right "
            "answers, and separator; or id and error",
        },
    ),
    Shape(
        "submit",
        "",
        ("ray_jobs.cluster.submit:Submitted",),
        {"address": "text: of the cluster", "store": "text: the job's store; of a label job that of its parts"},
    ),
    Shape("stop", "", (), {"store": "text: the job's store", "stopped": "[text]: what was stopped"}),
    Shape("saes", "", (), {"saes": "[ray_jobs.prepare.registry:RegisteredSae]: those that were asked for"}),
    Shape(
        "status",
        "",
        ("featurestore.status:RunStatus",),
        {"store": "text: the store", "fingerprint": "text: hash of everything that decides a value"},
    ),
    Shape(
        "verify",
        "",
        ("featurestore.checks.verify:VerifyReport",),
        {"store": "text: the store", "ok": "flag: whether every promise holds"},
    ),
    Shape(
        "show",
        "of a store",
        (),
        {
            "store": "text: the store",
            "complete": "flag: whether all parts are there",
            "schema": "map: its columns",
            "documents": "[map]: the first, as column -> value",
        },
    ),
    Shape("show", "of a document", ("featurestore.index.lookup:DocumentView",), {}),
    Shape("show", "of a feature", ("featurestore.index.lookup:FeatureView",), {}),
    Shape("tokens", "", (), {"documents": "[map]: tokens of each, with the activations of features"}),
    Shape(
        "names",
        "import and fetch",
        ("featurestore.names.merging:Kept",),
        {**_NAMED, "notes": "[text]: sentences that are good to know"},
    ),
    Shape(
        "names",
        "list",
        (),
        {
            **_NAMED,
            "table": "text: the file",
            "names": "whole: how many there are",
            "features": "whole: that have one",
            "prefer": "[text]: whose come first",
            "explainers": "[map]: source, explainer, method, and names by them",
            "rows": "[featurestore.names.table:NameRow]: the names",
        },
    ),
    Shape(
        "names",
        "keywords and generate",
        (),
        {
            "sae": "text: its name in the store",
            "sha256": "text: of its encoder",
            "features": "[map]: feature, name, explainer, documents it fires in, and what the name was made from",
            "notes": "[text]: sentences that are good to know",
        },
    ),
    Shape(
        "compact",
        "",
        (),
        {
            "store": "text: the old store",
            "out": "text: the new one",
            "parts_before": "whole: parts of the old one",
            "parts": "whole: of the new one",
            "documents": "whole: rows of both",
            "fingerprint": "text: of the new one",
        },
    ),
    Shape("export", "", ("featurestore.convert.export:Exported",), {}),
    Shape(
        "study",
        "",
        (),
        {
            "summary": "map: what results.json holds",
            "explanation": "map?: what explanation.json holds",
            "paths": "map: name -> file of each result",
        },
    ),
    Shape("explain", "", (), {"explanation": "map: the deciding features", "names": "map: feature -> its name"}),
    Shape("report", "", (), {"report": "text: the file"}),
    Shape(
        "predict",
        "of documents",
        (),
        {
            "method": "text: the model's method",
            "out": "text?: the table that was written",
            "warnings": "[text]: sentences to think about",
            "trained_on": "whole: documents whose ids are those of training documents",
            "decisions": "counts: decision -> documents",
            "evaluation": "map?: with --evaluate: scores, intervals, what an operating point decides, drift",
            "drift": "training.scores.drift:Shifts?: with --drift",
            "predictions": "[map]: a document each (docs/predict.md)",
        },
    ),
    Shape(
        "predict",
        "into a directory of parts",
        (),
        {
            "method": "text: the model's method",
            "out": "text: the directory",
            "documents": "whole: documents in it",
            "parts": "whole: parts in it",
            "decisions": "counts: decision -> documents",
            "evaluation": "map?: with --evaluate: as for documents; no drift",
        },
    ),
    Shape(
        "doctor",
        "",
        (),
        {
            "ok": "flag: whether nothing would stop the work",
            "findings": "[ray_jobs.doctor:Finding]: what was looked at",
        },
    ),
    Shape(
        "completion",
        "",
        (),
        {"shell": "text: which it is for", "script": "text: what the shell is to read"},
    ),
    Shape(
        "cache",
        "list",
        (),
        {
            **_CACHE,
            "bytes": "whole: of all entries",
            "entries": "[map]: kind, path, bytes, last_used and what each is about",
        },
    ),
    Shape(
        "cache",
        "clean",
        (),
        {
            **_CACHE,
            "removed": "[map]: entries that were, or would be",
            "dry_run": "flag: whether nothing was removed",
            "busy": "whole: entries that another process makes just now, and that stay",
        },
    ),
)


def shapes_of(command: str) -> list[Shape]:
    """The shapes of a command's documents."""
    return [shape for shape in SHAPES if shape.command == command]


def schema(shape: Shape) -> dict[str, Any]:
    """The JSON Schema of a shape. Keys that are not in it are refused: a new one is documented first."""
    return _schema(shape.command, shape.when)


@cache
def _schema(command: str, when: str) -> dict[str, Any]:
    shape = next(one for one in SHAPES if (one.command, one.when) == (command, when))
    defs: dict[str, Any] = {}
    properties: dict[str, Any] = {"version": {"const": shape.version}}
    for record in shape.records:
        properties |= _record_schema(record, defs)["properties"]
    for key, said in shape.own.items():
        kind, _, meaning = said.partition(": ")
        properties[key] = {**_schema_of(kind, defs), "description": meaning}
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"sparsemill {shape.title} --json" if shape.command else "an error, with --json",
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key not in shape.optional],
        "additionalProperties": False,
    }
    return {**found, "$defs": defs} if defs else found


def fitting(document: Mapping[str, Any]) -> list[Shape]:
    """The shapes whose keys are those of a document."""
    keys = set(document)
    return [shape for shape in SHAPES if set(schema(shape)["required"]) <= keys <= set(schema(shape)["properties"])]


def problem_of(document: Mapping[str, Any]) -> str | None:
    """Why a document has none of these shapes; None if it has one."""
    import jsonschema

    plain = json.loads(json_text(document))
    problem = f"no command prints the keys {', '.join(document)}: say it in docs/tooling/outputs.py"
    for shape in fitting(plain):
        validator = jsonschema.Draft202012Validator(schema(shape))
        if (found := jsonschema.exceptions.best_match(validator.iter_errors(plain))) is None:
            return None
        problem = f"{shape.title} --json: {found.json_path}: {found.message}"
    return problem


def page() -> str:
    """The reference page."""
    lines = [
        "# What `--json` prints",
        "",
        MADE,
        "",
        "Every command takes `--json` and prints one JSON document on stdout; everything else goes to stderr. "
        "`version` is that of the shape: it rises when a key goes or means something else, not when one is added. A "
        "number that is not finite is null. Each shape has a JSON Schema.",
    ]
    for command in dict.fromkeys(shape.command for shape in SHAPES):
        lines += ["", f"## {command or 'Errors'}"]
        for shape in shapes_of(command):
            if shape.command and shape.when:
                lines += ["", f"### {shape.title}"]
            lines += ["", f"Version {shape.version}; [schema](schemas/{file_name(shape)})", ""]
            lines += table(("key", "is", "meaning"), list(_rows(shape)))
    lines += ["", "## Records", "", "What stands in some of these documents."]
    for record in dict.fromkeys(record for shape in SHAPES for record in _inner(schema(shape))):
        lines += ["", f"### {record[0]}", ""]
        lines += table(("key", "is"), [(f"`{key}`", cell(text)) for key, text in record[1]])
    return "\n".join(lines) + "\n"


def file_name(shape: Shape) -> str:
    """Of a shape's schema."""
    return f"{shape.title.replace(' ', '-') or 'error'}.schema.json"


def _rows(shape: Shape) -> Iterator[tuple[str, str, str]]:
    for key, of_key in schema(shape)["properties"].items():
        if key != "version":
            left_out = ", where there is one" if key in shape.optional else ""
            yield f"`{key}`", said_type(of_key) + left_out, cell(of_key.get("description", ""))


def said_type(of_key: Mapping[str, Any]) -> str:
    """A type in words."""
    if "anyOf" in of_key:
        return " or ".join(dict.fromkeys(word for one in of_key["anyOf"] for word in said_type(one).split(" or ")))
    if "$ref" in of_key:
        return f"[{(name := of_key['$ref'].rpartition('/')[2])}](#{name.lower()})"
    if isinstance(of_key.get("type"), list):
        return " or ".join(said_type({"type": one}) for one in of_key["type"])
    if of_key.get("type") == "array":
        inner = said_type(of_key["items"]) if isinstance(of_key.get("items"), Mapping) else ""
        return f"a list of {inner}" if inner not in ("", "anything") else "a list"
    words = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words |= {"object": "a mapping", "null": "null"}
    if "enum" in of_key:
        return " or ".join(f"`{value}`" for value in of_key["enum"])
    return words.get(str(of_key.get("type")), "anything")


def _inner(of_shape: Mapping[str, Any]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    for name, inner in of_shape.get("$defs", {}).items():
        rows = []
        for key, of_key in inner["properties"].items():
            meaning = of_key.get("description", "")
            rows.append((key, f"{said_type(of_key)}{f': {meaning}' if meaning else ''}"))
        yield name, tuple(rows)


def _schema_of(kind: str, defs: dict[str, Any]) -> dict[str, Any]:
    if kind.endswith("?"):
        return {"anyOf": [_schema_of(kind[:-1], defs), {"type": "null"}]}
    if found := re.fullmatch(r"\[(.*)\]", kind):
        return {"type": "array", **({} if found[1] == "list" else {"items": _schema_of(found[1], defs)})}
    if ":" in kind:
        name = kind.partition(":")[2]
        defs[name] = _record_schema(kind, defs)
        return {"$ref": f"#/$defs/{name}"}
    return dict(_WORDS[kind][1])


def _record_schema(record: str, defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass; those inside it go into `defs`."""
    module, _, name = record.partition(":")
    cls = getattr(importlib.import_module(module), name)
    found = TypeAdapter(cls).json_schema(mode="serialization")
    inner = found.pop("$defs", {})
    for one, below in {name: found, **inner}.items():
        of_class = cls if one == name else _class_named(cls, one)
        _say(below, of_class)
        if one != name:
            defs[one] = below
    return found


def _say(of_class: dict[str, Any], cls: type) -> None:
    """Put what the docstring says of each field into a schema; every field is there, and nothing else."""
    said: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        said |= docstring_of(base).entries.get("Attributes", {})
    of_class.pop("description", None)
    of_class["additionalProperties"] = False
    of_class["required"] = list(of_class["properties"])
    for key, of_key in of_class["properties"].items():
        for noise in ("title", "default", "format"):
            of_key.pop(noise, None)
        if key in said:
            of_key["description"] = said[key]
        _nullable(of_key)


def _nullable(of_key: dict[str, Any]) -> None:
    """A number may be null where it is not finite."""
    if of_key.get("type") == "number":
        of_key["type"] = ["number", "null"]
    inside = [of_key.get(key) for key in ("items", "additionalProperties")]
    for below in [*of_key.get("anyOf", ()), *of_key.get("prefixItems", ()), *inside]:
        if isinstance(below, dict):
            _nullable(below)


def _class_named(cls: type, name: str) -> type:
    """A dataclass that a field of another one mentions."""
    seen, left = set(), [cls]
    while left:
        here = left.pop()
        module = importlib.import_module(here.__module__)
        seen.add(here)
        for one in [*vars(module).values()]:
            if isinstance(one, type) and one.__name__ == name and dataclasses.is_dataclass(one):
                return one
            if isinstance(one, type) and dataclasses.is_dataclass(one) and one not in seen:
                left.append(one)
    raise SystemExit(f"{cls.__name__} mentions {name}, which its modules do not have")
