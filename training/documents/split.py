"""Draw the test sets of a study, for each seed, and the inner folds of the documents that are left to train on.

`make_splits` draws them once, before any feature is read, and every method uses the same. A split depends on ids,
classes, groups and near-duplicates alone: not on the order of the store, the methods or the number of processes.
Classes keep their shares; groups and near-duplicate texts stay whole at both levels (the draws are
`training.documents.drawing`). `training.documents.regimes` derives harder training sets from these splits, with the
same test documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featurestore.errors import StudyError
from training.documents.condition import STUDY, Condition
from training.documents.drawing import blocks, hold_out
from training.documents.labels import StudyData
from training.documents.named_values import named_values
from training.documents.too_few_units import check_sizes, check_units, quoted
from training.spec import GivenSplit, SplitSpec

if TYPE_CHECKING:
    import pyarrow as pa

TEST = -1  # value of `Split.fold` for held-out documents
UNUSED = -2  # and for documents that are neither held out nor trained on


@dataclass(frozen=True)
class Split:
    """One seed's division of N documents.

    Attributes:
        seed: The seed.
        fold: int64 [N]; TEST for held-out documents, UNUSED for none of both, else the inner fold 0 .. folds-1.
        outer: Which outer fold is held out, when a seed has several.
        condition: The regime and its strength.
        y_train: int64 [N], the labels that training sees where they are not the true ones, else None.
    """

    seed: int
    fold: np.ndarray
    outer: int = 0
    condition: Condition = STUDY
    y_train: np.ndarray | None = None

    @property
    def test(self) -> np.ndarray:
        """Positions of the held-out documents."""
        return np.flatnonzero(self.fold == TEST)

    @property
    def train(self) -> np.ndarray:
        """Positions of the training documents."""
        return np.flatnonzero(self.fold >= 0)

    def labels(self, y: np.ndarray) -> np.ndarray:
        """The classes that training sees, int64 [N], of documents whose true ones are y."""
        return y if self.y_train is None else self.y_train

    @property
    def folds(self) -> list[int]:
        """The inner folds that hold documents, rising; a regime may leave some empty."""
        return np.unique(self.fold[self.fold >= 0]).tolist()

    def inner(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(fit, validate) positions for each of `folds`; none is held out."""
        inside = self.fold >= 0
        return [(np.flatnonzero(inside & (self.fold != k)), np.flatnonzero(self.fold == k)) for k in self.folds]


def make_splits(data: StudyData, spec: SplitSpec) -> tuple[Split, ...]:
    """Draw the stratified splits of every seed, groups and near-duplicates kept whole.

    Raises:
        StudyError: A class has too few documents, groups or clusters of near-duplicates for this test set and number
            of folds, or a given split leaves one side empty.
    """
    if spec.column is None:
        check_sizes(data, spec)
    splits = tuple(split for seed in range(spec.seeds) for split in _draw(data, spec, seed))
    for split in splits:
        check_classes(data, split)
        if spec.column is None:
            _check_test(data, split)
        if (n := len(split.inner())) < spec.folds:
            raise StudyError(
                f"split: {_where(split)} only {n} of {spec.folds} inner folds hold documents, for groups hold several "
                "classes; lower split.folds, or use finer groups"
            )
    return splits


def straddling(data: StudyData, spec: SplitSpec) -> float | None:
    """Test documents, on average over splits, that would have a near-duplicate in training had none been looked for.

    Returns:
        The mean count; None when near-duplicates were not looked for.
    """
    if data.text_cluster is None:
        return None
    if int(data.text_cluster.max()) + 1 == len(data.y):
        return 0.0
    careless = replace(data, text_cluster=None)
    counts = [
        np.isin(data.text_cluster[split.test], data.text_cluster[split.train]).sum()
        for seed in range(spec.seeds)
        for split in _draw(careless, spec, seed)
    ]
    return float(np.mean(counts))


def split_table(data: StudyData, splits: Sequence[Split]) -> pa.Table:
    """The splits as a table, those of regimes too.

    Columns: doc_id, seed, outer, condition ("" for the study itself), role ("train", "test" or "unused"), fold (null
    unless train) and label, the class that training and testing go by (wrong on purpose under label noise).
    """
    import pyarrow as pa

    fold = np.concatenate([split.fold for split in splits])
    seen = np.concatenate([split.labels(data.y) for split in splits])
    role = np.select([fold == TEST, fold == UNUSED], ["test", "unused"], "train")
    return pa.table(
        {
            "doc_id": pa.array(np.tile(data.doc_id, len(splits)), pa.string()),
            "seed": pa.array(np.repeat([split.seed for split in splits], len(data.doc_id)), pa.int64()),
            "outer": pa.array(np.repeat([split.outer for split in splits], len(data.doc_id)), pa.int64()),
            "condition": pa.array(np.repeat([str(split.condition) for split in splits], len(data.doc_id)), pa.string()),
            "role": pa.array(role, pa.string()),
            "fold": pa.array(fold, pa.int64(), mask=fold < 0),
            "label": pa.array(np.asarray(data.classes, dtype=object)[seen], pa.string()),
        }
    )


def split_sha256(data: StudyData, splits: Sequence[Split]) -> str:
    """Hash of what the splits say (one JSON line `[seed, outer, doc_id, fold]` a row), whatever file they are in."""
    digest = hashlib.sha256()
    for split in splits:
        for doc_id, fold in zip(data.doc_id, split.fold, strict=True):
            digest.update(json.dumps([split.seed, split.outer, doc_id, int(fold)]).encode() + b"\n")
    return digest.hexdigest()


def check_classes(data: StudyData, split: Split) -> None:
    """A probe must see every class whenever it is fitted.

    Raises:
        StudyError: A class is missing from a training part, or there is nothing to validate on.
    """
    y, inner = split.labels(data.y), split.inner()
    for fit, validate in [(split.train, split.test), *inner]:
        absent = np.setdiff1d(np.arange(len(data.classes)), y[fit])
        if len(absent) or not len(validate) or len(inner) < 2:
            what = f"no {quoted(data.classes[absent[0]])} to learn from" if len(absent) else "nothing to validate on"
            raise StudyError(f"split: {_where(split)} a fold has {what}; lower split.folds, or use finer groups")


def _check_test(data: StudyData, split: Split) -> None:
    absent = np.setdiff1d(np.arange(len(data.classes)), data.y[split.test])
    if len(absent):
        raise StudyError(
            f"split: {_where(split)} no {quoted(data.classes[absent[0]])} is left to test on, for groups hold several "
            "classes; use finer groups, or leave classes out (split.exclude_classes)"
        )


def _where(split: Split) -> str:
    return f"with seed {split.seed}" + ("" if split.condition == STUDY else f" and {split.condition}")


def _draw(data: StudyData, spec: SplitSpec, seed: int) -> list[Split]:
    """The splits of one seed: one, or one for each outer fold."""
    splits = []
    for outer, (train, unused) in enumerate(_outer(data, spec, seed)):
        fold = np.full(len(data.y), TEST, dtype=np.int64)
        fold[unused] = UNUSED
        for k, validate in enumerate(blocks(data, train, spec.folds, seed)):
            fold[validate] = k
        splits.append(Split(seed, fold, outer))
    return splits


def _outer(data: StudyData, spec: SplitSpec, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training rows, unused rows) of each split of one seed; all other rows are held out."""
    rows, none = np.arange(len(data.y)), np.empty(0, dtype=np.int64)
    if spec.column is not None:
        return [_given(data, spec.column, spec.folds)]
    if spec.outer is not None:
        crossed = blocks(data, rows, spec.outer, seed, spec.folds)
        return [(np.setdiff1d(rows, block), none) for block in crossed]
    return [(np.setdiff1d(rows, hold_out(data, spec.test, spec.folds, seed)), none)]


def _given(data: StudyData, column: GivenSplit, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, unused rows) of the split that a column gives."""
    rows = np.arange(len(data.y))
    values = data.columns[column.name].astype(str)
    held_out = np.isin(values, named_values(values, column.test, "split.column.test", column.name))
    if held_out.all() or not held_out.any():
        some = ", ".join(sorted(set(values))[:5])
        raise StudyError(
            f"split.column: column '{column.name}' holds {some}, so {'all' if held_out.all() else 'none'} "
            f"of the documents are held out by {', '.join(column.test)}; name other values under 'test'"
        )
    unit = data.unit
    # A given test set is kept; what would leak into it is not trained on.
    leaks = np.zeros(len(rows), bool) if unit is None else ~held_out & np.isin(unit, unit[held_out])
    train = rows[~held_out & ~leaks]
    check_units(data, train, folds, f"{folds} folds need")
    return train, rows[leaks]
