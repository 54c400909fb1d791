"""Sum up splits: means of methods and families, intervals from `scores.bootstrap`, and comparisons of two families.

Nothing here fits anything. A family stands in each split for the member that validation chose there, so its score is
that of "choose the best on validation, then look once". One bootstrap draw of documents serves all, so that every
difference is a paired one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from training.probes.catalogue import PROBES
from training.results.evaluated import Evaluated
from training.results.factors import AGAINST_BASELINES, Factor, plan_factors
from training.results.records import Headline, MethodRow, MethodSummary, Summaries
from training.results.selection import best
from training.scores.bootstrap import Interval, bootstrap, interval
from training.scores.metrics import METRICS, ClassScores, Prediction, class_scores
from training.scores.significance import Comparison, compare, corrected
from training.spec import StudySpec

Level = tuple[str, str]
"""The question of a factor, and one of its levels."""


def summarise(
    evaluated: Evaluated, rows: Sequence[MethodRow], winners: Mapping[str, Sequence[int]], spec: StudySpec
) -> Summaries:
    """Summaries of every method and of both families, and the comparisons, one of them the headline.

    Args:
        evaluated: What was answered.
        rows: As `training.results.rows.method_rows` makes them.
        winners: Family -> the method that validation chose in each split.
        spec: The study.
    """
    data, n, members = evaluated.data, len(evaluated.splits), range(len(evaluated.outcomes))
    predictions = tuple(tuple(evaluated.prediction(m, s) for s in range(n)) for m in members)
    of_method = [rows[m * n : (m + 1) * n] for m in members]
    factors = plan_factors([outcome.method for outcome in evaluated.outcomes], spec.store)
    levels = {(f.question, name): best(evaluated, ms) for f in factors for name, ms in f.levels.items()}
    stands = [*winners.values(), *levels.values()]
    answers = [[predictions[m][s] for s, m in enumerate(chosen)] for chosen in stands]
    replicates = bootstrap([*predictions, *answers], len(data.classes), len(data.y), data.unit, spec.bootstrap)
    summary = tuple(
        _summary(outcome.method.name, outcome.method.kind, of_method[m], predictions[m], replicates[m],
                 chosen=sum(row.selected for row in of_method[m]))
        for m, outcome in enumerate(evaluated.outcomes)
    )  # fmt: skip
    selected = {}
    for f, (name, chosen) in enumerate(winners.items()):
        mine = [of_method[m][s] for s, m in enumerate(chosen)]
        names = tuple(row.method for row in mine)
        selected[name] = _summary(name, "selected", mine, answers[f], replicates[len(members) + f], members=names)
    first = len(members) + len(winners)
    f1 = {key: float(np.mean([of_method[m][s].macro_f1 for s, m in enumerate(ms)])) for key, ms in levels.items()}
    drawn = {key: replicates[first + i, 0] for i, key in enumerate(levels)}
    validated = {
        key: float(np.mean([evaluated.validation(m, s) for s, m in enumerate(ms)])) for key, ms in levels.items()
    }
    comparisons = _compared(factors, f1, drawn, validated)
    named = {key: tuple(evaluated.outcomes[m].method.name for m in ms) for key, ms in levels.items()}
    sides = {key: interval(f1[key], drawn[key]) for key in levels}
    headline = _headline(factors, comparisons, validated, named, sides)
    return Summaries(summary, selected, headline, comparisons, predictions)


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN without one."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan  # one object, so that equal records are equal


def mean_of_classes(answers: Sequence[Prediction], n_classes: int) -> tuple[ClassScores, ...]:
    """The scores of each class, means over the splits in which they are defined."""
    each = [class_scores(a.y_true, a.y_pred, a.log_proba) for a in answers]
    return tuple(
        ClassScores(*(mean([getattr(scores[c], one.name) for scores in each]) for one in fields(ClassScores)))
        for c in range(n_classes)
    )


def _compared(
    factors: Sequence[Factor],
    f1: Mapping[Level, float],
    drawn: Mapping[Level, np.ndarray],
    validated: Mapping[Level, float],
) -> tuple[Comparison, ...]:
    """The comparisons of every factor, corrected together: its reference with each other level."""
    tests = []
    for f in factors:
        against = f.reference or max(f.levels, key=lambda name: validated[f.question, name])
        for name in f.levels:
            if name != against:
                a, b = (f.question, against), (f.question, name)
                test = compare(f.question, against, name, f1[a] - f1[b], drawn[a] - drawn[b])
                tests.append(replace(test, a_macro_f1=f1[a], b_macro_f1=f1[b]))
    return corrected(tests)


def _headline(
    factors: Sequence[Factor],
    comparisons: Sequence[Comparison],
    validated: Mapping[Level, float],
    named: Mapping[Level, tuple[str, ...]],
    sides: Mapping[Level, Interval],
) -> Headline | None:
    """The comparison with the baseline that validates best; None where SAE features or baselines are missing."""
    if not factors or factors[0].question != AGAINST_BASELINES:
        return None
    f = factors[0]
    best_baseline = max((n for n in f.levels if n != f.reference), key=lambda name: validated[f.question, name])
    (comparison,) = (c for c in comparisons if (c.question, c.b) == (f.question, best_baseline))
    a, b = (f.question, comparison.a), (f.question, comparison.b)
    return Headline(comparison, named[a], named[b], sides[a], sides[b])


def _summary(
    name: str,
    kind: str,
    rows: Sequence[MethodRow],
    answers: Sequence[Prediction],
    replicates: np.ndarray,
    chosen: int = 0,
    members: tuple[str, ...] = (),
) -> MethodSummary:
    values = {metric: mean([getattr(row, metric) for row in rows]) for metric in METRICS}
    intervals = {metric: interval(values[metric], replicates[i]) for i, metric in enumerate(METRICS)}
    n_classes = answers[0].log_proba.shape[1]
    classes = mean_of_classes(answers, n_classes)
    parameters = {row.parameter for row in rows if row.parameter is not None}
    return MethodSummary(
        method=name,
        kind=kind,
        macro_f1=intervals["macro_f1"],
        accuracy=intervals["accuracy"],
        auroc=intervals["auroc"],
        validation_macro_f1=float(np.mean([row.validation_macro_f1 for row in rows])),
        parameter=parameters.pop() if len(parameters) == 1 else None,
        values=tuple(row.value for row in rows if row.value is not None),
        C=tuple(row.C for row in rows if row.C is not None),
        auprc=mean([row.auprc for row in rows]),
        brier=mean([np.nan if row.brier is None else row.brier for row in rows]),
        ece=mean([np.nan if row.ece is None else row.ece for row in rows]),
        class_f1=tuple(one.f1 for one in classes),
        classes=classes,
        chosen=chosen,
        members=members,
        notes=_notes(rows),
    )


def _notes(rows: Sequence[MethodRow]) -> tuple[str, ...]:
    """What a reader of a method's numbers must know, in sentences."""
    notes = []
    undefined = [row.auroc_undefined for row in rows if row.auroc_undefined]
    if undefined:
        notes.append(f"AUROC undefined in {len(undefined)} of {len(rows)} seeds: {undefined[0]}")
    stopped = sum(not row.converged and not (row.probe and PROBES[row.probe].stops_on_purpose) for row in rows)
    if stopped:
        notes.append(f"solver stopped early in {stopped} of {len(rows)} seeds")
    if edge := sum(row.c_at_edge for row in rows):
        notes.append(f"C at the edge of the grid in {edge} of {len(rows)} seeds")
    return tuple(notes)
