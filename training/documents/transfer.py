"""Splits for transfer: trained on the documents of one language or source alone, or of another value of a column.

What is tested on stays as it is, and is then looked at value by value.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featurestore.errors import StudyError
from training.documents.condition import Condition, Regime
from training.documents.drawing import blocks
from training.documents.labels import StudyData, count_units
from training.documents.named_values import named_values, no_such_value
from training.documents.slices import check_few
from training.documents.split import UNUSED, Split
from training.documents.too_few_units import quoted
from training.spec import StudySpec

FEWEST = 2  # documents of a class in a training set, in two inner folds, so that whatever is fitted sees the class


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


def trained_on(data: StudyData, split: Split, spec: StudySpec, level: str) -> Split:
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
