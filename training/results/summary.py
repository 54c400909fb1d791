"""From what each method predicted to what a study says: rows, means with intervals, families, comparisons, regimes.

Nothing here fits anything. A family stands in each split for the member that validation chose there, so its score is
that of "choose the best on validation, then look once".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from training.documents.labels import StudyData
from training.documents.split import Split
from training.evaluation import Cell
from training.methods.features import Method
from training.probes.estimators import GRIDS, PARAMETER
from training.probes.fit import Fitted
from training.results.comparisons import AGAINST_BASELINES, plan_questions
from training.results.records import Headline, MethodRow, MethodSummary, RegimeSummary
from training.scores.metrics import (
    METRICS,
    Prediction,
    accuracy,
    auprc,
    auroc,
    bootstrap,
    calibration,
    class_f1,
    interval,
    macro_f1,
)
from training.scores.significance import Comparison, compare, corrected
from training.spec import StudySpec

FAMILIES = {"sae": "SAE, selected", "baseline": "baseline, selected"}


def select(methods: Sequence[Method], cells: Sequence[Cell]) -> dict[str, tuple[int, ...]]:
    """Family -> index of the method that validation chose in each split; families without members are left out."""
    members = {
        name: [m for m, method in enumerate(methods) if (method.kind == "sae") == (name == "sae")] for name in FAMILIES
    }
    return {name: best(cells, mine) for name, mine in members.items() if mine}


def best(cells: Sequence[Cell], members: Sequence[int]) -> tuple[int, ...]:
    """For each split the member with the best validation score of that split; among equals the first."""
    n = len(cells[0].fitted)
    return tuple(max(members, key=lambda m: cells[m].fitted[s].validation_macro_f1) for s in range(n))


def method_rows(
    cells: Sequence[Cell], data: StudyData, splits: Sequence[Split], winners: Mapping[str, Sequence[int]]
) -> tuple[MethodRow, ...]:
    """One row for each method and split, on all its test rows."""
    return tuple(
        _row(cell, s, split, data, split.test, "", any(chosen[s] == m for chosen in winners.values()))
        for m, cell in enumerate(cells)
        for s, split in enumerate(splits)
    )


def fold_rows(
    cells: Sequence[Cell], splits: Sequence[Split]
) -> tuple[tuple[str, str, int, int, float | None, int, float], ...]:
    """(method, condition, seed, outer, value, fold, macro F1) of every value on every inner fold."""
    return tuple(
        (
            cell.method.name,
            split.condition,
            split.seed,
            split.outer,
            GRIDS[cell.method.probe][i] if cell.method.probe in PARAMETER else None,
            k,
            float(score),
        )
        for cell in cells
        for split, fitted in zip(splits, cell.fitted, strict=True)
        for i, scores in enumerate(fitted.validation)
        for k, score in enumerate(scores)
    )


def summarise(
    cells: Sequence[Cell],
    rows: Sequence[MethodRow],
    data: StudyData,
    splits: Sequence[Split],
    winners: Mapping[str, Sequence[int]],
    spec: StudySpec,
) -> tuple[
    tuple[MethodSummary, ...],
    dict[str, MethodSummary],
    Headline | None,
    tuple[Comparison, ...],
    tuple[tuple[Prediction, ...], ...],
]:
    """Means over splits with intervals: of every method and of both families; and the tests, one of them the headline.

    One bootstrap draw of documents serves all of them, so every difference is a paired one.
    """
    n, n_classes = len(splits), len(data.classes)
    predictions = tuple(
        tuple(_prediction(cell, s, data, split.test) for s, split in enumerate(splits)) for cell in cells
    )
    of_method = [rows[m * n : (m + 1) * n] for m in range(len(cells))]
    of_family = {name: [of_method[m][s] for s, m in enumerate(chosen)] for name, chosen in winners.items()}
    questions = plan_questions([cell.method for cell in cells])
    levels = {(q.text, name): best(cells, members) for q in questions for name, members in q.families.items()}
    stands = [*winners.values(), *levels.values()]
    answers = [[predictions[m][s] for s, m in enumerate(chosen)] for chosen in stands]
    unit = data.unit
    replicates = bootstrap([*predictions, *answers], n_classes, len(data.y), unit, spec.bootstrap)
    summary = tuple(
        _summary(cell.method.name, cell.method.kind, of_method[m], predictions[m], replicates[m], data,
                 chosen=sum(row.selected for row in of_method[m]))
        for m, cell in enumerate(cells)
    )  # fmt: skip
    selected = {
        name: _summary(name, "selected", mine, answers[f], replicates[len(cells) + f], data,
                       cells=tuple(row.method for row in mine))
        for f, (name, mine) in enumerate(of_family.items())
    }  # fmt: skip
    first = len(cells) + len(winners)
    place = {key: first + i for i, key in enumerate(levels)}
    f1 = {key: float(np.mean([of_method[m][s].macro_f1 for s, m in enumerate(ms)])) for key, ms in levels.items()}
    validated = {
        key: float(np.mean([cells[m].fitted[s].validation_macro_f1 for s, m in enumerate(ms)]))
        for key, ms in levels.items()
    }
    tests = []
    for q in questions:
        against = q.reference or max(q.families, key=lambda name: validated[q.text, name])
        for name in q.families:
            if name != against:
                a, b = (q.text, against), (q.text, name)
                tests.append(
                    compare(q.text, against, name, f1[a] - f1[b], replicates[place[a], 0] - replicates[place[b], 0])
                )
    comparisons = corrected(tests)
    headline = None
    if questions and questions[0].text == AGAINST_BASELINES:
        q = questions[0]
        best_baseline = max((n for n in q.families if n != q.reference), key=lambda name: validated[q.text, name])
        (comparison,) = (c for c in comparisons if (c.question, c.b) == (q.text, best_baseline))
        names = [tuple(cells[m].method.name for m in levels[q.text, side]) for side in (comparison.a, comparison.b)]
        headline = Headline(comparison, *names)
    return summary, selected, headline, comparisons, predictions


def summarise_regimes(
    methods: Sequence[Method],
    main: Sequence[Cell],
    harder: Sequence[Cell],
    data: StudyData,
    splits: Sequence[Split],
    conditions: Sequence[Split],
    spec: StudySpec,
) -> tuple[tuple[MethodRow, ...], tuple[RegimeSummary, ...]]:
    """Rows and summaries of every regime; with transfer, of each part of the test set apart."""
    by_condition: dict[str, list[int]] = {}
    for s, split in enumerate(conditions):
        by_condition.setdefault(split.condition, []).append(s)
    parts = sorted(set(data.columns[spec.transfer.by])) if spec.transfer is not None else []
    work = [(name, members, harder, conditions) for name, members in by_condition.items()]
    if parts:  # training on everything, beside training on one value
        work.append(("train=all", list(range(len(splits))), main, splits))
    all_rows: list[MethodRow] = []
    found: list[RegimeSummary] = []
    for condition, members, cells, where in work:
        chosen_cells = [Cell(c.method, c.n_features, tuple(c.fitted[s] for s in members)) for c in cells]
        here = [where[s] for s in members]
        winners = select(methods, chosen_cells)
        for part in parts if condition.startswith("train=") else [""]:
            tests = [
                split.test if not part else split.test[data.columns[spec.transfer.by][split.test] == part]  # type: ignore[union-attr]
                for split in here
            ]
            kept = [s for s, rows in enumerate(tests) if len(rows)]
            rows = [
                [_row(cell, s, here[s], data, tests[s], part, any(w[s] == m for w in winners.values()), condition)
                 for s in kept]
                for m, cell in enumerate(chosen_cells)
            ]  # fmt: skip
            all_rows += [row for mine in rows for row in mine]
            answers = [[_prediction(cell, s, data, tests[s], here[s].test) for s in kept] for cell in chosen_cells]
            names = [cell.method.name for cell in chosen_cells]
            for family, chosen in winners.items():
                rows.append([rows[chosen[s]][i] for i, s in enumerate(kept)])
                answers.append([answers[chosen[s]][i] for i, s in enumerate(kept)])
                names.append(FAMILIES[family])
            replicates = bootstrap(answers, len(data.classes), len(data.y), data.unit, spec.bootstrap)
            for name, mine, drawn in zip(names, rows, replicates, strict=True):
                n_train = float(np.mean([row.n_train for row in mine]))
                values = [_mean([getattr(row, metric) for row in mine]) for metric in ("macro_f1", "auroc")]
                f1, area = (
                    interval(v, drawn[METRICS.index(m)]) for v, m in zip(values, ("macro_f1", "auroc"), strict=True)
                )
                found.append(RegimeSummary(condition, part, name, n_train, f1, area))
    return tuple(all_rows), tuple(found)


def overlaps(cells: Sequence[Cell], conditions: Sequence[Split]) -> tuple[tuple[str, str, str, float], ...]:
    """For each SAE method and two training values of transfer: mean Jaccard index of their top features."""
    where: dict[str, dict[tuple[int, int], int]] = {}
    for s, split in enumerate(conditions):
        if split.condition.startswith("train="):
            where.setdefault(split.condition.removeprefix("train="), {})[split.seed, split.outer] = s
    found = []
    for cell in cells:
        for a, b in combinations(where, 2):
            shares = []
            for key, s in where[a].items():
                one, other = cell.fitted[s].top, cell.fitted[where[b][key]].top
                if len(one) and len(other):
                    shares.append(len(np.intersect1d(one, other)) / len(np.union1d(one, other)))
            if shares:
                found.append((cell.method.name, a, b, float(np.mean(shares))))
    return tuple(found)


def _prediction(cell: Cell, s: int, data: StudyData, rows: np.ndarray, test: np.ndarray | None = None) -> Prediction:
    """Answers for `rows`, a part of the split's test rows."""
    fitted: Fitted = cell.fitted[s]
    place = slice(None) if test is None or len(rows) == len(test) else np.searchsorted(test, rows)
    return Prediction(rows, data.y[rows], fitted.y_pred[place], fitted.log_proba[place])


def _row(
    cell: Cell,
    s: int,
    split: Split,
    data: StudyData,
    rows: np.ndarray,
    part: str,
    selected: bool,
    condition: str | None = None,
) -> MethodRow:
    method, fitted = cell.method, cell.fitted[s]
    answer = _prediction(cell, s, data, rows, split.test)
    area, undefined = auroc(answer.y_true, answer.log_proba)
    parameter = PARAMETER.get(method.probe or "")
    grid = GRIDS[method.probe]
    brier = ece = None
    if method.probe != "linear_svm":
        brier, ece = calibration(answer.y_true, answer.y_pred, answer.log_proba)
    return MethodRow(
        method=method.name,
        kind=method.kind,
        sae=method.sae,
        pool=method.pool,
        binarize=None if method.binarize is None else str(method.binarize),
        column=method.column,
        scale=method.scale,
        select=method.select,
        k=method.k,
        probe=method.probe,
        condition=split.condition if condition is None else condition,
        test_part=part,
        seed=split.seed,
        outer=split.outer,
        n_train=len(split.train),
        n_test=len(rows),
        n_features=cell.n_features,
        parameter=parameter,
        value=fitted.value,
        C=fitted.value if parameter == "C" else None,
        c_at_edge=parameter == "C" and fitted.value in (grid[0], grid[-1]),
        converged=fitted.converged,
        iterations=fitted.iterations,
        validation_macro_f1=fitted.validation_macro_f1,
        macro_f1=macro_f1(answer.y_true, answer.y_pred, len(data.classes)),
        accuracy=accuracy(answer.y_true, answer.y_pred),
        auroc=area,
        auprc=auprc(answer.y_true, answer.log_proba),
        brier=brier,
        ece=ece,
        auroc_undefined=undefined,
        selected=selected,
    )


def _summary(
    name: str,
    kind: str,
    rows: Sequence[MethodRow],
    answers: Sequence[Prediction],
    replicates: np.ndarray,
    data: StudyData,
    chosen: int = 0,
    cells: tuple[str, ...] = (),
) -> MethodSummary:
    values = {metric: _mean([getattr(row, metric) for row in rows]) for metric in METRICS}
    intervals = {metric: interval(values[metric], replicates[i]) for i, metric in enumerate(METRICS)}
    notes = []
    undefined = [row.auroc_undefined for row in rows if row.auroc_undefined]
    if undefined:
        notes.append(f"AUROC undefined in {len(undefined)} of {len(rows)} seeds: {undefined[0]}")
    stopped = sum(not row.converged and row.probe != "softmax" for row in rows)  # which is stopped on purpose
    if stopped:
        notes.append(f"solver stopped early in {stopped} of {len(rows)} seeds")
    if edge := sum(row.c_at_edge for row in rows):
        notes.append(f"C at the edge of the grid in {edge} of {len(rows)} seeds")
    per_class = np.array([class_f1(a.y_true, a.y_pred, len(data.classes)) for a in answers])
    return MethodSummary(
        method=name,
        kind=kind,
        macro_f1=intervals["macro_f1"],
        accuracy=intervals["accuracy"],
        auroc=intervals["auroc"],
        validation_macro_f1=float(np.mean([row.validation_macro_f1 for row in rows])),
        C=tuple(row.value for row in rows if row.value is not None),
        auprc=_mean([row.auprc for row in rows]),
        brier=_mean([np.nan if row.brier is None else row.brier for row in rows]),
        ece=_mean([np.nan if row.ece is None else row.ece for row in rows]),
        class_f1=tuple(_mean(per_class[:, c].tolist()) for c in range(len(data.classes))),
        chosen=chosen,
        cells=cells,
        notes=tuple(notes),
    )


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN without one."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
