"""Slices: documents that share a value of a column, or a range of length, so that scores can be given for each.

Slices take part in nothing but the scores: they neither split nor select, and a document without a value stays in the
study, in a slice of its own kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurestore.base.number_words import counted
from featurestore.errors import StudyError
from featurestore.tables.same_value import in_order, value_text
from training.spec import LENGTH, LengthSlices

if TYPE_CHECKING:
    import polars as pl

RANGES = 4  # of length, where a study does not say how many
MOST = 300  # values of a column: each has scores of every method, and no table of more is read
NO_VALUE = "(no value)"


@dataclass(frozen=True)
class Slices:
    """One way to slice N documents: the slices' names, and the slice of each document, int64 [N]."""

    names: tuple[str, ...]
    code: np.ndarray


def sliced_columns(by: Sequence[str | LengthSlices]) -> list[str]:
    """The columns that a study's `by` names."""
    return [one for one in by if isinstance(one, str) and one != LENGTH]


def make_slices(
    by: Sequence[str | LengthSlices], frame: Mapping[str, pl.Series], position: np.ndarray
) -> dict[str, Slices]:
    """The slices of the documents that take part.

    Args:
        by: Of the study.
        frame: The store's columns, `n_tokens` among them.
        position: int64 [N], the documents' rows in it.

    Raises:
        StudyError: A column holds too many values.
    """
    found = {}
    for one in by:
        if isinstance(one, str) and one != LENGTH:
            found[one] = _by_value([value_text(value) for value in frame[one].gather(position)])
            check_few(f"by: column '{one}'", len(found[one].names), "take it out of 'by'")
        else:
            length = one.length if isinstance(one, LengthSlices) else RANGES
            found[LENGTH] = _by_length(frame["n_tokens"].gather(position).to_numpy().astype(np.int64), length)
    return found


def check_few(column: str, values: int, otherwise: str) -> None:
    """Refuse a column by whose values scores are to be given, where there are more than anyone reads or waits for.

    Args:
        column: Its key and name.
        values: How many it holds.
        otherwise: What else can be done, in words.

    Raises:
        StudyError: There are too many.
    """
    if values > MOST:
        raise StudyError(
            f"{column} holds {values:,} values, and scores are given by at most {MOST}; give it fewer (ranges, groups, "
            f"'other' for the rare ones), or {otherwise}"
        )


def _by_value(values: Sequence[str | None]) -> Slices:
    names = [*in_order({value for value in values if value}), *([NO_VALUE] if not all(values) else [])]
    code = {name: i for i, name in enumerate(names)}
    return Slices(tuple(names), np.array([code[value or NO_VALUE] for value in values], dtype=np.int64))


def _by_length(tokens: np.ndarray, length: int | tuple[int, ...]) -> Slices:
    """Ranges of tokens; those that hold no document are left out."""
    if isinstance(length, tuple):
        ends = np.array(length)
    else:
        ordered = np.sort(tokens)
        ends = np.unique(ordered[np.arange(1, length) * len(tokens) // length])
    code = np.searchsorted(ends, tokens, side="right")
    there, code = np.unique(code, return_inverse=True)
    names = [_range(ends, int(i)) for i in there]
    return Slices(tuple(names), code.astype(np.int64))


def _range(ends: np.ndarray, i: int) -> str:
    """Range i in words: its first and last length."""
    if i == len(ends):
        return f"{ends[-1]}+ tokens"
    last = int(ends[i]) - 1
    first = 1 if i == 0 else int(ends[i - 1])
    return counted(first, "token") if first == last else f"{first}-{last} tokens"
