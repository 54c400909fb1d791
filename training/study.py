"""Run a study: read the documents, freeze the splits, evaluate every method on them, compare, write it all down.

Selection happens on inner folds only: C within a method, and the SAE cell (and the best baseline) within each seed.
Every method meets each seed's test rows once, and nothing is chosen by what it scores there. The same study on the
same store writes the same bytes, whatever the row order of the store and the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from featurestore.reader import FeatureStore
from training.explain import explain
from training.features import Method, MethodMatrix, load_matrix, plan_methods
from training.labels import StudyData, load_documents
from training.metrics import METRICS, Interval, Prediction, accuracy, auroc, bootstrap, interval, macro_f1
from training.probes import C_GRID, Fitted, evaluate
from training.results import MethodRow, MethodSummary, StudyResult
from training.spec import StudySpec
from training.split import Split, make_splits, split_sha256
from training.writing import prepare_out, write_study

# Fits x documents that take about 5 s; below that, starting processes (about 3 s) costs more than it saves.
PARALLEL_WORK = 200_000


def run_study(
    spec: StudySpec, progress: Callable[[int, int, str], None] | None = None, n_jobs: int | None = None
) -> StudyResult:
    """Run a study and write its files to `spec.out`.

    Args:
        spec: The study.
        progress: Called with (methods done, methods in all, name of the method) after each method.
        n_jobs: Processes; by default 1 for a small study, else one for each core. It never changes a result.

    Raises:
        StudyError: The store cannot answer the study; one sentence says why.
        StoreError: The store is none, or is incomplete.
    """
    from joblib import cpu_count

    started = time.perf_counter()
    store = FeatureStore.open(spec.store)
    methods = plan_methods(store, spec)
    data = load_documents(store, spec)
    splits = make_splits(data, spec.split)
    prepare_out(spec.out)
    fits = len(methods) * len(splits) * spec.split.folds
    if n_jobs is None:
        n_jobs = 1 if fits * len(data.y) < PARALLEL_WORK else cpu_count()

    fitted: list[tuple[Fitted, ...]] = []
    widths: list[int] = []
    for width, cells in _evaluate_all(store, methods, data, splits, n_jobs):
        fitted.append(cells)
        widths.append(width)
        if progress is not None:
            progress(len(fitted), len(methods), methods[len(fitted) - 1].name)

    families = {
        name: [m for m, method in enumerate(methods) if (method.kind == "sae") == (name == "sae")]
        for name in ("sae", "baseline")
    }
    winners = {name: _select(fitted, members) for name, members in families.items() if members}
    predictions = tuple(_predictions(cells, data, splits) for cells in fitted)
    rows = _rows(methods, fitted, widths, predictions, data, splits, winners)
    summary, selected, difference = _summarise(methods, rows, predictions, data, winners, spec)
    explanation = None
    if "sae" in winners:
        first = winners["sae"][0]
        C = fitted[first][0].C
        assert C is not None
        explanation = explain(store, methods[first], data, splits[0], C)
    result = StudyResult(
        spec=spec,
        data=data,
        splits=splits,
        split_sha256=split_sha256(data, splits),
        c_grid=C_GRID,
        rows=rows,
        summary=summary,
        selected=selected,
        difference=difference,
        explanation=explanation,
        store_fingerprint=store.fingerprint,
        predictions=predictions,
        paths={},
        seconds=0.0,
    )
    return replace(result, paths=write_study(result), seconds=time.perf_counter() - started)


def _evaluate_all(
    store: FeatureStore, methods: Sequence[Method], data: StudyData, splits: Sequence[Split], n_jobs: int
) -> Iterator[tuple[int, tuple[Fitted, ...]]]:
    """(columns, outcome of each seed) of every method; matrices are read as processes become free."""
    from joblib import Parallel, delayed

    def tasks() -> Iterator[Any]:
        for method in methods:
            yield delayed(_cells)(method.kind, load_matrix(store, method, data), data.y, len(data.classes), splits)

    # Two methods a process are in flight, so this bounds the matrices in memory too.
    return iter(Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="2 * n_jobs")(tasks()))


def _cells(
    kind: str, matrix: MethodMatrix, y: np.ndarray, n_classes: int, splits: Sequence[Split]
) -> tuple[int, tuple[Fitted, ...]]:
    """One method on every seed, on one thread: more would only move the last bits and fight over the cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        fitted = evaluate(kind, matrix, y, n_classes, splits)
    return (0 if matrix.X is None else int(matrix.X.shape[1])), fitted


def _select(fitted: Sequence[Sequence[Fitted]], members: Sequence[int]) -> tuple[int, ...]:
    """For each seed the member with the best validation score of that seed; among equals the first."""
    seeds = range(len(fitted[0]))
    return tuple(max(members, key=lambda m: fitted[m][s].validation_macro_f1) for s in seeds)


def _predictions(cells: Sequence[Fitted], data: StudyData, splits: Sequence[Split]) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(split.test, data.y[split.test], cell.y_pred, cell.log_proba)
        for cell, split in zip(cells, splits, strict=True)
    )


def _rows(
    methods: Sequence[Method],
    fitted: Sequence[Sequence[Fitted]],
    widths: Sequence[int],
    predictions: Sequence[Sequence[Prediction]],
    data: StudyData,
    splits: Sequence[Split],
    winners: Mapping[str, Sequence[int]],
) -> tuple[MethodRow, ...]:
    rows = []
    for m, method in enumerate(methods):
        for s, split in enumerate(splits):
            cell, answer = fitted[m][s], predictions[m][s]
            area, undefined = auroc(answer.y_true, answer.log_proba)
            row = MethodRow(
                method=method.name,
                kind=method.kind,
                sae=method.sae,
                pool=method.pool,
                binarize=method.binarize,
                column=method.column,
                seed=split.seed,
                n_train=len(split.train),
                n_test=len(split.test),
                n_features=widths[m],
                C=cell.C,
                c_at_edge=cell.C in (C_GRID[0], C_GRID[-1]),
                converged=cell.converged,
                iterations=cell.iterations,
                validation_macro_f1=cell.validation_macro_f1,
                macro_f1=macro_f1(answer.y_true, answer.y_pred, len(data.classes)),
                accuracy=accuracy(answer.y_true, answer.y_pred),
                auroc=area,
                auroc_undefined=undefined,
                selected=any(chosen[s] == m for chosen in winners.values()),
            )
            rows.append(row)
    return tuple(rows)


def _summarise(
    methods: Sequence[Method],
    rows: Sequence[MethodRow],
    predictions: Sequence[Sequence[Prediction]],
    data: StudyData,
    winners: Mapping[str, Sequence[int]],
    spec: StudySpec,
) -> tuple[tuple[MethodSummary, ...], dict[str, MethodSummary], Interval | None]:
    """Means over seeds with intervals: of every method, of each family, and of the families' paired difference."""
    seeds = spec.split.seeds
    of_method = [rows[m * seeds : (m + 1) * seeds] for m in range(len(methods))]
    of_family = {name: [of_method[m][s] for s, m in enumerate(chosen)] for name, chosen in winners.items()}
    family_answers = [[predictions[m][s] for s, m in enumerate(chosen)] for chosen in winners.values()]
    replicates = bootstrap([*predictions, *family_answers], len(data.classes), len(data.y), data.group, spec.bootstrap)
    summary = tuple(
        _summary(method.name, method.kind, of_method[m], replicates[m], chosen=sum(r.selected for r in of_method[m]))
        for m, method in enumerate(methods)
    )
    selected = {
        name: _summary(name, "selected", chosen, replicates[len(methods) + f], cells=tuple(r.method for r in chosen))
        for f, (name, chosen) in enumerate(of_family.items())
    }
    if len(selected) < 2:
        return summary, selected, None
    paired = replicates[len(methods), 0] - replicates[len(methods) + 1, 0]
    value = selected["sae"].macro_f1.value - selected["baseline"].macro_f1.value
    return summary, selected, interval(value, paired)


def _summary(
    name: str,
    kind: str,
    rows: Sequence[MethodRow],
    replicates: np.ndarray,
    chosen: int = 0,
    cells: tuple[str, ...] = (),
) -> MethodSummary:
    defined = [row.auroc for row in rows if not np.isnan(row.auroc)]
    values = {
        "macro_f1": float(np.mean([row.macro_f1 for row in rows])),
        "accuracy": float(np.mean([row.accuracy for row in rows])),
        "auroc": float(np.mean(defined)) if defined else float("nan"),
    }
    intervals = {metric: interval(values[metric], replicates[i]) for i, metric in enumerate(METRICS)}
    notes = []
    if len(defined) < len(rows):
        reason = next(row.auroc_undefined for row in rows if row.auroc_undefined)
        notes.append(f"AUROC undefined in {len(rows) - len(defined)} of {len(rows)} seeds: {reason}")
    if stopped := sum(not row.converged for row in rows):
        notes.append(f"solver stopped early in {stopped} of {len(rows)} seeds")
    if edge := sum(row.c_at_edge for row in rows):
        notes.append(f"C at the edge of the grid in {edge} of {len(rows)} seeds")
    return MethodSummary(
        method=name,
        kind=kind,
        macro_f1=intervals["macro_f1"],
        accuracy=intervals["accuracy"],
        auroc=intervals["auroc"],
        validation_macro_f1=float(np.mean([row.validation_macro_f1 for row in rows])),
        C=tuple(row.C for row in rows if row.C is not None),
        chosen=chosen,
        cells=cells,
        notes=tuple(notes),
    )
