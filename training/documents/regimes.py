"""Harder training sets on the same test documents: few labels, wrong labels, a rare class, and those of `transfer`.

Each regime takes the splits of the study and changes what is trained on, never what is tested on, so its scores stand
beside those of the study itself. Draws are nested (the 100 documents of a sample-size curve are among its 200) and
depend on the split's seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featurestore.base.number_words import told_apart
from featurestore.errors import StudyError
from training.documents.condition import Condition, Regime
from training.documents.labels import StudyData
from training.documents.split import UNUSED, Split, check_classes
from training.documents.too_few_units import quoted
from training.documents.transfer import FEWEST, trained_on, transfer_levels
from training.spec import StudySpec


def make_conditions(data: StudyData, splits: Sequence[Split], spec: StudySpec) -> tuple[Split, ...]:
    """The splits of every regime of a study.

    Raises:
        StudyError: A training set would be larger than there is, or too small for its classes.
    """
    found = []
    noise, minority = told_apart(spec.regimes.label_noise), told_apart(spec.regimes.minority_share)
    for split in splits:
        found += [_of_size(data, split, n) for n in spec.regimes.train_sizes]
        found += [_noisy(data, split, Condition(Regime.NOISE, *said)) for said in noise.items()]
        found += [_imbalanced(data, split, Condition(Regime.MINORITY, *said)) for said in minority.items()]
        if spec.transfer is not None:
            found += [trained_on(data, split, spec, level) for level in transfer_levels(data, spec)]
    for split in found:
        check_classes(data, split)
    return tuple(found)


def _of_size(data: StudyData, split: Split, n: int) -> Split:
    """n training documents; every class keeps its share, at least two documents, and as many folds as they reach."""
    if n >= len(split.train):
        raise StudyError(
            f"regimes.train_sizes: {n} is not below the {len(split.train):,} training documents of a split; lower it"
        )
    if n < FEWEST * len(data.classes):
        raise StudyError(
            f"regimes.train_sizes: {n} is too few for {len(data.classes)} classes with {FEWEST} documents each; raise "
            f"it to {FEWEST * len(data.classes)}"
        )
    rank = _order(split, "size")
    share = np.bincount(data.y[split.train], minlength=len(data.classes)) * n / len(split.train)
    take = np.maximum(FEWEST, np.floor(share)).astype(int)
    for c in np.argsort(-(share - np.floor(share)), kind="stable"):
        take[c] += int(take.sum() < n)
    while take.sum() > n:  # what rare classes have beyond their share is the commonest one's loss
        take[np.argmax(take)] -= 1
    fold = split.fold.copy()
    for c, size in enumerate(take):
        fold[_spread(data, split, c, rank)[size:]] = UNUSED
    return replace(split, fold=fold, condition=Condition(Regime.SIZE, n))


def _noisy(data: StudyData, split: Split, condition: Condition) -> Split:
    """A share of the training labels replaced by another class, drawn evenly from the others."""
    share = _share(condition)
    rank = _order(split, "noise")
    # Of each class two documents keep their label, the last ones, so that no class is lost from a fit.
    kept = np.concatenate([_spread(data, split, c, -rank)[:FEWEST] for c in range(len(data.classes))])
    free = np.setdiff1d(split.train, kept)
    n_wrong = round(share * len(split.train))
    if n_wrong > len(free):
        raise StudyError(
            f"regimes.label_noise: {share:g} of {len(split.train):,} training documents leaves fewer than {FEWEST} "
            f"true labels for each of {len(data.classes)} classes; lower it"
        )
    wrong = free[np.argsort(rank[free])][:n_wrong]
    shift = np.random.default_rng([split.seed, split.outer, 2]).integers(1, len(data.classes), len(data.y))
    y = data.y.copy()
    y[wrong] = (y[wrong] + shift[wrong]) % len(data.classes)
    return replace(split, condition=condition, y_train=y)


def _imbalanced(data: StudyData, split: Split, condition: Condition) -> Split:
    """The rarest class thinned until it is a share of the training documents."""
    share = _share(condition)
    counts = np.bincount(data.y[split.train], minlength=len(data.classes))
    rarest = int(np.argmin(counts))
    keep = round(share / (1 - share) * (counts.sum() - counts[rarest]))
    if keep >= counts[rarest]:
        raise StudyError(
            f"regimes.minority_share: class '{data.classes[rarest]}' is {counts[rarest] / counts.sum():.1%} of the "
            f"training documents already, so it cannot be thinned to {share:.1%}; lower the share"
        )
    if keep < FEWEST:
        raise StudyError(
            f"regimes.minority_share: {share:g} leaves {keep} of {counts[rarest]:,} training documents of class "
            f"{quoted(data.classes[rarest])}, and a probe needs {FEWEST}; raise the share"
        )
    fold = split.fold.copy()
    fold[_spread(data, split, rarest, _order(split, "imbalance"))[keep:]] = UNUSED
    return replace(split, fold=fold, condition=condition)


def _share(condition: Condition) -> float:
    """The level of a condition whose level is a share."""
    assert isinstance(condition.level, float)
    return condition.level


def _spread(data: StudyData, split: Split, code: int, rank: np.ndarray) -> np.ndarray:
    """The training documents of a class by rank, except that the first ones come from as many inner folds as there are.

    However few are taken, the class is then missing from no more folds than it must.
    """
    mine = split.train[data.y[split.train] == code]
    mine = mine[np.argsort(rank[mine])]
    first = np.sort(np.unique(split.fold[mine], return_index=True)[1])
    return np.concatenate([mine[first], np.delete(mine, first)])


def _order(split: Split, what: str) -> np.ndarray:
    """A random rank of every document, the same for all strengths of one regime."""
    rng = np.random.default_rng([split.seed, split.outer, *what.encode()])
    return rng.permutation(len(split.fold))
