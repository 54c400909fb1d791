"""Write the first JOB.yaml and STUDY.yaml: what was guessed, and as comments why, and what else could be said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from featurestore import specs
from featurestore.base.hostile_text import visible
from featurestore.base.json_text import json_text
from featurestore.base.number_words import counted
from featurestore.starting.guess import Guess, Roles

_PLAINEST = {"text": "tfidf", "messages": "tfidf", "image": "pixels"}  # baselines that have seen no model
_ASKED = "# What to ask: `sparsemill study` trains, compares with baselines on one frozen split, and writes a report."
_HIDDEN = "hidden: [mean]           # the residual stream itself, for the comparison with SAE features"
_OF_TEXTS = (
    "# model.max_tokens is 1024: what is longer is cut; model.long_documents: windows reads on",
    "pool: [max, sum, count]  # of a feature over a document's tokens: strongest, total, how many",
    _HIDDEN,
)
_OF_IMAGES = (
    "pool: [max, sum, count]  # of a feature over an image's positions: strongest, total, how many",
    _HIDDEN,
    "pixels: 8                # each image as 8 x 8 fields: a baseline that has seen no model",
)
_PLAIN = re.compile(r"[A-Za-z_./~][A-Za-z0-9_./ -]*")


def job_text(files: Sequence[str], roles: Roles, model: Sequence[str], store: str) -> str:
    """JOB.yaml.

    Args:
        files: Of the corpus, as the job should name them.
        roles: What the columns are.
        model: The lines that name model and SAEs, with their comments.
        store: Where the store goes.
    """
    assert roles.text is not None
    of_images = roles.reads == "image"
    documents = () if of_images else (roles.text,)
    keep = [guess.column for guess in (*documents, *_kept(roles)) if guess is not None] + list(roles.kept)
    lines = [
        _schema_line("job"),
        "# What to compute: `sparsemill plan` prices it, `sparsemill extract` runs it, or what is missing of it.",
        "corpus:",
        f"  path: {_value(list(files) if len(files) > 1 else files[0])}",
        f"  {roles.reads}: {_value(roles.text.column)}  # {roles.text.why}",
    ]
    if roles.id is not None:
        lines.append(f"  id: {_value(roles.id.column)}  # {roles.id.why}")
    else:
        lines.append("  # id: COLUMN  # no column of unique ids was found: documents are called FILE:ROW")
    if keep:
        lines.append(f"  keep: {_value(keep)}  # copied into the store, for studies and reports to read")
    if roles.others:
        lines.append(f"  # also there: {', '.join(map(_value, roles.others))}")
    lines += [
        *model,
        *(_OF_IMAGES if of_images else _OF_TEXTS),
        f"store: {_value(store)}",
    ]
    return _page(lines)


def image_job_text(folder: str, images: int, labels: Mapping[str, int], model: Sequence[str], store: str) -> str:
    """JOB.yaml of a folder of images.

    Args:
        folder: As the job should name it.
        images: Files in it.
        labels: Folder that holds some of them -> how many.
        model: The lines that name model and SAEs, with their comments.
        store: Where the store goes.
    """
    classes = f"the folder of each: {_listed(labels)}"
    return _page(
        [
            "# What to compute: `sparsemill plan` prices it, `sparsemill extract` runs it, or what is missing of it.",
            "corpus:",
            f"  path: {_value(folder)}",
            f"  format: images  # {counted(images, 'image file')}; each is a document, and its path the id",
            f"  keep: [label]  # {classes}",
            *model,
            *_OF_IMAGES,
            f"store: {_value(store)}",
        ]
    )


def image_study_text(sae: str, store: str, out: str) -> str:
    """STUDY.yaml of a folder of images."""
    return _page(
        [
            _ASKED,
            f"store: {_value(store)}",
            "label: label  # the folder of each image",
            "features:",
            f"  - {{sae: {sae}, pool: [max, sum, mean]}}",
            "baselines: [pixels, hidden_mean]  # what an SAE feature has to beat",
            "split:",
            "  test: 0.2",
            "  folds: 5",
            "  seeds: 5",
            "  # group: scene  # what images share that belong on one side: in their paths as scene=NAME/, and in keep",
            f"out: {_value(out)}",
        ]
    )


def _listed(labels: Mapping[str, int]) -> str:
    most = [f"{visible(name)} ({count:,})" for name, count in list(labels.items())[:4]]
    return ", ".join(most) + (", ..." if len(labels) > 4 else "")


def study_text(roles: Roles, sae: str, store: str, out: str) -> str:
    """STUDY.yaml.

    Args:
        roles: What the columns are.
        sae: The SAE's name in the store.
        store: The store.
        out: Where results go.
    """
    assert roles.label is not None
    held = roles.held_out
    split = ["split:"]
    if roles.split is not None and held:
        split.append(
            f"  column: {{name: {_value(roles.split.column)}, test: {_value(list(held))}}}  # {roles.split.why}"
        )
    else:
        split += ["  test: 0.2", "  folds: 5", "  seeds: 5"]
    if roles.group is not None:
        split.append(f"  group: {_value(roles.group.column)}  # kept on one side of every split: {roles.group.why}")
    lines = [
        _schema_line("study"),
        _ASKED,
        f"store: {_value(store)}",
        f"label: {_value(roles.label.column)}  # {roles.label.why}",
        "features:",
        f"  - {{sae: {sae}, pool: [max, sum, mean]}}",
        f"baselines: [{_PLAINEST[roles.reads]}, hidden_mean]  # what an SAE feature has to beat",
        *split,
    ]
    if roles.language is not None:
        lines.append(f"by: [{_value(roles.language.column)}]  # every score for each language too")
    lines += [
        f"# operating_point: {{class: CLASS, precision: 0.95}}  # a threshold for one class: {_some(roles.classes)}",
        "# class_weight: balanced  # every class counts alike in training",
        "# text: private           # no text in report, explanation and model files",
        f"out: {_value(out)}",
    ]
    return _page(lines)


def _some(classes: Mapping[str, int]) -> str:
    """A few classes, for a comment."""
    return ", ".join(map(_value, list(classes)[:4])) + (", ..." if len(classes) > 4 else "")


def _schema_line(kind: str) -> str:
    """The comment by which editors find the schema of a kind of file, and complete it."""
    schemas = Path(specs.__file__).parent / "schemas"
    return f"# yaml-language-server: $schema={(schemas / f'{kind}.schema.json').as_uri()}"


def _kept(roles: Roles) -> tuple[Guess | None, ...]:
    return roles.label, roles.group, roles.language, roles.split


def _value(value: str | list[str]) -> str:
    """Text, or a list of texts, as YAML in one line: as it is where that reads back as itself, else in quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return json_text(value, ascii=True)


def _page(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
