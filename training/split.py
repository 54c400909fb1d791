"""The frozen split: for each seed, which documents are held out and in which inner fold the others are.

Drawn once from ids, classes, groups and near-duplicates alone, before any feature is read, and shared by every method;
written to `split.parquet` with its sha256. Classes keep their shares; groups and near-duplicate texts stay whole at
both levels. The split of a study does not depend on the order of the store, on the methods, or on the number of
processes. `training.regimes` derives harder training sets from these splits; their test documents stay the same.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StudyError
from training.labels import StudyData
from training.named import named_values
from training.spec import SplitSpec

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
        condition: Name of the regime, "" for the study itself.
        y_train: int64 [N], the labels that training sees where they are not the true ones, else None.
    """

    seed: int
    fold: np.ndarray
    outer: int = 0
    condition: str = ""
    y_train: np.ndarray | None = None

    @property
    def test(self) -> np.ndarray:
        """Positions of the held-out documents."""
        return np.flatnonzero(self.fold == TEST)

    @property
    def train(self) -> np.ndarray:
        """Positions of the training documents."""
        return np.flatnonzero(self.fold >= 0)

    def inner(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(fit, validate) positions for each inner fold that holds documents, in fold order; none is held out."""
        folds = np.unique(self.fold[self.fold >= 0])
        return [(np.flatnonzero((self.fold >= 0) & (self.fold != k)), np.flatnonzero(self.fold == k)) for k in folds]


def make_splits(data: StudyData, spec: SplitSpec) -> tuple[Split, ...]:
    """Draw the stratified splits of every seed, groups and near-duplicates kept whole.

    Raises:
        StudyError: A class has too few documents or groups for this test share and number of folds, or a given split
            leaves one side empty.
    """
    _check_sizes(data, spec)
    splits = tuple(split for seed in range(spec.seeds) for split in _draw(data, spec, seed))
    for split in splits:
        check_classes(data, split)
    return splits


def straddling(data: StudyData, spec: SplitSpec) -> float | None:
    """Test documents, on average over splits, that would have a near-duplicate in training had none been looked for.

    Returns:
        The mean count; None when near-duplicates were not looked for.
    """
    if data.duplicate is None:
        return None
    if int(data.duplicate.max()) + 1 == len(data.y):
        return 0.0
    careless = replace(data, duplicate=None)
    counts = [
        np.isin(data.duplicate[split.test], data.duplicate[split.train]).sum()
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
    seen = np.concatenate([data.y if split.y_train is None else split.y_train for split in splits])
    role = np.select([fold == TEST, fold == UNUSED], ["test", "unused"], "train")
    return pa.table(
        {
            "doc_id": pa.array(np.tile(data.doc_id, len(splits)), pa.string()),
            "seed": pa.array(np.repeat([split.seed for split in splits], len(data.doc_id)), pa.int64()),
            "outer": pa.array(np.repeat([split.outer for split in splits], len(data.doc_id)), pa.int64()),
            "condition": pa.array(np.repeat([split.condition for split in splits], len(data.doc_id)), pa.string()),
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
    y = data.y if split.y_train is None else split.y_train
    inner = split.inner()
    where = f"with seed {split.seed}" + (f" and {split.condition}" if split.condition else "")
    for fit, validate in [(split.train, split.test), *inner]:
        absent = sorted(set(range(len(data.classes))) - set(y[fit].tolist()))
        if absent or not len(validate) or len(inner) < 2:
            name = data.classes[absent[0]] if absent else ""
            what = f"no {_quoted(name)} to learn from" if absent else "nothing to validate on"
            raise StudyError(
                f"split: {where} the groups leave a fold with {what}; lower split.folds, or use finer groups"
            )


def _draw(data: StudyData, spec: SplitSpec, seed: int) -> list[Split]:
    """The splits of one seed: one, or one for each outer fold."""
    y, n = data.y, len(data.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scarce classes are judged by _check_sizes and check_classes
        splits = []
        for outer, (train, unused) in enumerate(_outer(data, spec, seed)):
            fold = np.full(n, TEST, dtype=np.int64)
            fold[unused] = UNUSED
            for k, validate in enumerate(_blocks(data, y, train, spec.folds, seed)):
                fold[validate] = k
            splits.append(Split(seed, fold, outer))
    return splits


def _outer(data: StudyData, spec: SplitSpec, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training rows, unused rows) of each split of one seed; all other rows are held out."""
    from sklearn.model_selection import StratifiedShuffleSplit

    n, none = len(data.y), np.empty(0, dtype=np.int64)
    rows = np.arange(n)
    if spec.column is not None:
        values = data.columns[spec.column.name].astype(str)
        held_out = np.isin(values, named_values(values, spec.column.test, "split.column.test", spec.column.name))
        if held_out.all() or not held_out.any():
            some = ", ".join(sorted(set(values))[:5])
            raise StudyError(
                f"split.column: column '{spec.column.name}' holds {some}, so {'all' if held_out.all() else 'none'} "
                f"of the documents are held out by {', '.join(spec.column.test)}; name other values under 'test'"
            )
        unit = data.unit
        # A given test set is kept; what would leak into it is not trained on.
        leaks = np.zeros(n, bool) if unit is None else ~held_out & np.isin(unit, unit[held_out])
        return [(rows[~held_out & ~leaks], rows[leaks])]
    if spec.outer is not None:
        blocks = _blocks(data, data.y, rows, spec.outer, seed)
        return [(np.setdiff1d(rows, block), none) for block in blocks]
    if data.group is None:
        first, of_row = _representatives(data, rows)
        draw = StratifiedShuffleSplit(n_splits=1, test_size=spec.test, random_state=seed)
        chosen = next(draw.split(np.zeros(len(first)), data.y[first]))[0]
        return [(rows[np.isin(of_row, chosen)], none)]
    # Groups of distinct sizes leave StratifiedGroupKFold little to shuffle: every seed takes another block, so
    # that seeds hold out different groups even then.
    parts = max(2, round(1 / spec.test))
    blocks = _blocks(data, data.y, rows, parts, seed)
    return [(np.setdiff1d(rows, blocks[seed % parts]), none)]


def _blocks(data: StudyData, y: np.ndarray, rows: np.ndarray, n: int, seed: int) -> list[np.ndarray]:
    """`rows` in n stratified blocks; groups and near-duplicates whole."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if data.group is None:
        first, of_row = _representatives(data, rows)
        folds = StratifiedKFold(n, shuffle=True, random_state=seed).split(np.zeros(len(first)), y[first])
        return [rows[np.isin(of_row, block)] for _, block in folds]
    unit = data.unit
    assert unit is not None
    grouped: Any = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    return [rows[block] for _, block in grouped.split(np.zeros(len(rows)), y[rows], unit[rows])]


def _representatives(data: StudyData, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each cluster of near-duplicates among `rows`, and for each row the place of its cluster there.

    Clusters are drawn by their first document and the others follow: exact shares where there are no near-duplicates,
    and close to them where clusters are small, at the cost of a plain stratified draw.
    """
    if data.duplicate is None:
        return rows, np.arange(len(rows))
    _, first, of_row = np.unique(data.duplicate[rows], return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the rows, so that without near-duplicates nothing changes
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return rows[first[order]], place[of_row]


def _check_sizes(data: StudyData, spec: SplitSpec) -> None:
    """Every class needs a document (or group) in the test set and one in each inner fold."""
    need = spec.folds + 1
    unit = "labelled document" if data.group is None else "group"
    for code, name in enumerate(data.classes):
        mine = data.y == code
        have = int(mine.sum()) if data.group is None else len(np.unique(data.group[mine]))
        if have < need:
            unit += "" if have == 1 else "s"
            raise StudyError(
                f"label: class {_quoted(name)} has {have} {unit}, but a test set and {spec.folds} folds need {need}; "
                "label more, lower split.folds, or leave the class out"
            )
    if data.group is None and round(len(data.y) * spec.test) < len(data.classes):
        raise StudyError(
            f"split.test: {spec.test:g} of {len(data.y)} documents is fewer than one for each of "
            f"{len(data.classes)} classes; raise it"
        )


def _quoted(name: str) -> str:
    """A class name on one line; a text column taken for a label has names of any length."""
    line = " ".join(name.split())
    return f"'{line if len(line) <= 60 else f'{line[:57]}...'}'"
