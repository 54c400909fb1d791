"""Harder training sets on the same test documents: few labels, wrong labels, a rare class, another language or source.

Each regime takes the splits of the study and changes what is trained on, never what is tested on, so its scores stand
beside those of the study itself. Draws are nested (the 100 documents of a sample-size curve are among its 200) and
depend on the split's seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featurestore.errors import StudyError
from training.labels import StudyData
from training.named import named_values, no_such_value
from training.spec import StudySpec
from training.split import UNUSED, Split, check_classes


def make_conditions(data: StudyData, splits: Sequence[Split], spec: StudySpec) -> tuple[Split, ...]:
    """The splits of every regime of a study.

    Raises:
        StudyError: A training set would be larger than there is, or would miss a class.
    """
    found = []
    for split in splits:
        found += [_of_size(data, split, n) for n in spec.regimes.train_sizes]
        found += [_noisy(data, split, share) for share in spec.regimes.label_noise]
        found += [_imbalanced(data, split, share) for share in spec.regimes.minority_share]
        if spec.transfer is not None:
            found += [_only(data, split, spec.transfer.by, level) for level in transfer_levels(data, spec)]
    for split in found:
        check_classes(data, split)
    return tuple(found)


def transfer_levels(data: StudyData, spec: StudySpec) -> list[str]:
    """The values to train on, one after the other.

    Raises:
        StudyError: The column does not hold one of them.
    """
    assert spec.transfer is not None
    there = sorted(set(data.columns[spec.transfer.by]))
    if spec.transfer.train is None:
        return there
    wanted, by = spec.transfer.train, spec.transfer.by
    found = named_values(there, wanted, "transfer.train", by)
    if not found:
        raise StudyError(f"transfer.train: {no_such_value(by, wanted[0], there)}")
    return found


def _of_size(data: StudyData, split: Split, n: int) -> Split:
    """n training documents; every class keeps its share, at least two documents, and as many folds as they reach."""
    if n >= len(split.train):
        raise StudyError(
            f"regimes.train_sizes: {n} is not below the {len(split.train):,} training documents of a split; lower it"
        )
    rank = _order(split, "size")
    share = np.bincount(data.y[split.train], minlength=len(data.classes)) * n / len(split.train)
    take = np.maximum(2, np.floor(share)).astype(int)
    for c in np.argsort(-(share - np.floor(share)), kind="stable"):
        take[c] += int(take.sum() < n)
    fold = split.fold.copy()
    for c, size in enumerate(take):
        mine = split.train[data.y[split.train] == c]
        fold[mine[np.argsort(rank[mine])][size:]] = UNUSED
    return replace(split, fold=fold, condition=f"n={n}")


def _noisy(data: StudyData, split: Split, share: float) -> Split:
    """A share of the training labels replaced by another class, drawn evenly from the others."""
    wrong = split.train[np.argsort(_order(split, "noise")[split.train])][: round(share * len(split.train))]
    shift = np.random.default_rng([split.seed, split.outer, 2]).integers(1, len(data.classes), len(data.y))
    y = data.y.copy()
    y[wrong] = (y[wrong] + shift[wrong]) % len(data.classes)
    return replace(split, condition=f"noise={share:g}", y_train=y)


def _imbalanced(data: StudyData, split: Split, share: float) -> Split:
    """The rarest class thinned until it is `share` of the training documents."""
    counts = np.bincount(data.y[split.train], minlength=len(data.classes))
    rarest = int(np.argmin(counts))
    keep = round(share / (1 - share) * (counts.sum() - counts[rarest]))
    if keep >= counts[rarest]:
        raise StudyError(
            f"regimes.minority_share: class '{data.classes[rarest]}' is {counts[rarest] / counts.sum():.1%} of the "
            f"training documents already, so it cannot be thinned to {share:.1%}; lower the share"
        )
    mine = split.train[data.y[split.train] == rarest]
    fold = split.fold.copy()
    fold[mine[np.argsort(_order(split, "imbalance")[mine])][keep:]] = UNUSED
    return replace(split, fold=fold, condition=f"minority={share:g}")


def _only(data: StudyData, split: Split, column: str, level: str) -> Split:
    """Trained on the documents of one value of a column."""
    fold = split.fold.copy()
    fold[(fold >= 0) & (data.columns[column] != level)] = UNUSED
    return replace(split, fold=fold, condition=f"train={level}")


def _order(split: Split, what: str) -> np.ndarray:
    """A random rank of every document, the same for all strengths of one regime."""
    rng = np.random.default_rng([split.seed, split.outer, *what.encode()])
    return rng.permutation(len(split.fold))
