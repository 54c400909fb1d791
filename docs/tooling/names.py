"""The page of every public Python name: how it is called and what its docstring says."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

from docs.tooling.docstrings import Docstring, docstring_of
from docs.tooling.markdown import MADE, cell

PACKAGES = ("sparsemill", "featurestore", "training")
WIDTH = 100
FILES = {"JobSpec": "job.md", "StudySpec": "study.md"}


def page() -> str:
    """The reference page."""
    lines = [
        "# Every public Python name",
        "",
        MADE,
        "",
        "Names are imported from their package (`from featurestore import FeatureStore`) and loaded on first use. What "
        "is not listed here may change with any version. [How they go together](../python.md).",
    ]
    for package in PACKAGES:
        module = importlib.import_module(package)
        lines += ["", f"## {package}", "", docstring_of(module).summary]
        for name in module.__all__:
            lines += ["", f"### {package}.{name}", "", *_of(package, name, getattr(module, name))]
    return "\n".join(lines) + "\n"


def _of(package: str, name: str, documented: Any) -> Iterator[str]:
    said = docstring_of(documented)
    home = str(getattr(documented, "__module__", "")).partition(".")[0]
    if home in PACKAGES and home != package and name in importlib.import_module(home).__all__:
        yield f"The same as [{home}.{name}](#{home}{name.lower()})."
        return
    if name in FILES:
        yield f"{cell(said.summary)} Its attributes are the keys of the file: [{FILES[name]}]({FILES[name]})."
        return
    yield from _code(f"{name}{_signature(documented)}")
    yield from _said(said)
    if not inspect.isclass(documented):
        return
    members = list(_members(documented))
    yield from ("Methods and properties:", "") if members else ()
    for member, of_class in members:
        shown = "len(store)" if member == "__len__" else f"{member}{_signature(of_class, True)}"
        yield f"- **`{shown}`**"
        yield from (f"    {line}".rstrip() for line in _said(docstring_of(of_class)))


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class of ours defines, in the order of its source."""
    for base in cls.__mro__:
        if not base.__module__.startswith(PACKAGES):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") and name != "__len__":
                continue
            if isinstance(member, classmethod | staticmethod):
                yield name, member.__func__
            elif isinstance(member, property | types.FunctionType):
                yield name, member


def _said(said: Docstring) -> Iterator[str]:
    yield from ("", cell(said.summary))
    if said.body:
        yield from ("", cell(said.body))
    for section, entries in said.entries.items():
        yield ""
        verb = "" if section in ("Args", "Attributes") else f"{section.lower()} "
        for name, text in entries.items():
            yield f"- {verb}{f'`{name}`: ' if name else ''}{cell(text)}"
    yield ""


def _signature(documented: Any, of_class: bool = False) -> str:
    if isinstance(documented, property):
        return f": {documented.fget.__annotations__.get('return', 'Any')}"
    try:
        found = inspect.signature(documented)
    except (TypeError, ValueError):
        return ""
    words, starred = [], False
    for one in found.parameters.values():
        if of_class and one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        starred = starred or one.kind is one.VAR_POSITIONAL
        prefix = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        kind = "" if one.annotation is one.empty else f": {_annotation(one.annotation)}"
        default = "" if one.default is one.empty else f" = {_shown(one.default)}"
        words.append(f"{prefix}{one.name}{kind}{default}")
    silent = found.return_annotation is found.empty or inspect.isclass(documented)
    back = "" if silent else f" -> {_annotation(found.return_annotation)}"
    return f"({', '.join(words)}){back}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _shown(default: Any) -> str:
    return getattr(default, "__name__", "...") if callable(default) else repr(default)


def _code(call: str) -> Iterator[str]:
    if len(call) > WIDTH:  # a parameter a line
        call = re.sub(r"(\(|, )(\w+): ", r"\1\n    \2: ", call).replace(" \n", "\n")
    yield from ("```text", call, "```")
