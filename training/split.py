"""The frozen split: for each seed, which documents are held out and in which inner fold the others are.

Drawn once from ids, classes and groups alone, before any feature is read, and shared by every method; written to
`split.parquet` with its sha256. Classes keep their shares; groups stay whole at both levels. The split of a study does
not depend on the order of the store, on the methods, or on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurestore.errors import StudyError
from training.labels import StudyData
from training.spec import SplitSpec

if TYPE_CHECKING:
    import pyarrow as pa

TEST = -1  # value of `Split.fold` for held-out documents


@dataclass(frozen=True)
class Split:
    """One seed's division of N documents.

    Attributes:
        seed: The seed.
        fold: int64 [N]; TEST for held-out documents, else the inner fold 0 .. folds-1.
    """

    seed: int
    fold: np.ndarray

    @property
    def test(self) -> np.ndarray:
        """Positions of the held-out documents."""
        return np.flatnonzero(self.fold == TEST)

    @property
    def train(self) -> np.ndarray:
        """Positions of all other documents."""
        return np.flatnonzero(self.fold != TEST)

    def inner(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(fit, validate) positions for each inner fold, in fold order; none of them is held out."""
        folds = range(int(self.fold.max()) + 1)
        return [(np.flatnonzero((self.fold != TEST) & (self.fold != k)), np.flatnonzero(self.fold == k)) for k in folds]


def make_splits(data: StudyData, spec: SplitSpec) -> tuple[Split, ...]:
    """Draw one stratified (and, with groups, group-respecting) split for each seed.

    Raises:
        StudyError: A class has too few documents or groups for this test share and number of folds.
    """
    _check_sizes(data, spec)
    splits = tuple(_draw(data, spec, seed) for seed in range(spec.seeds))
    for split in splits:
        _check_classes(data, split)
    return splits


def split_table(data: StudyData, splits: Sequence[Split]) -> pa.Table:
    """The splits as a table: doc_id, seed, role ("train" or "test"), fold (null for test)."""
    import pyarrow as pa

    fold = np.concatenate([split.fold for split in splits])
    return pa.table(
        {
            "doc_id": pa.array(np.tile(data.doc_id, len(splits)), pa.string()),
            "seed": pa.array(np.repeat([split.seed for split in splits], len(data.doc_id)), pa.int64()),
            "role": pa.array(np.where(fold == TEST, "test", "train"), pa.string()),
            "fold": pa.array(fold, pa.int64(), mask=fold == TEST),
        }
    )


def split_sha256(data: StudyData, splits: Sequence[Split]) -> str:
    """Hash of what the splits say (one JSON line `[seed, doc_id, fold]` a row), whatever file they are kept in."""
    digest = hashlib.sha256()
    for split in splits:
        for doc_id, fold in zip(data.doc_id, split.fold, strict=True):
            digest.update(json.dumps([split.seed, doc_id, int(fold)]).encode() + b"\n")
    return digest.hexdigest()


def _draw(data: StudyData, spec: SplitSpec, seed: int) -> Split:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

    y, group, n = data.y, data.group, len(data.y)
    fold = np.full(n, TEST, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scarce classes are judged by _check_sizes and _check_classes
        if group is None:
            outer = StratifiedShuffleSplit(n_splits=1, test_size=spec.test, random_state=seed)
            train = np.sort(next(outer.split(np.zeros(n), y))[0])
            blocks = StratifiedKFold(spec.folds, shuffle=True, random_state=seed).split(np.zeros(len(train)), y[train])
        else:
            # Groups of distinct sizes leave StratifiedGroupKFold little to shuffle: every seed takes another block, so
            # that seeds hold out different groups even then.
            parts = max(2, round(1 / spec.test))
            outer_parts = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(np.zeros(n), y, group)
            train = np.sort([part[0] for part in outer_parts][seed % parts])
            inner = StratifiedGroupKFold(spec.folds, shuffle=True, random_state=seed)
            blocks = inner.split(np.zeros(len(train)), y[train], group[train])
        for k, (_, validate) in enumerate(blocks):
            fold[train[validate]] = k
    return Split(seed, fold)


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


def _check_classes(data: StudyData, split: Split) -> None:
    """A probe must see every class whenever it is fitted."""
    for fit, validate in [(split.train, split.test), *split.inner()]:
        absent = sorted(set(range(len(data.classes))) - set(data.y[fit].tolist()))
        if absent or not len(validate):
            what = f"no '{data.classes[absent[0]]}' to learn from" if absent else "nothing to validate on"
            raise StudyError(
                f"split: with seed {split.seed} the groups leave a fold with {what}; "
                "lower split.folds, or use finer groups"
            )
