"""A study on one screen: methods side by side with intervals, a verdict in plain words, the features that decide.

The verdict speaks of the difference that was tested (the SAE cell and the baseline that validation selected, compared
on the same resampled documents), never of the largest number in the table.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from training.labels import describe_left_out
from training.metrics import LEVEL, Interval
from training.results import MethodSummary, StudyResult

WIDTH = 110
FAMILIES = {"sae": "SAE", "baseline": "baseline"}


def format_study(result: StudyResult) -> str:
    """The table, the verdict and the notes of a study, ready to print."""
    data, split = result.data, result.spec.split
    seeds = f"{split.seeds} seed{'s' if split.seeds > 1 else ''}"
    sizes = sorted({len(s.test) for s in result.splits})
    test = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    groups = f", groups of '{split.group}' kept whole" if split.group else ""
    counts = ", ".join(f"{name} {int((data.y == c).sum()):,}" for c, name in enumerate(data.classes[:8]))
    more = f", and {len(data.classes) - 8} more classes" if len(data.classes) > 8 else ""
    lines = [
        f"{len(data.y):,} documents ({counts}{more})",
        f"{test} held out in each of {seeds}, {split.folds} inner folds{groups}",
        *_wrapped(describe_left_out(data.left_out, data.rows)),
        "",
        *_table(_table_rows(result)),
        "",
        *_wrapped(verdict(result)),
        *_wrapped(_legend(result)),
    ]
    for method in result.summary:
        important = [note for note in method.notes if not note.startswith("C at the edge")]
        lines += _wrapped(f"note: {method.method}: {'; '.join(important)}" if important else "")
    return "\n".join(lines)


def verdict(result: StudyResult) -> str:
    """What the study says about SAE features against the best baseline, in one sentence."""
    if result.difference is None:
        (family,) = result.selected.values()
        return (
            f"Nothing to compare: the study has only {'SAE features' if 'sae' in result.selected else 'baselines'}, "
            + (f"and the selected one reaches macro F1 {_value(family.macro_f1)}.")
        )
    sae, baseline = (_named(result.selected[name]) for name in ("sae", "baseline"))
    difference, n = result.difference, len(result.data.y)
    by = f"macro F1 {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    if difference.low > 0:
        return f"SAE features ({sae}) do better than the best baseline ({baseline}): {by}."
    if difference.high < 0:
        return f"SAE features ({sae}) do worse than the best baseline ({baseline}): {by}."
    return f"No difference shown at n = {n:,} between SAE features ({sae}) and the best baseline ({baseline}): {by}."


def format_explanation(explanation: Mapping[str, Any]) -> str:
    """The deciding features with their strongest documents, ready to print."""
    lines = [
        f"Features that decide most in {explanation['method']} (training documents of seed {explanation['seed']}, "
        f"C = {explanation['C']:g}):"
    ]
    for feature in explanation["features"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in list(feature["document_frequency"].items())[:6])
        lines.append(
            f"  {feature['name']}  -> {feature['toward']}   weight {feature['weight']:.3f}   fires in: {shares}"
        )
        for document in feature["documents"]:
            text = "" if document["text"] is None else f"  {document['text']}"
            shown = f"      {document['value']:>9.4g}  {document['label']}  {document['doc_id']}{text}"
            lines.append(shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 1]}…")
    return "\n".join(lines)


def _table_rows(result: StudyResult) -> list[list[str]]:
    seeds = result.spec.split.seeds
    rows = [["", "method", "macro F1", f"{LEVEL:.0%} interval", "accuracy", "AUROC", "C", "validation F1", "chosen"]]
    # A family whose cell is the same in every seed stands in the table already.
    families = [
        replace(f, method=f"{FAMILIES[n]}, selected") for n, f in result.selected.items() if len(set(f.cells)) > 1
    ]
    rows += [
        [
            "*" if method.chosen and method.kind == "sae" else "",
            method.method,
            _value(method.macro_f1),
            _bounds(method.macro_f1),
            _value(method.accuracy),
            _value(method.auroc),
            _range(method.C),
            f"{method.validation_macro_f1:.3f}",
            f"{method.chosen}/{seeds}" if method.chosen else "",
        ]
        for method in (*result.summary, *families)
    ]
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {0, 1, 3}  # mark, name and interval; numbers to the right
    lines = [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return [line.rstrip() for line in lines]


def _legend(result: StudyResult) -> str:
    unit = "groups" if result.data.group is not None else "documents"
    what = f"Intervals resample {unit} {result.spec.bootstrap:,} times; C is chosen on inner folds of the training set"
    if "sae" not in result.selected:
        return f"{what}."
    return f"{what}, and so is the SAE cell marked *: 'chosen' says in how many seeds. No test score selects anything."


def _named(family: MethodSummary) -> str:
    """The cell, or the one most often selected with how often."""
    top = max(dict.fromkeys(family.cells), key=family.cells.count)
    share = family.cells.count(top)
    return top if share == len(family.cells) else f"{top} in {share} of {len(family.cells)} seeds"


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _value(interval: Interval) -> str:
    return "n/a" if math.isnan(interval.value) else f"{interval.value:.3f}"


def _bounds(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH) if text else []
