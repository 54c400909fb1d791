"""Scores under each regime, and of transfer on each part of the test set; how far top features agree between parts.

Means and intervals are computed as those of the study itself (`training.results.summary`), over the splits of one
regime at one strength.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from training.documents.condition import Condition, trained_on_all
from training.results.evaluated import Evaluated
from training.results.records import MethodRow, RegimeSummary
from training.results.rows import method_row
from training.results.selection import FAMILIES, select
from training.results.summary import mean
from training.results.tested import parts_of
from training.scores.bootstrap import TOO_FEW, bootstrap, interval
from training.scores.metrics import METRICS
from training.spec import StudySpec


def summarise_regimes(
    plain: Evaluated, harder: Evaluated, spec: StudySpec
) -> tuple[tuple[MethodRow, ...], tuple[RegimeSummary, ...]]:
    """Rows and summaries of every regime; with transfer, of each part of the test set apart.

    Args:
        plain: The study itself.
        harder: Its regimes: all their splits.
        spec: The study.
    """
    of_condition: dict[Condition, list[int]] = {}
    for s, split in enumerate(harder.splits):
        of_condition.setdefault(split.condition, []).append(s)
    work = [(condition, harder.on(where)) for condition, where in of_condition.items()]
    parts = parts_of(plain.data, spec)
    if parts:
        values = [str(condition.level) for condition in of_condition if condition.is_transfer]
        work.append((trained_on_all(values), plain))
    rows: list[MethodRow] = []
    summaries: list[RegimeSummary] = []
    for condition, evaluated in work:
        for part in parts if condition.is_transfer else [""]:
            more, found = _summarised(evaluated, condition, part, spec)
            rows += more
            summaries += found
    return tuple(rows), tuple(summaries)


def overlaps(harder: Evaluated) -> tuple[tuple[str, str, str, float], ...]:
    """For each SAE method and two training values of transfer: mean Jaccard index of their top features."""
    where: dict[str, dict[tuple[int, int], int]] = {}
    for s, split in enumerate(harder.splits):
        if split.condition.is_transfer:
            where.setdefault(str(split.condition.level), {})[split.seed, split.outer] = s
    found = []
    for outcome in harder.outcomes:
        for a, b in combinations(where, 2):
            shares = []
            for key, s in where[a].items():
                one, other = outcome.splits[s].top, outcome.splits[where[b][key]].top
                if len(one) and len(other):
                    shares.append(len(np.intersect1d(one, other)) / len(np.union1d(one, other)))
            if shares:
                found.append((outcome.method.name, a, b, float(np.mean(shares))))
    return tuple(found)


def _summarised(
    evaluated: Evaluated, condition: Condition, part: str, spec: StudySpec
) -> tuple[list[MethodRow], list[RegimeSummary]]:
    """Rows and summaries of one condition, on the test rows of one part ("" for all); none where there are no rows."""
    data, winners = evaluated.data, select(evaluated)
    tests = [split.test for split in evaluated.splits]
    if part and spec.transfer is not None:
        tests = [test[data.columns[spec.transfer.by][test] == part] for test in tests]
    kept = [s for s, test in enumerate(tests) if len(test)]
    if not kept:
        return [], []
    tested = np.unique(np.concatenate(tests))
    units = data.count_units_of(tested)
    members = range(len(evaluated.outcomes))
    rows = [
        [method_row(evaluated, m, s, tests[s], any(w[s] == m for w in winners.values()), part, condition) for s in kept]
        for m in members
    ]
    written = [row for mine in rows for row in mine]
    answers = [[evaluated.prediction(m, s, tests[s]) for s in kept] for m in members]
    names = [outcome.method.name for outcome in evaluated.outcomes]
    for family, chosen in winners.items():
        rows.append([rows[chosen[s]][i] for i, s in enumerate(kept)])
        answers.append([answers[chosen[s]][i] for i, s in enumerate(kept)])
        names.append(FAMILIES[family])
    if part and units < TOO_FEW:
        replicates = np.full((len(answers), len(METRICS), spec.bootstrap), np.nan)
    else:
        replicates = bootstrap(answers, len(data.classes), len(data.y), data.unit, spec.bootstrap)
    found = []
    for name, mine, drawn in zip(names, rows, replicates, strict=True):
        f1, area = (
            interval(mean([getattr(row, metric) for row in mine]), drawn[METRICS.index(metric)])
            for metric in ("macro_f1", "auroc")
        )
        n_train = float(np.mean([row.n_train for row in mine]))
        found.append(RegimeSummary(str(condition), part, name, n_train, len(tested), units, f1, area))
    return written, found
