"""The rows of results.parquet, regimes.parquet and folds.parquet, from what every method answered.

This is where the scores of a single split are computed and put beside what was chosen and how the fit went.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.documents.condition import Condition
from training.probes.catalogue import PROBES, grid_of, parameter_of
from training.results.evaluated import Evaluated
from training.results.records import FoldRow, MethodRow
from training.scores.metrics import accuracy, auprc, auroc, calibration, macro_f1


def method_rows(evaluated: Evaluated, winners: Mapping[str, Sequence[int]]) -> tuple[MethodRow, ...]:
    """One row for each method and split, on all its test rows.

    Args:
        evaluated: What was answered.
        winners: Family -> the method that validation chose in each split.
    """
    return tuple(
        method_row(evaluated, m, s, split.test, any(chosen[s] == m for chosen in winners.values()))
        for m in range(len(evaluated.outcomes))
        for s, split in enumerate(evaluated.splits)
    )


def fold_rows(evaluated: Evaluated) -> tuple[FoldRow, ...]:
    """The score of every value on every inner fold, which has the number that split.parquet gives it."""
    found = []
    for outcome in evaluated.outcomes:
        probe = outcome.method.probe
        for split, answers in zip(evaluated.splits, outcome.splits, strict=True):
            for value, scores in zip(grid_of(probe), answers.validation, strict=True):
                shown = value if parameter_of(probe) is not None else None
                found += [
                    FoldRow(outcome.method.name, str(split.condition), split.seed, split.outer, shown, k, float(score))
                    for k, score in zip(split.folds, scores, strict=True)
                ]
    return tuple(found)


def method_row(
    evaluated: Evaluated,
    m: int,
    s: int,
    rows: np.ndarray,
    selected: bool,
    test_part: str = "",
    condition: Condition | None = None,
) -> MethodRow:
    """One method on one split.

    Args:
        evaluated: What was answered.
        m, s: The method and the split.
        rows: int64, the split's test rows or some of them.
        selected: Whether validation chose the method in this split.
        test_part: Which value of the transfer column the rows have.
        condition: Named instead of the split's own.
    """
    split, outcome, data = evaluated.splits[s], evaluated.outcomes[m], evaluated.data
    method, found, answer = outcome.method, outcome.splits[s], evaluated.prediction(m, s, rows)
    area, undefined = auroc(answer.y_true, answer.log_proba)
    parameter, grid = parameter_of(method.probe), grid_of(method.probe)
    brier = ece = None
    if method.probe is None or PROBES[method.probe].has_probabilities:
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
        store=None if method.store is None else evaluated.stores[method.store],
        min_documents=method.min_documents,
        condition=str(split.condition if condition is None else condition),
        test_part=test_part,
        seed=split.seed,
        outer=split.outer,
        n_train=len(split.train),
        n_test=len(rows),
        n_features=outcome.n_features,
        parameter=parameter,
        value=found.value,
        C=found.value if parameter == "C" else None,
        c_at_edge=parameter == "C" and found.value in (grid[0], grid[-1]),
        converged=found.converged,
        iterations=found.iterations,
        validation_macro_f1=found.validation_macro_f1,
        macro_f1=macro_f1(answer.y_true, answer.y_pred, len(data.classes)),
        accuracy=accuracy(answer.y_true, answer.y_pred),
        auroc=area,
        auprc=auprc(answer.y_true, answer.log_proba),
        brier=brier,
        ece=ece,
        auroc_undefined=undefined,
        selected=selected,
    )
