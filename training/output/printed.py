"""What `sparsemill study` prints: methods side by side with intervals, a verdict in words, the features that decide.

The verdict speaks of a difference that was tested (SAE features and the baseline that validates best, compared on the
same resampled documents), never of the largest number in the table, and by the rule of all comparisons: corrected for
their number.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from featurestore.base.hostile_text import visible
from featurestore.base.number_words import counted
from featurestore.base.terminal import page_width, table_lines
from training.documents.labels import describe_left_out
from training.output.files import test_looks
from training.output.printed_detail import (
    class_lines,
    decided_notes,
    file_lines,
    final_line,
    point_heading,
    point_slices,
    point_table,
    slice_lines,
)
from training.results.added_value import what_is_added
from training.results.records import MethodSummary, RegimeSummary, StudyResult
from training.results.selection import FAMILIES, selected_words
from training.results.tested import warn_of_test_sets
from training.scores.bootstrap import LEVEL, TOO_FEW, Interval
from training.scores.significance import ALPHA, Comparison

WIDTH = 110


def format_study(result: StudyResult) -> str:
    """The table, the verdict and the notes of a study, ready to print."""
    data, split = result.data, result.spec.split
    seeds = f"{split.seeds} seed{'s' if split.seeds > 1 else ''}"
    sizes = sorted({len(s.test) for s in result.splits})
    test = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    groups = f", groups of '{split.group}' kept whole" if split.group else ""
    outer = f" x {split.outer} outer folds" if split.outer else ""
    counts = ", ".join(f"{visible(name)} {int((data.y == c).sum()):,}" for c, name in enumerate(data.classes[:8]))
    more = f", and {len(data.classes) - 8} more classes" if len(data.classes) > 8 else ""
    lines = [
        f"{len(data.y):,} documents ({counts}{more})",
        f"{test} held out in each of {seeds}{outer}, {split.folds} inner folds{groups}",
        *(line for one in warn_of_test_sets(data, result.spec, result.splits) for line in _wrapped(f"warning: {one}")),
        *_wrapped(_duplicates(result)),
        *_wrapped(_screened(result)),
        *_wrapped(describe_left_out(data.left_out, data.rows)),
        *(line for note in data.notes for line in _wrapped(f"note: {note}")),
        "",
        *_table(_table_rows(result)),
        "",
        *_wrapped(verdict(result)),
        *_wrapped(" ".join(what_is_added(result.spec, result.comparisons))),
        *_wrapped(_legend(result)),
        *class_lines(result),
        *slice_lines(result),
        "",
        *_wrapped(point_heading(result)),
        *point_table(result),
        *point_slices(result),
        *[line for said in decided_notes(result) for line in _wrapped(said)],
        *_wrapped(final_line(result)),
        *[line for said in file_lines(result) for line in _wrapped(said)],
        *_questions(result),
        *_regimes(result),
        *_overlap(result),
    ]
    for method in result.summary:
        important = [note for note in method.notes if not note.startswith("C at the edge")]
        lines += _wrapped(f"note: {method.method}: {'; '.join(important)}" if important else "")
    return "\n".join(lines)


def verdict(result: StudyResult) -> str:
    """What the study says about SAE features against the best baseline, in one sentence."""
    if result.headline is None:
        (family,) = result.selected.values()
        return (
            f"Nothing to compare: the study has only {'SAE features' if 'sae' in result.selected else 'baselines'}, "
            f"of which the selected ({selected_words(family.members)}) reach macro F1 {_value(family.macro_f1)}."
        )
    sae, baseline = (selected_words(names) for names in (result.headline.sae, result.headline.baseline))
    comparison = result.headline.comparison
    reached = [_value(side) for side in (result.headline.sae_macro_f1, result.headline.baseline_macro_f1)]
    by = f"macro F1 {reached[0]} against {reached[1]}, {_difference(comparison)}"
    if not comparison.shown:
        n = len(result.data.y)
        return (
            f"No difference shown at n = {n:,} between SAE features ({sae}) and the best baseline ({baseline}): {by}."
        )
    better = "better" if comparison.difference.value > 0 else "worse"
    return f"SAE features ({sae}) do {better} than the best baseline ({baseline}): {by}."


def sentence(comparison: Comparison, n: int) -> str:
    """A comparison in plain words; whether a difference is shown is decided after correction."""
    by = _difference(comparison)
    a, b = f"{comparison.a} {comparison.a_macro_f1:.3f}", f"{comparison.b} {comparison.b_macro_f1:.3f}"
    if not comparison.shown:
        return f"no difference shown at n = {n:,} between {a} and {b} ({by})"
    better = "higher" if comparison.difference.value > 0 else "lower"
    return f"{better} with {a} than with {b} ({by})"


def _difference(comparison: Comparison) -> str:
    d, p = comparison.difference, comparison.p_adjusted
    said = "< 0.001" if p < 0.001 else f"= {p:.2g}"
    if float(said[2:]) == ALPHA:  # on which side of it?
        said = f"= {p:.4f}"
    return f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], corrected p {said}"


def _duplicates(result: StudyResult) -> str:
    if result.straddling is None:
        return "near-duplicate texts were not looked for"
    if not result.straddling:
        return ""
    return (
        f"near-duplicate texts are kept on one side; otherwise {result.straddling:,.1f} test documents of a split "
        "would have had one in training"
    )


def _screened(result: StudyResult) -> str:
    if result.spec.screen is None:
        return ""
    return (
        f"features were screened while they streamed by: each fit uses the {result.spec.screen:,} with the largest "
        "class-mean difference on its rows"
    )


def _questions(result: StudyResult) -> list[str]:
    """Every comparison, under its question."""
    if not result.comparisons:
        return []
    n = len(result.data.y)
    tests = f"{counted(len(result.comparisons), 'comparison')} of macro F1, corrected together (Holm, {ALPHA:.0%})"
    lines = ["", *_wrapped(f"{tests}; an interval leaves out 0 exactly where a difference is shown:")]
    for text in dict.fromkeys(c.question for c in result.comparisons):
        lines.append(f"  {text}")
        for comparison in result.comparisons:
            if comparison.question == text:
                said = sentence(comparison, n)
                lines += textwrap.wrap(said, WIDTH - 6, initial_indent="    ", subsequent_indent="      ")
    return lines


def _regimes(result: StudyResult) -> list[str]:
    """Macro F1 under each regime: methods as rows, conditions (or test parts) as columns."""
    lines: list[str] = []
    plain = [r for r in result.regimes if not r.test_part]
    if plain:
        columns = list(dict.fromkeys(r.condition for r in plain))
        cells = {(r.method, r.condition): r for r in plain}
        rows = [["", "macro F1 under", *columns]]
        rows += [
            ["", name, *[_short(cells[name, c]) for c in columns]] for name in dict.fromkeys(r.method for r in plain)
        ]
        lines += ["", *_table(rows)]
    tested = {(r.method, r.condition, r.test_part): r for r in result.regimes}
    parts = list(dict.fromkeys(r.test_part for r in result.regimes if r.test_part))
    if parts:
        rows = [["", "macro F1 of", "", *[f"tested on {part}" for part in parts]]]
        trained = list(dict.fromkeys(r.condition for r in result.regimes if r.test_part))
        for name in dict.fromkeys(r.method for r in result.regimes if r.test_part):
            rows += [["", name, c, *[_short(tested.get((name, c, p))) for p in parts]] for c in trained]
        lines += ["", *_table(rows)]
    for part, one in {r.test_part: r for r in result.regimes if r.test_part and r.units < TOO_FEW}.items():
        units = "" if one.units == one.documents else f" in {counted(one.units, 'group')}"
        lines += _wrapped(f"note: {part}: {counted(one.documents, 'test document')}{units}: too few for an interval")
    return lines


def _overlap(result: StudyResult) -> list[str]:
    if not result.overlaps:
        return []
    said = "; ".join(f"{name} {a} and {b} {share:.2f}" for name, a, b, share in result.overlaps)
    return ["", *_wrapped(f"Overlap (Jaccard) of the 20 features that weigh most: {said}.")]


def _short(regime: RegimeSummary | None) -> str:
    if regime is None:
        return ""
    return f"{_value(regime.macro_f1)} {_bounds(regime.macro_f1)}"


def _table_rows(result: StudyResult) -> list[list[str]]:
    seeds = len(result.splits)
    rows = [["", "method", "macro F1", f"{LEVEL:.0%} interval", "accuracy", "AUROC", "C", "validation F1", "chosen"]]
    # A family whose member is the same in every seed stands in the table already.
    families = [replace(f, method=FAMILIES[n]) for n, f in result.selected.items() if len(set(f.members)) > 1]
    rows += [
        [
            "*" if method.chosen and method.kind == "sae" else "",
            method.method,
            _value(method.macro_f1),
            _bounds(method.macro_f1),
            _value(method.accuracy),
            _value(method.auroc),
            _chosen(method),
            f"{method.validation_macro_f1:.3f}",
            f"{method.chosen}/{seeds}" if method.chosen else "",
        ]
        for method in (*result.summary, *families)
    ]
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return table_lines(rows, left={0, 1, 3}, naming=2)  # mark, name and interval; numbers to the right


def _legend(result: StudyResult) -> str:
    unit = "groups" if result.data.unit is not None else "documents"
    looks = f"{test_looks(result):,} times, once for each method, split and regime"
    what = (
        f"Test sets were looked at {looks}. Intervals resample the tested {unit} {result.spec.bootstrap:,} times: they "
        "cover chance in what was tested, not in what was trained on. C (or depth, or k) is chosen on inner folds of "
        "the training set"
    )
    if "sae" not in result.selected:
        return f"{what}."
    return f"{what}, and so is the SAE cell marked *: 'chosen' says in how many seeds. No test score selects anything."


def _chosen(method: MethodSummary) -> str:
    """The values of C that were chosen, or those of another parameter with its name."""
    other = [] if method.parameter is None or method.parameter == "C" else [method.parameter]
    values = method.values if other else method.C
    if not values:
        return "-"
    low, high = min(values), max(values)
    return " ".join([*other, f"{low:g}" if low == high else f"{low:g}..{high:g}"])


def _value(interval: Interval) -> str:
    return "n/a" if math.isnan(interval.value) else f"{interval.value:.3f}"


def _bounds(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, min(WIDTH, page_width())) if text else []
