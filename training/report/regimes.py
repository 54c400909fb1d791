"""Harder training sets, and one part of the corpus against another: curves by size, noise and share, and transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.base.number_words import counted, told_apart
from training.report.elements.charts import Curve, curves
from training.report.elements.figures import bounds, defined, score, significant, whole
from training.report.elements.svg import grid, shade
from training.report.study_files import StudyFiles

FAMILIES = {name: (name, klass) for name, klass in (("SAE, selected", "sae"), ("baseline, selected", "base"))}
REGIMES = {
    "n": ("How many training documents it takes", "training documents"),
    "noise": ("How wrong labels hurt", "share of wrong training labels"),
    "minority": ("How a rare class fares", "share of the rarest class in training"),
}


def regimes_section(study: StudyFiles) -> list[dict[str, Any]]:
    """A chart and a table for each kind of regime that the study has."""
    regimes = [r for r in study.summary.get("regimes") or () if not r["test_part"]]
    found = []
    for kind, (title, axis) in REGIMES.items():
        mine = [r for r in regimes if r["condition"].partition("=")[0] == kind and r["method"] in FAMILIES]
        if mine:
            found.append(_regime(study, kind, title, axis, mine))
    return found


def _regime(study: StudyFiles, kind: str, title: str, axis: str, mine: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lines, rows = [], []
    for name, (said, klass) in FAMILIES.items():
        values = {_level(r, kind): r["macro_f1"] for r in mine if r["method"] == name}
        values |= _undisturbed(study, "sae" if klass == "sae" else "baseline", kind)
        points = [(x, values[x]["value"], values[x]["low"], values[x]["high"]) for x in sorted(values)]
        if points:
            lines.append((said, klass, points))
            rows.append((said, values))
    xs = sorted({x for _, values in rows for x in values})
    named = _names(xs)
    place = {x: float(i) for i, x in enumerate(xs)}  # even steps: sizes are doubled, shares are a few
    drawn = [Curve(s, [(place[x], y, low, high) for x, y, low, high in p], k) for s, k, p in lines]
    majority = next((m["macro_f1"]["value"] for m in study.summary["methods"] if m["kind"] == "majority"), None)
    says = "; ".join(f"{s}: {', '.join(f'{score(y)} at {named[x]}' for x, y, _, _ in p)}" for s, _, p in lines)
    marks = [(place[x], named[x]) for x in xs]
    return {
        "title": title,
        "axis": axis,
        "svg": curves(drawn, axis, "macro F1", says, marks, majority),
        "sides": [said for said, _ in rows],
        "rows": [
            (named[x], [(score(v[x]["value"]), bounds(v[x])) if x in v else ("", "") for _, v in rows]) for x in xs
        ],
    }


def _undisturbed(study: StudyFiles, family: str, kind: str) -> dict[float, Mapping[str, Any]]:
    """The study itself as a point of the curve: all training documents, no wrong label; its own share is not known."""
    if kind == "minority" or family not in study.summary["selected"]:
        return {}
    n_train = [row["n_train"] for row in study.rows if not row["condition"]]
    x = 0.0 if kind == "noise" else round(sum(n_train) / len(n_train)) if n_train else None
    return {} if x is None else {float(x): study.summary["selected"][family]["macro_f1"]}


def _level(regime: Mapping[str, Any], kind: str) -> float:
    return float(regime["condition"].removeprefix(f"{kind}="))


def _names(xs: Sequence[float]) -> dict[float, str]:
    """Levels as an axis has them: sizes with their thousands, shares by as many digits as tell them apart."""
    return {x: whole(x) if x >= 1 else word for x, word in told_apart(xs).items()}


def transfer_section(study: StudyFiles) -> dict[str, Any] | None:
    """Macro F1 of each training value on each test value, and how much of the top features they share."""
    regimes = [r for r in study.summary.get("regimes") or () if r["test_part"]]
    if not regimes:
        return None
    trained = list(dict.fromkeys(r["condition"] for r in regimes))
    tested = list(dict.fromkeys(r["test_part"] for r in regimes))
    matrices = []
    for name, (said, klass) in FAMILIES.items():
        values = {(r["condition"], r["test_part"]): r["macro_f1"] for r in regimes if r["method"] == name}
        if values:
            matrices.append((said, klass, values))
    there = [v["value"] for _, _, values in matrices for v in values.values() if defined(v["value"])]
    low, high = min(there, default=0.0), max(there, default=1.0)
    return {
        "by": str((study.summary["spec"].get("transfer") or {}).get("by", "")),
        "tested": [(part, _documents(regimes, part)) for part in tested],
        "matrices": [_matrix(said, values, trained, tested, low, high) for said, _, values in matrices],
        "overlaps": [
            {**o, "jaccard": significant(o["jaccard"], 2)} for o in study.summary.get("feature_overlap") or ()
        ],
    }


def _documents(regimes: Sequence[Mapping[str, Any]], part: str) -> str:
    """How many test documents a part has: "26 documents"; earlier versions did not say."""
    n = next((r.get("documents") for r in regimes if r["test_part"] == part), None)
    return counted(n, "document") if isinstance(n, int) else ""


def _matrix(
    said: str,
    values: Mapping[tuple[str, str], Mapping[str, Any]],
    trained: Sequence[str],
    tested: Sequence[str],
    low: float,
    high: float,
) -> dict[str, Any]:
    names = [t.removeprefix("train=") for t in trained]
    cells = [
        [
            (score(v["value"]), shade(v["value"], low, high)) if v and defined(v["value"]) else ("", None)
            for v in (values.get((t, part)) for part in tested)
        ]
        for t in trained
    ]
    worst = min(
        ((v["value"], t, p) for (t, p), v in values.items() if defined(v["value"])), default=(float("nan"), "", "")
    )
    says = (
        f"Macro F1 of {said} trained on one value and tested on another; lowest {score(worst[0])}, "
        f"{worst[1].removeprefix('train=')} on {worst[2]}"
    )
    rows = [
        (name, [(score(v["value"]), bounds(v)) if v else ("", "") for v in (values.get((t, p)) for p in tested)])
        for name, t in zip(names, trained, strict=True)
    ]
    return {"title": said, "svg": grid(names, tested, cells, says, "trained on", "tested on"), "rows": rows}
