"""The grid of a study: every method with its scores, and the SAE cells as maps of pooling, threshold and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from featurestore.base.number_words import told_apart
from training.report.elements.charts import Scale
from training.report.elements.figures import NONE, bounds, defined, score
from training.report.elements.svg import grid, shade
from training.report.study_files import StudyFiles
from training.results.selection import FAMILIES

MOST_MAPS = 12  # more are no picture; the table above has every cell
KINDS = {"sae": "sae", "control": "control", "majority": "none"}


def methods_section(study: StudyFiles) -> dict[str, Any]:
    """A row for each method, with its interval on a common axis; the majority's score is the line through all rows."""
    methods: list[Mapping[str, Any]] = list(study.summary["methods"])
    majority = next((m["macro_f1"]["value"] for m in methods if m["kind"] == "majority"), None)
    methods += [  # a family whose member is the same in every split stands in the table already
        {**one, "method": FAMILIES[family], "kind": "sae" if family == "sae" else "baseline"}
        for family, one in study.summary["selected"].items()
        if family in FAMILIES and len(set(one["cells"])) > 1
    ]
    scale = Scale.over([m["macro_f1"] for m in methods], majority)
    headline = study.summary.get("headline") or {}
    named = {headline[side]["method"] for side in ("sae", "baseline") if side in headline}
    rows = [
        {
            "method": m["method"],
            "klass": KINDS.get(m["kind"], "base"),
            "named": m["method"] in named,
            "svg": scale.row(m["macro_f1"], KINDS.get(m["kind"], "base")),
            "f1": score(m["macro_f1"]["value"]),
            "bounds": bounds(m["macro_f1"]),
            "cells": [score(m["accuracy"]["value"]), score(m["auroc"]["value"]), score(m.get("auprc")),
                      score(m.get("brier")), score(m.get("ece")), score(m["validation_macro_f1"])],
            "C": _range(m.get("values", m["C"])),
            "chosen": m["chosen"],
            "notes": "; ".join(m["notes"]),
        }
        for m in methods
    ]  # fmt: skip
    splits = len(study.summary["split"]["test_documents"])
    return {"rows": rows, "head": scale.head(), "splits": splits, "maps": heat_maps(study)}


class _Kind(NamedTuple):
    """What the methods of one map have in common."""

    store: str | None
    sae: str
    scale: str
    select: str
    min_documents: int
    probe: str


def heat_maps(study: StudyFiles) -> list[dict[str, Any]]:
    """Macro F1 by pooling and threshold, each cell one method: a map for all that differ in nothing else.

    There is none of a single cell, and none where files of earlier versions do not say what else methods differ in.
    """
    mine = [row for row in study.rows if row["kind"] == "sae" and not row["condition"]]
    words = told_apart(float(t) for t in {row["binarize"] for row in mine} - {None, "learnt"})
    scores: dict[_Kind, dict[tuple[str, str], dict[str, list[float]]]] = {}
    for row in mine:
        select = "" if row["select"] is None else f"top {row['k']} by {row['select']}"
        few = row.get("min_documents") or 1
        kind = _Kind(row.get("store"), row["sae"], row["scale"], select, few, row["probe"] or "")
        cell = (row["pool"], _threshold(row["binarize"], words))
        scores.setdefault(kind, {}).setdefault(cell, {}).setdefault(row["method"], []).append(row["macro_f1"])
    means = {
        kind: {cell: _mean(*by_method.values()) for cell, by_method in cells.items()}
        for kind, cells in scores.items()
        if len(cells) > 1 and all(len(by_method) == 1 for by_method in cells.values())
    }
    everything = [value for cells in means.values() for value in cells.values() if defined(value)]
    low, high = min(everything, default=0.0), max(everything, default=1.0)
    layers = _layers(study)
    return [_map(kind, cells, low, high, layers) for kind, cells in list(means.items())[:MOST_MAPS]]


def _map(
    kind: _Kind,
    cells: Mapping[tuple[str, str], float],
    low: float,
    high: float,
    layers: Mapping[tuple[str | None, str], str],
) -> dict[str, Any]:
    pools = list(dict.fromkeys(pool for pool, _ in cells))
    thresholds = sorted({t for _, t in cells}, key=lambda t: (t != "values", t == "learnt", len(t), t))
    values = [[cells.get((pool, t), float("nan")) for t in thresholds] for pool in pools]
    written = [[(score(v), shade(v, low, high) if defined(v) else None) for v in row] for row in values]
    sae = kind.sae if kind.store is None else f"{kind.store}/{kind.sae}"
    layer = layers.get((kind.store, kind.sae), "")
    rest = [
        f"scale {kind.scale}" if kind.scale != "max_abs" else "",
        kind.select,
        f"features of {kind.min_documents} documents or more" if kind.min_documents > 1 else "",
        kind.probe if kind.probe != "logistic_l2" else "",
    ]
    title = ", ".join(filter(None, [f"{sae}{f' ({layer})' if layer else ''}", *rest]))
    best, pool, threshold = max((value, *cell) for cell, value in cells.items() if defined(value))
    says = f"Macro F1 of {title} by pooling and threshold; highest {score(best)} with {pool}, {threshold}"
    return {
        "title": title,
        "svg": grid(pools, thresholds, written, says, "pooling", "threshold"),
        "columns": thresholds,
        "rows": [(pool, [score(v) for v in row]) for pool, row in zip(pools, values, strict=True)],
    }


def _layers(study: StudyFiles) -> dict[tuple[str | None, str], str]:
    """Store and SAE -> "layer 12", where the model file knows: of the store that its method reads."""
    model = study.models.get("sae") or {}
    store = next((row.get("store") for row in study.rows if row["method"] == model.get("method")), None)
    bundle = model.get("bundle") or {}
    found = {}
    for name, sae in (bundle.get("saes") or {}).items():
        hook = sae.get("hook") or {}
        if isinstance(hook.get("layer"), int):
            found[store, str(name)] = f"layer {hook['layer']}"
    return found


def _threshold(binarize: Any, words: Mapping[float, str]) -> str:
    """As a column of a map."""
    if binarize is None:
        return "values"
    return "learnt" if binarize == "learnt" else f"> {words[float(binarize)]}"


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if defined(value)]
    return sum(there) / len(there) if there else float("nan")


def _range(values: Sequence[float]) -> str:
    if not values:
        return NONE
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
