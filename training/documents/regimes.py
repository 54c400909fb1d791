"""Harder training sets on the same test documents: few labels, wrong labels, a rare class, another language or source.

Each regime takes the splits of the study and changes what is trained on, never what is tested on, so its scores stand
beside those of the study itself. Draws are nested (the 100 documents of a sample-size curve are among its 200) and
depend on the split's seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featurestore.base.text import told_apart
from featurestore.errors import StudyError
from training.documents.condition import Condition, Regime
from training.documents.drawing import blocks
from training.documents.labels import StudyData, count_units
from training.documents.named_values import named_values, no_such_value
from training.documents.slices import check_few
from training.documents.split import UNUSED, Split, check_classes
from training.documents.too_few_units import quoted
from training.spec import StudySpec

FEWEST = 2  # documents of a class in a training set, in two inner folds, so that whatever is fitted sees the class


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
            found += [_only(data, split, spec, level) for level in transfer_levels(data, spec)]
    for split in found:
        check_classes(data, split)
    return tuple(found)


def with_strata(data: StudyData, spec: StudySpec) -> StudyData:
    """The documents with what a split has to leave some of for transfer: each class of each value that is trained on.

    Returns:
        `data` with `strata`, in which all values that are not trained on count as one; unchanged without transfer.

    Raises:
        StudyError: A value holds too few documents of a class to learn from.
    """
    if spec.transfer is None:
        return data
    levels, n_classes = transfer_levels(data, spec), len(data.classes)
    column = data.columns[spec.transfer.by]
    place = {level: i for i, level in enumerate(levels)}
    level = np.array([place.get(value, len(levels)) for value in column])
    strata = level * n_classes + data.y
    units = count_units(strata, data.unit, (len(levels) + 1) * n_classes).reshape(-1, n_classes)
    if units[:-1].min() < FEWEST:
        least, code = np.unravel_index(np.argmin(units[:-1]), units[:-1].shape)
        raise StudyError(_too_few(data, levels[least], int(code), int(units[least, code])))
    if spec.split.column is None and (units.sum(axis=0) <= FEWEST * len(levels)).any():
        name = quoted(data.classes[np.argmin(units.sum(axis=0))])
        raise StudyError(
            f"transfer: to train on {FEWEST} documents of class {name} for each of {len(levels)} values of "
            f"'{spec.transfer.by}' leaves none to test on; name fewer in transfer.train, or leave the class out "
            "(split.exclude_classes)"
        )
    return replace(data, strata=strata)


def transfer_levels(data: StudyData, spec: StudySpec) -> list[str]:
    """The values to train on, one after the other.

    Raises:
        StudyError: The column does not hold one of them, or too many.
    """
    assert spec.transfer is not None
    there = sorted(set(data.columns[spec.transfer.by]))
    if len(there) < 2:
        raise StudyError(f"transfer.by: column '{spec.transfer.by}' holds '{there[0]}' only; name one with two values")
    check_few(f"transfer.by: column '{spec.transfer.by}'", len(there), "leave 'transfer' out")
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


def _only(data: StudyData, split: Split, spec: StudySpec, level: str) -> Split:
    """Trained on the documents of one value of a column, in the inner folds that they have.

    Where these would keep a class from what a probe is fitted on, the documents are put into folds of their own.
    """
    assert spec.transfer is not None
    n_classes = len(data.classes)
    mine = split.train[data.columns[spec.transfer.by][split.train] == level]
    units = count_units(data.y[mine], None if data.unit is None else data.unit[mine], n_classes)
    if units.min() < FEWEST:
        raise StudyError(_too_few(data, level, int(np.argmin(units)), int(units.min()), " left to train on"))
    fold = split.fold.copy()
    fold[split.train] = UNUSED
    fold[mine] = split.fold[mine]
    if count_units(data.y[mine], fold[mine], n_classes).min() < FEWEST:
        for k, validate in enumerate(blocks(data, mine, spec.split.folds, split.seed)):
            fold[validate] = k
    return replace(split, fold=fold, condition=Condition(Regime.TRANSFER, level))


def _too_few(data: StudyData, level: str, code: int, units: int, where: str = "") -> str:
    apart = "" if data.unit is None else " that may be parted"
    return (
        f"transfer: '{level}' has {units} document{'' if units == 1 else 's'} of class {quoted(data.classes[code])}"
        f"{apart}{where}, but it takes {FEWEST} to train on it; name other values in transfer.train, or leave the "
        "class out (split.exclude_classes)"
    )


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
