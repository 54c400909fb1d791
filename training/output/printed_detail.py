"""What a study prints below its verdict: the classes, the slices, how the methods decide, and what the model files are.

Only the methods that have a model file stand here, the headline's two; `results.json` has all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import expit

from featurestore.base.number_words import counted
from featurestore.base.terminal import table_lines
from training.results.decided import class_of
from training.results.records import Decided, StudyResult
from training.results.selection import representative
from training.scores.bootstrap import Interval
from training.scores.operating_words import measured_plain, of_the_file, threshold_notes
from training.spec import OperatingPointSpec

MOST = 20  # rows of a table of classes or slices; results.json has the others
SHARES = {
    "precision": "precision",
    "recall": "recall",
    "false_positive_rate": "false-positive rate",
    "undecided": "handed on",
    "caught": "recall with people",
}


def class_lines(result: StudyResult) -> list[str]:
    """Precision, recall, F1 and AUPRC of each class."""
    classes = result.data.classes
    rows = [["class", "method", "precision", "recall", "F1", "AUPRC"]]
    what = "" if len(result.splits) == 1 else ", means over splits"
    for c, name in enumerate(classes[:MOST]):
        for method in result.summary:
            if method.method in _shown(result):
                one = method.classes[c]
                rows.append([name, method.method, *map(_number, (one.precision, one.recall, one.f1, one.auprc))])
    more = [f"and the scores of {len(classes) - MOST:,} more in results.json"] if len(classes) > MOST else []
    return ["", f"Scores of each class, as the likeliest one{what}:", *table_lines(rows, left={0, 1}, naming=2), *more]


def slice_lines(result: StudyResult) -> list[str]:
    """Macro F1 with its interval on each slice; slices that say nothing are marked."""
    lines: list[str] = []
    for by in dict.fromkeys(one.by for one in result.slices):
        mine = [one for one in result.slices if one.by == by and one.method in _shown(result)]
        if not mine:
            continue
        names = list(dict.fromkeys(one.slice for one in mine))
        rows = [[f"by {by}", "test documents", *[f"macro F1 of {name}" for name in _shown(result)]]]
        cells = {(one.slice, one.method): one for one in mine}
        for name in names[:MOST]:
            here = [cells[name, method] for method in _shown(result)]
            few = here[0].too_small
            shown = ["" if few else f"{_number(one.macro_f1.value)} {_bounds(one.macro_f1)}" for one in here]
            rows.append([name, f"{here[0].documents:,}{' (too few to say anything)' if few else ''}", *shown])
        lines += ["", *table_lines(rows, left={0}, naming=1)]
        lines += [f"and {counted(len(names) - MOST, 'more slice')}, in slices.parquet"] if len(names) > MOST else []
        first = [one for one in mine if one.method == mine[0].method]
        lines += [f"note: {by} {s.slice}: {s.warning}" for s in first if s.warning and not s.too_small]
    return lines


def point_table(result: StudyResult) -> list[str]:
    """What the thresholds of each method come to on test documents, with intervals, and what is to be said of them."""
    spec, measured = result.spec.operating_point, [one for one in _distinct(result) if one.measured is not None]
    if spec is None or not measured:
        return []
    shares = ["precision", "recall", "false_positive_rate"] + (["undecided", "caught"] if spec.undecided else [])
    costs = ["cost"] if spec.cost is not None else []
    rows = [["method", *(SHARES[name] for name in shares), *costs, "claimed from"]]
    for one in measured:
        assert one.measured is not None
        intervals = [getattr(one.measured, name).interval for name in shares]
        cells = [f"{_number(interval.value)} {_bounds(interval)}".rstrip() for interval in intervals]
        rows.append([one.method, *cells, *[f"{one.measured.cost:.3g}" for _ in costs], _claimed_from(one)])
    return table_lines(rows, left={0}, naming=1)


def point_slices(result: StudyResult) -> list[str]:
    """What the thresholds come to on each slice; of slices that say nothing, the counts alone."""
    lines: list[str] = []
    for by in dict.fromkeys(one.by for one in result.slices):
        mine = [one for one in result.slices if one.by == by and one.method in _shown(result) and one.measured]
        heading = ["method", "test documents", "claimed", "right", "precision", "of the class", "found", "recall"]
        rows = [[f"by {by}", *heading]]
        for one in mine[:MOST]:
            assert one.measured is not None
            p, r = one.measured.precision, one.measured.recall
            few = " (too few to say anything)" if one.too_small else ""
            shares = ["" if few else f"{_number(s.interval.value)} {_bounds(s.interval)}".rstrip() for s in (p, r)]
            claimed, found = ([f"{s.n:,}", f"{s.hits:,}", share] for s, share in zip((p, r), shares, strict=True))
            rows.append([one.slice, one.method, f"{one.documents:,}{few}", *claimed, *found])
        if mine:
            lines += table_lines(rows, left={0, 1}, naming=2)
            more = len(mine) - MOST
            lines += [f"and {counted(more, 'more row')}, in slices.parquet"] if more > 0 else []
    return lines


def point_heading(result: StudyResult) -> str:
    """What the operating point is; empty without one."""
    spec = result.spec.operating_point
    if spec is None:
        return ""
    name = result.data.classes[class_of(spec, result.data.classes)]
    return (
        f"Operating point of '{name}': {_aim(spec)}. Thresholds come from out-of-fold scores (as probabilities before "
        "calibration), the rest is measured on the test documents of all splits together:"
    )


def decided_notes(result: StudyResult) -> list[str]:
    """What the model files' thresholds do, what has to be said of thresholds, and the calibration of each method."""
    lines = []
    for one in _distinct(result):
        if one.measured_first is not None and one.in_file:
            said = of_the_file(measured_plain(one.measured_first), result.splits[0].seed)
            lines.append(f"{one.method}: {said}")
        points = zip(result.splits, one.points, strict=False)
        thresholds = [{"seed": split.seed, "note": point.note, "few": point.few} for split, point in points]
        lines += [f"{kind}: {one.method}: {said}" for kind, said in threshold_notes(thresholds)]
    return lines + [_calibration_line(one) for one in _distinct(result) if one.calibration is not None]


def final_line(result: StudyResult) -> str:
    """Which documents the models in the files were fitted on."""
    n, train = len(result.data.y), len(result.splits[0].train)
    if result.spec.refit:
        return (
            f"Model files: fitted on all {n:,} labelled documents after the evaluation; the scores above are those of "
            "models fitted on training documents (refit: false keeps these)"
        )
    return f"Model files: the evaluated models, fitted on {train:,} training documents of seed {result.splits[0].seed}"


def file_lines(result: StudyResult) -> list[str]:
    """What each model file is, with its own score: a file holds one method, and a family may stand for several."""
    lines = []
    found = {family: (one.members, one.macro_f1) for family, one in result.selected.items()}
    if (headline := result.headline) is not None:
        found |= {"sae": (headline.sae, headline.sae_macro_f1)}
        found |= {"baseline": (headline.baseline, headline.baseline_macro_f1)}
    for family, (names, reached) in found.items():
        if f"model_{family}" in result.paths:
            name = representative(names)
            (own,) = (one.macro_f1 for one in result.summary if one.method == name)
            often = f"selected in {names.count(name)} of {len(names)} splits"
            note = "" if set(names) == {name} else f" ({often}; {_number(reached.value)} is of all that was selected)"
            lines.append(f"models/{family}.json is {name}, macro F1 {_number(own.value)}{note}")
    return lines


def _claimed_from(decided: Decided) -> str:
    points = decided.points
    above = _ends([point.high for point in points])
    if all(point.low == point.high for point in points):
        return above
    return f"{above}, undecided from {_ends([point.low for point in points])}"


def _calibration_line(decided: Decided) -> str:
    assert decided.calibration is not None
    chosen, before, after = decided.calibration, decided.tested.get("before"), decided.tested.get("after")
    if chosen.method is None:
        return f"Probabilities of {decided.method}: as they are, no calibration helps out of fold"
    test = "" if after is None else f", {after['log_loss']:.3f} on test documents"
    was = "" if before is None else f" (before {chosen.log_loss['none']:.3f}, {before['log_loss']:.3f})"
    loss = chosen.log_loss[chosen.method]
    return f"Probabilities of {decided.method}: {chosen.method} calibration, log loss {loss:.3f} out of fold{test}{was}"


def _aim(spec: OperatingPointSpec) -> str:
    handed = f", {spec.undecided:.0%} handed on to people" if spec.undecided else ""
    if spec.cost is not None:
        costs = f"a false positive costs {spec.cost.false_positive:g}, a false negative {spec.cost.false_negative:g}"
        return f"least cost ({costs}){handed}"
    value = getattr(spec, spec.aim)
    if spec.false_positive_rate is not None:
        return f"false-positive rate of at most {value:g}{handed}"
    return f"{spec.aim} of at least {value:g}{handed}"


def _shown(result: StudyResult) -> list[str]:
    """The methods of the headline, or those that stand for the families there are."""
    if result.headline is not None:
        return list(dict.fromkeys(representative(side) for side in (result.headline.sae, result.headline.baseline)))
    return list(dict.fromkeys(representative(family.members) for family in result.selected.values()))


def _distinct(result: StudyResult) -> list[Decided]:
    return list({decided.method: decided for decided in result.decided.values()}.values())


def _ends(scores: Sequence[float]) -> str:
    """Thresholds as probabilities, from the smallest to the largest of several seeds."""
    low, high = (f"{expit(end):.3g}" for end in (min(scores), max(scores)))
    return low if low == high else f"{low}..{high}"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _bounds(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"
