"""Read the numbers that a baseline is made of, from a table or from kept columns of the study's store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StudyError
from training.documents.joined import joined_column
from training.spec import NumbersBaseline, TableColumn

if TYPE_CHECKING:
    import polars as pl

LARGEST = float(np.finfo(np.float32).max)  # 3.4e38


def numbers_of(source: NumbersBaseline, frame: Mapping[str, pl.Series], notes: list[str]) -> np.ndarray:
    """The numbers of each row of `frame`, float64 [rows, columns]; NaN where there is none, or none within float32.

    Features are float32, and so are numbers that stand beside them.

    Args:
        source: Which numbers.
        frame: The store's `doc_id`, and its kept columns where they are meant.
        notes: Sentences about the table are added here.

    Raises:
        StudyError: The table cannot be read, or a column holds something else than numbers.
    """
    found = []
    for name in source.columns:
        if source.path is None or source.id is None:
            values: list[Any] = frame[name].to_list()
        else:
            table = TableColumn(path=source.path, id=source.id, column=name, csv=source.csv)
            values = joined_column(table, frame["doc_id"], "baselines", notes)[1]
        try:
            found.append([_number(value) for value in values])
        except ValueError as error:
            raise StudyError(f"baselines: column '{name}' of {source.name} holds {error}, which is no number") from None
    numbers = np.array(found, dtype=np.float64).T
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan)


def _number(value: Any) -> float:
    """A value as a number.

    Raises:
        ValueError: It is none; the message shows it.
    """
    if value is None:
        return float("nan")
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return float("inf")
    except (TypeError, ValueError):
        raise ValueError(repr(value)[:60]) from None
