"""How the headline's classifier decides: what it takes for what, and how far its probabilities can be believed.

Scores of classes and slices are those of `results.json`. Everything else is counted from `predictions.parquet`, over
the test documents of all splits; a document that several splits hold out counts in each of them, so the intervals here
are of the shares shown and not of the study's comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.report.elements.charts import Scale, bars, reliability, steps
from training.report.elements.figures import bounds, defined, percent, score, significant, whole
from training.report.elements.svg import grid, shade
from training.report.study_files import Answers, StudyFiles
from training.scores.metrics import ranks
from training.scores.operating_words import threshold_notes
from training.scores.wilson import wilson

BINS = 10  # of a probability: the study's own calibration error has as many
GRID = np.linspace(0.0, 1.0, 41)  # of recall: a curve of 41 points looks like one of thousands
MOST_CLASSES = 12  # of a confusion matrix that can be read; the table beside it has the worst pairs of all
SHARES = {
    "precision": "precision: of those claimed, of the class",
    "recall": "recall: of the class, claimed",
    "caught": "of the class, claimed or handed on",
    "false_positive_rate": "false-positive rate: of the others, claimed",
    "undecided": "handed on to people",
}
MOST_CURVES = 5  # splits, of which each curve of precision and recall shows one thin line


def behaviour_section(study: StudyFiles) -> dict[str, Any] | None:
    """Confusion, classes, reliability and precision against recall of the method that the headline names."""
    method = headline_method(study)
    answers = study.answers(method) if method else None
    if method is None or answers is None:
        return None
    decided = (study.summary.get("decided") or {}).get("sae") or {}
    decided = decided if decided.get("method") == method else {}
    point = decided.get("operating_point")
    classes = study.classes
    place = {name: c for c, name in enumerate(classes)}
    y_true, y_pred = (np.array([place[name] for name in ys]) for ys in (answers.y_true, answers.y_pred))
    log_proba = np.array([[np.nan if v is None else v for v in row] for row in answers.score], dtype=float)
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (y_true, y_pred), 1)
    probabilities = next((row["probe"] != "linear_svm" for row in study.rows if row["method"] == method), True)
    proba = np.exp(log_proba)
    return {
        "method": method,
        "n": len(y_true),
        "splits": len(set(answers.seed)),
        "confusion": _confusion(counts, classes),
        "classes": _classes(study, method, y_true),
        "reliability": _reliability(y_true, y_pred, proba) if probabilities else None,
        "confidence": _confidence(y_true, y_pred, proba) if probabilities else None,
        "curves": _curves(answers, y_true, log_proba, classes, point),
        "point": None if point is None else _point_section(point),
        "calibration": _calibration(decided.get("calibration")),
        "slices": _slices(study, method),
        "undefined": int((~np.isfinite(proba)).any(axis=1).sum()),
        "silent": [name for c, name in enumerate(classes) if not counts[:, c].sum()],
    }


def headline_method(study: StudyFiles) -> str | None:
    """The SAE method of the headline, else the best that there is."""
    headline = study.summary.get("headline")
    if headline is not None:
        return str(headline["sae"]["method"])
    selected = study.summary["selected"]
    family = selected.get("sae") or selected.get("baseline")
    cells = list(family["cells"]) if family else []
    return max(dict.fromkeys(cells), key=cells.count) if cells else None


def _confusion(counts: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    size = counts.sum(axis=1)
    shown = sorted(np.argsort(-size, kind="stable")[:MOST_CLASSES].tolist())
    share = np.divide(counts, size[:, None], out=np.zeros_like(counts), where=size[:, None] > 0)
    names = [classes[c] for c in shown]
    cells = [[(percent(share[r, c]), shade(share[r, c], 0.0, 1.0)) for c in shown] for r in shown]
    off = share - np.diag(np.diag(share))
    worst = divmod(int(np.argmax(off)), len(classes))
    says = (
        f"Of each class, the share answered as each class; most often mistaken: {classes[worst[0]]} "
        f"for {classes[worst[1]]}, {percent(share[worst])}"
    )
    pairs = sorted(
        ((counts[r, c], r, c) for r in range(len(classes)) for c in range(len(classes)) if r != c and counts[r, c]),
        reverse=True,
    )
    return {
        "svg": grid(names, names, cells, says, "true class", "answered"),
        "left": len(classes) - len(shown),
        "columns": names,
        "table": [[classes[r], *[whole(counts[r, c]) for c in shown]] for r in shown],
        "pairs": [(classes[r], classes[c], whole(n), percent(share[r, c])) for n, r, c in pairs[:10]],
    }


def _classes(study: StudyFiles, method: str, y_true: np.ndarray) -> list[dict[str, Any]]:
    """The scores of each class as results.json has them, means over splits, so that every page says the same."""
    one: Mapping[str, Any] = next((one for one in study.summary["methods"] if one["method"] == method), {})
    counts = {name: int((y_true == c).sum()) for c, name in enumerate(study.classes)}
    return [
        {"name": scores["class"], "n": whole(counts[scores["class"]])}
        | {key: score(scores[key]) for key in ("precision", "recall", "f1", "auprc")}
        for scores in one.get("classes") or ()
    ]


def precision_recall(positive: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Precision and recall at every threshold, highest first, and average precision; NaN without a positive.

    A tree is sure that some documents are not of a class: their value is -inf, and they share the lowest threshold.
    """
    there = ~np.isnan(value)
    positive, value = positive[there], ranks(value[there])  # differences of -inf would be no ties
    if not positive.any():
        return np.empty(0), np.empty(0), float("nan")
    order = np.argsort(-value, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(value[order])), len(order) - 1)
    hits = np.cumsum(positive[order])[ends]
    precision, recall = hits / (ends + 1), hits / positive.sum()
    return precision, recall, float(np.sum(np.diff(np.concatenate([[0.0], recall])) * precision))


def _reliability(y_true: np.ndarray, y_pred: np.ndarray, proba: np.ndarray) -> dict[str, Any] | None:
    confidence = proba[np.arange(len(y_pred)), y_pred]
    there = np.isfinite(confidence)
    right, confidence = (y_true == y_pred)[there], confidence[there]
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for b in range(BINS):
        mine = bin_of == b
        if mine.any():
            low, high = wilson(right[mine].sum(), mine.sum())
            bins.append({"confidence": float(confidence[mine].mean()), "right": float(right[mine].mean()),
                         "low": low, "high": high, "n": int(mine.sum())})  # fmt: skip
    if not bins:
        return None
    gap = sum(b["n"] * abs(b["right"] - b["confidence"]) for b in bins) / len(confidence)
    says = f"Stated probability against the share that is right; mean gap {score(gap)}"
    rows = [(percent(b["confidence"]), percent(b["right"]), f"{percent(b['low'])} to {percent(b['high'])}",
             whole(b["n"])) for b in bins]  # fmt: skip
    return {"svg": reliability(bins, says), "rows": rows, "gap": score(gap)}


def _confidence(y_true: np.ndarray, y_pred: np.ndarray, proba: np.ndarray) -> dict[str, Any] | None:
    """How sure the model was where it was wrong."""
    wrong = (proba[np.arange(len(y_pred)), y_pred])[y_true != y_pred]
    wrong = wrong[np.isfinite(wrong)]
    if not len(wrong):
        return None
    low = np.floor(1 / proba.shape[1] * 10) / 10  # the winner of C classes has at least 1 / C
    edges = np.linspace(low, 1.0, round((1 - low) * 20) + 1)
    heights = np.histogram(wrong, edges)[0]
    says = f"How sure the model was of its {len(wrong):,} wrong answers; {int((wrong >= 0.9).sum()):,} at 90% or above"
    labels = [significant(edge, 2) for edge in edges]
    svg = bars(heights.tolist(), labels, "stated probability of a wrong answer", "answers", says, "bad")
    rows = [(f"{labels[i]} to {labels[i + 1]}", whole(n)) for i, n in enumerate(heights.tolist()) if n]
    return {"svg": svg, "rows": rows}


def _curves(
    answers: Answers, y_true: np.ndarray, log_proba: np.ndarray, classes: Sequence[str], point: Any
) -> list[dict[str, Any]]:
    """Precision against recall: of each class up to six, the mean over splits and the splits themselves."""
    seeds, found = list(dict.fromkeys(answers.seed)), []
    of = np.array(answers.seed)
    chosen = [1] if len(classes) == 2 else range(min(len(classes), 6))
    wanted = point.get("class") if isinstance(point, Mapping) else None
    if wanted in classes:
        chosen = [classes.index(wanted)]
    for c in chosen:
        lines = [
            line
            for seed in seeds
            if (line := _interpolated(y_true[of == seed] == c, log_proba[of == seed, c])) is not None
        ]
        if not lines:
            continue
        mean = np.mean(lines, axis=0)
        drawn = [
            (list(zip(GRID.tolist(), line.tolist(), strict=True)), "stroke thin sae") for line in lines[:MOST_CURVES]
        ]
        drawn.append((list(zip(GRID.tolist(), mean.tolist(), strict=True)), "stroke sae"))
        share = float((y_true == c).mean())
        at = {f"{r:.0%}": mean[int(r * 40)] for r in (0.5, 0.8, 0.9, 0.95)}
        marked = _point(point) if wanted == classes[c] else []
        says = f"Precision against recall of {classes[c]}: " + ", ".join(f"{score(p)} at {r}" for r, p in at.items())
        svg = steps(drawn, "recall", "precision", says, marked, share)
        rows = [(r, score(p)) for r, p in at.items()]
        found.append({"name": classes[c], "svg": svg, "rows": rows, "share": percent(share), "point": bool(marked)})
    return found


def _interpolated(positive: np.ndarray, value: np.ndarray) -> np.ndarray | None:
    """The best precision that reaches each recall of GRID."""
    precision, recall, _ = precision_recall(positive, value)
    if not len(recall):
        return None
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return best[np.minimum(np.searchsorted(recall, GRID - 1e-12), len(best) - 1)]


def _point(point: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    """The operating point as the study measured it on test documents."""
    recall, precision = (point["test"][name]["value"] for name in ("recall", "precision"))
    return [(recall, precision, "fill point")] if defined(recall) and defined(precision) else []


def _point_section(point: Mapping[str, Any]) -> dict[str, Any]:
    """What the operating point asks for, and what it comes to on test documents."""
    (aim, asked), *_ = point["aim"].items()
    wanted = (
        ", ".join(f"{key} {value:g}" for key, value in asked.items()) if isinstance(asked, Mapping) else f"{asked:g}"
    )
    first = point["thresholds"][0] if point.get("thresholds") else point
    rows = [
        (SHARES[name], score(share["value"]), bounds(share), f"{share['hits']:,} of {share['documents']:,}")
        for name, share in ((name, point["test"].get(name)) for name in SHARES)
        if share and (name not in ("undecided", "caught") or point.get("undecided"))
    ]
    return {
        "class": point["class"],
        "aim": f"{aim.replace('_', ' ')} {wanted}",
        "undecided": point.get("undecided") or 0,
        "reached": all(t["reached"] for t in point.get("thresholds") or (first,)),
        "notes": threshold_notes(point.get("thresholds") or (first,)),
        "file": (point.get("model_file") or {}).get("says") or "",
        "rows": rows,
    }


def _calibration(calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What calibration changes on the test documents of the first split."""
    if not calibration:
        return None
    tested = calibration.get("test") or {}
    when = [(name, tested[name]) for name in ("before", "after") if tested.get(name)]
    rows = [(name, *(score(scores.get(key)) for key in ("log_loss", "brier", "ece"))) for name, scores in when]
    return {"method": calibration.get("method"), "rows": rows}


def _slices(study: StudyFiles, method: str) -> list[dict[str, Any]]:
    """The headline's method on each slice, a table for each way of slicing."""
    mine = [one for one in study.summary.get("slices") or () if one["method"] == method]
    scale = Scale.over([one["macro_f1"] for one in mine])
    return [
        {
            "by": by,
            "head": scale.head(),
            "rows": [
                {"slice": one["slice"], "documents": whole(one["documents"]), "f1": score(one["macro_f1"]["value"]),
                 "svg": scale.row(one["macro_f1"], "none" if one.get("warning") else "sae"),
                 "bounds": bounds(one["macro_f1"]), "auroc": score(one["auroc"]["value"]),
                 "warning": one.get("warning") or ""}
                for one in mine if one["by"] == by
            ],
            "at": [_slice_point(one) for one in mine if one["by"] == by and one.get("operating_point")],
        }
        for by in dict.fromkeys(one["by"] for one in mine)
    ]  # fmt: skip


def _slice_point(one: Mapping[str, Any]) -> dict[str, Any]:
    """What the operating point comes to on a slice; of one that says nothing, the counts alone."""
    shares = []
    for name in ("precision", "recall"):
        share = one["operating_point"][name]
        worth = ("", "") if one.get("too_small") else (score(share["value"]), bounds(share))
        shares += [f"{share['hits']:,} of {share['documents']:,}", *worth]
    return {"slice": one["slice"], "cells": shares, "warning": one.get("warning") or ""}
