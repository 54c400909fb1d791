"""The plain records of a study: rows for each method and seed, summaries over seeds, and where the files are.

Plain frozen data between `training.study`, which computes it, and `training.output`, which writes and shows it. The
attributes of `MethodRow` are the columns of results.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from training.documents.labels import StudyData
from training.documents.split import Split
from training.scores.bootstrap import Interval
from training.scores.calibration import Calibration
from training.scores.metrics import ClassScores, Prediction
from training.scores.operating_points import Measured, OperatingPoint
from training.scores.significance import Comparison
from training.spec import StudySpec


@dataclass(frozen=True)
class MethodRow:
    """One method on one seed: a row of results.parquet.

    Attributes:
        method, kind, sae, pool, binarize, column: The method (see `training.methods.method.Method`); binarize is the
            threshold as text, "learnt" or null.
        scale, select, k, probe: More of the method.
        store, min_documents: The rest of it; store is what another store than the study's is called, null for its own.
        condition: The regime, "" for the study itself.
        test_part: Which value of the transfer column the test rows have, "" for all of them.
        seed, outer: Seed of the split, and which of its outer folds is held out.
        n_train, n_test: Documents on either side.
        n_features: Columns that are nonzero for some document (0 for majority).
        parameter, value: Hyper-parameter of the probe and what was chosen for it on the inner folds; null without one.
        C: The same where the parameter is C, else null.
        c_at_edge: Whether C is the largest or smallest of the grid.
        converged, iterations: Of the final fit.
        validation_macro_f1: Mean over inner folds at the chosen C: the only score that selects.
        macro_f1, accuracy, auroc, auprc: On the test rows.
        brier, ece: Brier score and calibration error of the probabilities; null for linear_svm, which has none.
        auroc_undefined: Why auroc is NaN, else null.
        selected: Whether validation chose this SAE method (or this baseline) for the seed, among all of its family.
    """

    method: str
    kind: str
    sae: str | None
    pool: str | None
    binarize: str | None
    column: str | None
    scale: str
    select: str | None
    k: int | None
    probe: str | None
    store: str | None
    min_documents: int
    condition: str
    test_part: str
    seed: int
    outer: int
    n_train: int
    n_test: int
    n_features: int
    parameter: str | None
    value: float | None
    C: float | None
    c_at_edge: bool
    converged: bool
    iterations: int
    validation_macro_f1: float
    macro_f1: float
    accuracy: float
    auroc: float
    auprc: float
    brier: float | None
    ece: float | None
    auroc_undefined: str | None
    selected: bool


@dataclass(frozen=True)
class MethodSummary:
    """One method (or one family with the member selected in each seed) over all seeds.

    Attributes:
        method: Its name.
        kind: "sae", "dense", "tfidf" or "majority"; "selected" for a family.
        macro_f1, accuracy, auroc: Mean over seeds with its bootstrap interval.
        validation_macro_f1: Mean over seeds.
        auprc, brier, ece: Means over seeds; NaN where undefined.
        class_f1: F1 of each class, mean over seeds.
        classes: Precision, recall, F1 and AUPRC of each class, means over seeds.
        parameter: Name of the hyper-parameter, None without one (of a family, where its members' differ).
        values: What was chosen for it in each split; empty without one.
        C: The same of the splits where it is C.
        chosen: For a method, in how many seeds its family's selection chose it.
        members: For a family, the method selected in each seed (`cells` in results.json).
        notes: What a reader of the numbers must know, in sentences.
    """

    method: str
    kind: str
    macro_f1: Interval
    accuracy: Interval
    auroc: Interval
    validation_macro_f1: float
    parameter: str | None
    values: tuple[float, ...]
    C: tuple[float, ...]
    auprc: float = float("nan")
    brier: float = float("nan")
    ece: float = float("nan")
    class_f1: tuple[float, ...] = ()
    classes: tuple[ClassScores, ...] = ()
    chosen: int = 0
    members: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headline:
    """What a study says first: SAE features against the baseline that validates best.

    Attributes:
        comparison: One of the study's corrected comparisons.
        sae, baseline: The method that validation chose for either side in each split.
        sae_macro_f1, baseline_macro_f1: What these reach together, of which the comparison is the difference.
    """

    comparison: Comparison
    sae: tuple[str, ...]
    baseline: tuple[str, ...]
    sae_macro_f1: Interval
    baseline_macro_f1: Interval


class FoldRow(NamedTuple):
    """A row of folds.parquet: macro F1 of one value of a method's hyper-parameter on one inner fold of one split."""

    method: str
    condition: str
    seed: int
    outer: int
    value: float | None
    fold: int
    validation_macro_f1: float


@dataclass(frozen=True)
class Summaries:
    """What a study says over all its splits, regimes apart.

    Attributes:
        methods: One for each method, in their order.
        selected: Of the SAE family and the baseline family, where there are any.
        headline: The comparison of SAE features with the best baseline; None where one of them is missing.
        comparisons: All comparisons, corrected together.
        predictions: [methods][splits].
    """

    methods: tuple[MethodSummary, ...]
    selected: Mapping[str, MethodSummary]
    headline: Headline | None
    comparisons: tuple[Comparison, ...]
    predictions: tuple[tuple[Prediction, ...], ...]


@dataclass(frozen=True)
class RegimeSummary:
    """One method or family under one regime, over all splits.

    Attributes:
        condition: The regime, "" for the study itself (beside transfer, whose parts of the test set it is scored on).
        test_part: Value of the transfer column of the test documents, "" for all.
        method: A method's name, or "SAE, selected" and "baseline, selected".
        n_train: Training documents, mean over splits.
        documents, units: Test documents of the part in any split, and independent units among them.
        macro_f1, auroc: With their intervals, which a part of fewer than `TOO_FEW` units lacks.
    """

    condition: str
    test_part: str
    method: str
    n_train: float
    documents: int
    units: int
    macro_f1: Interval
    auroc: Interval


@dataclass(frozen=True)
class SliceSummary:
    """One method on one slice, means over the splits that test on it.

    Attributes:
        by, slice: How documents are sliced, and which slice.
        method: A method's name, or that of a family.
        documents, units: Test documents of the slice in any split, and independent units among them.
        macro_f1, accuracy, auroc: With their intervals.
        auprc, brier, ece: NaN where undefined; the last two also where scores are no probabilities.
        classes: The scores of each class.
        measured: What the thresholds of an operating point come to on the slice, each document by those of its split;
            None without one, and for methods that have none.
        too_small: Whether the slice says nothing.
        warning: Why it does not, or what it lacks; "" if nothing is amiss.
    """

    by: str
    slice: str
    method: str
    documents: int
    units: int
    macro_f1: Interval
    accuracy: Interval
    auroc: Interval
    auprc: float
    brier: float
    ece: float
    classes: tuple[ClassScores, ...]
    measured: Measured | None = None
    too_small: bool = False
    warning: str = ""


@dataclass(frozen=True)
class Decided:
    """How one method decides.

    Attributes:
        method: Its name.
        calibration: Of the first split; None where the study asks for none.
        tested: "before" and "after" calibration -> log_loss, brier and ece on the first split's test documents; empty
            without calibration. What comes before is null for scores that are no probabilities.
        points: For each split its thresholds; empty without an operating point.
        measured: What they come to on the test documents of all splits, and
        measured_first: of the first split alone; None without an operating point.
        in_file: Whether a model file holds the first split's thresholds (a method of TF-IDF has none).
    """

    method: str
    calibration: Calibration | None = None
    tested: Mapping[str, Mapping[str, float] | None] = field(default_factory=dict)
    points: tuple[OperatingPoint, ...] = ()
    measured: Measured | None = None
    measured_first: Measured | None = None
    in_file: bool = True


@dataclass(frozen=True)
class StudyResult:
    """Everything a study found.

    Attributes:
        spec: The study.
        data: Its documents.
        splits: Its splits; `split_sha256` identifies them.
        conditions: The harder splits of its regimes.
        straddling: Test documents that would have had a near-duplicate in training, mean over splits; None if unknown.
        c_grid: The values of C that validation chose from.
        rows: One for each method and split of the study itself.
        regime_rows: One for each method and split of every regime (and part of its test set).
        fold_rows: Validation scores of every value on every inner fold.
        summary: One for each method, in the order of the rows.
        selected: The SAE family and the baseline family, where there are any.
        headline: The comparison of SAE features with the best baseline; None where one of them is missing.
        comparisons: The tests behind the verdicts, the headline's among them, corrected together.
        regimes: Summaries of the regimes.
        overlaps: For transfer: (method, train value, other train value, Jaccard index of their top features).
        slices: Every method and family on every slice; empty where the study asks for none.
        decided: Family -> how the method that stands for it decides; empty where nothing is calibrated or thresholded.
        explanation: Of the SAE method that the headline names (`training.output.explain`); None without SAE features.
        store_fingerprint: Of the store read.
        predictions: [methods][seeds], for predictions.parquet.
        made_of: Method -> hash of what it is made of, by which another study is told (`training.output.another_study`).
        paths: Name -> path of each file written.
        seconds: Wall time; the only thing here that a rerun may change.
    """

    spec: StudySpec
    data: StudyData
    splits: tuple[Split, ...]
    conditions: tuple[Split, ...]
    split_sha256: str
    straddling: float | None
    c_grid: tuple[float, ...]
    rows: tuple[MethodRow, ...]
    regime_rows: tuple[MethodRow, ...]
    fold_rows: tuple[FoldRow, ...]
    summary: tuple[MethodSummary, ...]
    selected: Mapping[str, MethodSummary]
    headline: Headline | None
    comparisons: tuple[Comparison, ...]
    regimes: tuple[RegimeSummary, ...]
    overlaps: tuple[tuple[str, str, str, float], ...]
    slices: tuple[SliceSummary, ...]
    decided: Mapping[str, Decided]
    explanation: Mapping[str, Any] | None
    store_fingerprint: str
    predictions: tuple[tuple[Prediction, ...], ...]
    made_of: Mapping[str, str]
    paths: Mapping[str, str]
    seconds: float
