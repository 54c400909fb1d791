"""Say what makes another study of a study that is finished: other methods, or other decisions of its model files.

A model file may be in somebody's use, so nothing replaces it unasked. A grid may grow, for what was compared before is
compared still; a method that is gone or made of something else, and each key of DECIDES, make another study. Growth
that leads to a model file of another method is found out when everything is computed, and refused then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import ValidationError

from featurestore.base.differences import differences
from featurestore.errors import StudyError
from featurestore.models.model import Model
from featurestore.storage.files import filesystem, list_files, read_json, shown
from featurestore.storage.user_outputs import INSIST
from training.documents.labels import StudyData
from training.methods.method import TEXTUAL, Method
from training.spec import StudySpec

DECIDES = ("screen", "class_weight", "operating_point", "calibrate", "refit")  # keys by which all model files decide
KINDS = {  # when a change of a key makes another study; docs/promises.md says why
    "always": ("store", "label", "split"),
    "once finished": DECIDES,
    "if something is gone": ("features", "baselines", "probes", "text", "regimes", "transfer"),
    "never": ("bootstrap", "by", "out"),
}


def made_of(
    methods: Sequence[Method], fingerprints: Mapping[str, str], store: str, data: StudyData, screen: int | None
) -> dict[str, str]:
    """Name of each method -> hash of what it is made of, wherever that lies.

    Args:
        methods: Of a study.
        fingerprints: URI -> fingerprint of every store.
        store: URI of the study's own store.
        data: The documents, with texts and numbers.
        screen: Of the study.
    """
    textual = any(method.kind in TEXTUAL for method in methods)
    text = hashlib.sha256(json.dumps(list(data.text or ())).encode()).hexdigest() if textual else ""
    numbers = {name: hashlib.sha256(np.ascontiguousarray(v).tobytes()).hexdigest() for name, v in data.numbers.items()}
    found = {}
    for method in methods:
        settings = asdict(method) | {"name": "", "store": fingerprints[method.store or store], "all_screened": screen}
        del settings["class_weight"]  # DECIDES has it
        read = [text if method.kind in TEXTUAL else "", numbers.get(str(method.column), "")]
        found[method.name] = hashlib.sha256(json.dumps([settings, read], sort_keys=True).encode()).hexdigest()
    return found


def changes_of_decisions(summary: Mapping[str, Any], spec: StudySpec, made: Mapping[str, str]) -> list[str]:
    """What in a study makes it another one than that of results.json, beside store, label and split.

    Args:
        summary: results.json.
        spec: The study that would replace it.
        made: What `made_of` says of its methods.

    Raises:
        KeyError: It is no results.json.
    """
    before, now = _keys(summary["spec"]), _keys(spec.model_dump(mode="json", by_alias=True))
    said = differences(before, now)
    known = summary.get("made_of") or {}  # earlier versions did not say
    for one in summary["methods"]:
        name = one["method"]
        if name not in made:
            said.append(f"method {name} -> (none)")
        elif "screen" not in [change.split(" ")[0] for change in said] and known.get(name, made[name]) != made[name]:
            said.append(f"method {name} is made of something else")
    return said


def _keys(spec: Mapping[str, Any]) -> dict[str, Any]:
    """DECIDES of a study, with those that came later at their defaults."""
    with suppress(ValidationError):
        spec = StudySpec.model_validate(spec).model_dump(mode="json", by_alias=True)
    keys = {key: spec[key] for key in DECIDES if key in spec}
    if point := keys.get("operating_point"):
        keys["operating_point"] = {key: value for key, value in point.items() if value is not None}
    return keys


def refuse_other_models(out: str, models: Mapping[str, Model]) -> None:
    """Refuse to replace a model file by one of another method, or one that decides for another aim.

    Args:
        out: Directory of the study.
        models: Family -> the model that would be written.

    Raises:
        StudyError: Naming the file, what it is and what would take its place.
    """
    for family, was in _there(out).items():
        now = models[family].header if family in models else None
        if now is None or not _same(was, now):
            place = f"{shown(out)}/models/{family}.json"
            new = "would be removed" if now is None else f"would become {model_words(now)}"
            raise StudyError(
                f"out: {place} is {model_words(was)}, and {new}, by what was added to the study; nothing is replaced, "
                f"and what was computed is kept; give the study another 'out', {INSIST}"
            )


def stale_models(out: str, models: Mapping[str, Model]) -> list[str]:
    """Families whose model file is there and is none of the study's any more."""
    return [family for family in _there(out) if family not in models]


def model_words(header: Mapping[str, Any]) -> str:
    """What a model file is, in words: its method, and how it decides where that is not by the likeliest class."""
    said = [str(header["method"])]
    if header.get("class_weight"):
        said.append(f"class_weight {header['class_weight']}")
    if point := header.get("operating_point"):
        aim = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in point["aim"].items())
        handed = f", {point['undecided']:.0%} handed on" if point.get("undecided") else ""
        said.append(f"an operating point of '{point['class']}' ({aim}{handed})")
    return " with ".join([said[0], " and ".join(said[1:])]) if said[1:] else said[0]


def _number(value: Any) -> str:
    return ", ".join(f"{k} {v:g}" for k, v in value.items()) if isinstance(value, Mapping) else f"{value:g}"


def _there(out: str) -> dict[str, Mapping[str, Any]]:
    """Family -> header of each model file in a study's directory; what is no model is nothing to keep."""
    fs, root = filesystem(out)
    if "models" not in list_files(fs, root):
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for family in ("sae", "baseline"):
        try:
            header = read_json(fs, f"{root}/models/{family}.json")
        except (OSError, ValueError):
            continue
        if isinstance(header, dict) and "method" in header:
            found[family] = header
    return found


def _same(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two model files are of one method and decide for one aim; keys that one version lacks do not count."""
    keys = [key for key in ("method", "class_weight", "refit") if key in was and key in now]
    if "calibration" in was and "calibration" in now and (was["calibration"] is None) != (now["calibration"] is None):
        return False
    return all(was[key] == now[key] for key in keys) and _point(was) == _point(now)


def _point(header: Mapping[str, Any]) -> Any:
    point = header.get("operating_point")
    return point and [point.get(key) for key in ("class", "aim", "undecided")]
