"""What a study hands back: rows for each method and seed, summaries over seeds, and where the files are.

Plain frozen data between `study`, which computes it, and `writing` and `report`, which show it. The attributes of
`MethodRow` are the columns of results.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.labels import StudyData
from training.metrics import Interval, Prediction
from training.spec import StudySpec
from training.split import Split


@dataclass(frozen=True)
class MethodRow:
    """One method on one seed: a row of results.parquet.

    Attributes:
        method, kind, sae, pool, binarize, column: The method (see `training.features.Method`).
        seed: Seed of the split.
        n_train, n_test: Documents on either side.
        n_features: Columns that are nonzero for some document (0 for majority).
        C: Chosen on the inner folds; null for majority.
        c_at_edge: Whether C is the largest or smallest of the grid.
        converged, iterations: Of the final fit.
        validation_macro_f1: Mean over inner folds at the chosen C: the only score that selects.
        macro_f1, accuracy, auroc: On the test rows.
        auroc_undefined: Why auroc is NaN, else null.
        selected: Whether validation chose this SAE cell (or this baseline) for the seed, among all of its family.
    """

    method: str
    kind: str
    sae: str | None
    pool: str | None
    binarize: float | None
    column: str | None
    seed: int
    n_train: int
    n_test: int
    n_features: int
    C: float | None
    c_at_edge: bool
    converged: bool
    iterations: int
    validation_macro_f1: float
    macro_f1: float
    accuracy: float
    auroc: float
    auroc_undefined: str | None
    selected: bool


@dataclass(frozen=True)
class MethodSummary:
    """One method (or one family with its cell selected in each seed) over all seeds.

    Attributes:
        method: Its name.
        kind: "sae", "dense", "tfidf" or "majority"; "selected" for a family.
        macro_f1, accuracy, auroc: Mean over seeds with its bootstrap interval.
        validation_macro_f1: Mean over seeds.
        C: Chosen in each seed; empty for majority.
        chosen: For a method, in how many seeds its family's selection chose it.
        cells: For a family, the method selected in each seed.
        notes: What a reader of the numbers must know, in sentences.
    """

    method: str
    kind: str
    macro_f1: Interval
    accuracy: Interval
    auroc: Interval
    validation_macro_f1: float
    C: tuple[float, ...]
    chosen: int = 0
    cells: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyResult:
    """Everything a study found.

    Attributes:
        spec: The study.
        data: Its documents.
        splits: Its splits; `split_sha256` identifies them.
        c_grid: The values of C that validation chose from.
        rows: One for each method and seed.
        summary: One for each method, in the order of the rows.
        selected: The SAE family and the baseline family, where there are any.
        difference: Macro F1 of the selected SAE cell minus that of the selected baseline, with its paired interval.
        explanation: See `training.explain`; None without SAE cells.
        store_fingerprint: Of the store read.
        predictions: [methods][seeds], for predictions.parquet.
        paths: Name -> path of each file written.
        seconds: Wall time; the only thing here that a rerun may change.
    """

    spec: StudySpec
    data: StudyData
    splits: tuple[Split, ...]
    split_sha256: str
    c_grid: tuple[float, ...]
    rows: tuple[MethodRow, ...]
    summary: tuple[MethodSummary, ...]
    selected: Mapping[str, MethodSummary]
    difference: Interval | None
    explanation: Mapping[str, Any] | None
    store_fingerprint: str
    predictions: tuple[tuple[Prediction, ...], ...]
    paths: Mapping[str, str]
    seconds: float
