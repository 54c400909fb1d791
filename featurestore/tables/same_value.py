"""Decide when two values are the same id or the same class: one rule for corpora, label tables, joins, lists of ids.

Values compare by their text. That of a string is the string itself, with its leading zeros, spaces and case; that of a
whole number of any type is its digits, so 1, 1.0 and Decimal("1") are one, exactly also beyond 2**53; that of another
number is the shortest that reads back as it; truth values are `true` and `false`, dates ISO 8601. Where one side's text
has no equal on the other, a text such as "1.0" (pandas writes whole numbers so, beside one that is missing) also stands
for 1; "001" never does. So an id meets at most one other, or the two sides are refused as ambiguous.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from featurestore.base.hostile_text import shortened
from featurestore.tables.arrow import python_values
from featurestore.tables.record import MISSING, Unusable

if TYPE_CHECKING:
    import polars as pl

_EXACT_IN_FLOAT64 = 2**53
_WHOLE = r"-?(?:0|[1-9][0-9]{0,399})"  # no number of any type has more digits, and Python reads no more than 4,300
_WHOLE_NUMBER = re.compile(_WHOLE)
_DIGITS = re.compile(r"[+-]?[0-9]+")
_AS_WHOLE = re.compile(rf"({_WHOLE})(\.0*)?")
_AS_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?", re.IGNORECASE)
_NOT_A_NUMBER = frozenset({"nan", "-nan", "+nan"})
_SHOWN_CHARACTERS = 40


def is_missing(value: Any) -> bool:
    """Whether a value is none: null, a key that is not there, NaN, or what pandas has for these."""
    if value is None or value is MISSING:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, Decimal):
        return value.is_nan()
    return type(value).__name__ in {"NAType", "NaTType"}  # told by name: pandas need not be installed


def value_text(value: Any) -> str | None:
    """The text by which a value compares; None where it is missing.

    Raises:
        TypeError: Nothing that can be an id or a class; the message is what it is instead, e.g. "lists".
    """
    if isinstance(value, str):
        return str.__str__(value)
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Real | Decimal):
        try:
            return _number_text(value)
        except ValueError:
            raise TypeError("numbers of more digits than can be read") from None
    if isinstance(value, UUID):
        return str(value)
    return _text_through_arrow(value)


def _number_text(value: Any) -> str:
    if isinstance(value, Integral) or (math.isfinite(value) and value == int(value)):
        return str(int(value))
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0") if "." in text else text
    # A numpy float of fewer bits has fewer digits than the Python float that it becomes.
    return str(value if isinstance(value, np.floating) else float(value))


def _text_through_arrow(value: Any) -> str | None:
    """Dates, times and whatever else Arrow has a type for."""
    import pyarrow as pa

    called: dict[type, str] = {list: "lists", tuple: "lists", dict: "objects", bytes: "bytes"}
    what = called.get(type(value), f"values of type {type(value).__name__}")
    if isinstance(value, list | tuple | dict | bytes):
        raise TypeError(what)
    if isinstance(value, Unusable):
        raise TypeError(f"one that {value.reason}")
    try:
        (plain,) = python_values(pa.array(np.array([value]) if isinstance(value, np.generic) else [value]))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise TypeError(what) from None
    if plain is not None and not isinstance(plain, str):
        raise TypeError(what)
    return plain


@dataclass(frozen=True)
class IdMatch:
    """Which of our ids each of their ids is.

    Attributes:
        row: int64 [theirs], its row among ours, or -1.
        as_numbers: How many are the same only as numbers.
        clash: Why the two sides are ambiguous, in a sentence without an end; None where they are not.
    """

    row: np.ndarray
    as_numbers: int = 0
    clash: str | None = None


def match_ids(ours: pl.Series, theirs: pl.Series) -> IdMatch:
    """Find ids among others.

    Args:
        ours: Texts, each of them once.
        theirs: Texts, in any order; one may stand several times, null is none.
    """
    import polars as pl

    hit = ours.is_in(theirs.unique().implode())
    known = pl.DataFrame({"id": ours, "row": np.arange(len(ours))})
    wanted = pl.DataFrame({"id": theirs})
    found = wanted.join(known.filter(hit), on="id", how="left", maintain_order="left")["row"]
    row = found.fill_null(-1).to_numpy().copy()
    left = pl.DataFrame({"id": theirs, "row": np.arange(len(theirs))}).filter(pl.Series(row < 0) & theirs.is_not_null())
    return _match_as_numbers(_by_number(known.filter(~hit)) if len(left) else {}, _by_number(left), row)


def _by_number(ids: pl.DataFrame) -> dict[str, dict[str, list[int]]]:
    """Digits of a whole number -> the texts that stand for it -> their rows."""
    found: dict[str, dict[str, list[int]]] = {}
    for text, row in ids.filter(ids["id"].str.contains(f"^{_WHOLE}(?:\\.0*)?$")).iter_rows():
        match = _AS_WHOLE.fullmatch(text)
        if match is None or (match[2] and abs(int(match[1][:20])) > _EXACT_IN_FLOAT64):
            continue  # beyond that, whoever wrote ".0" had lost digits before
        digits = "0" if match[1] == "-0" else match[1]
        found.setdefault(digits, {}).setdefault(text, []).append(row)
    return found


def _match_as_numbers(
    ours: dict[str, dict[str, list[int]]], theirs: dict[str, dict[str, list[int]]], row: np.ndarray
) -> IdMatch:
    """Fill in what has no equal; `row` is changed."""
    as_numbers = 0
    for digits, texts in theirs.items():
        there = ours.get(digits)
        if there is None:
            continue
        for side in (texts, there):
            if len(side) > 1:
                first, second, *_ = sorted(side)
                return IdMatch(row, as_numbers, f"ids '{first}' and '{second}' would both be {digits}")
        ((rows,), ((mine,),)) = texts.values(), there.values()
        row[rows] = mine
        as_numbers += len(rows)
    return IdMatch(row, as_numbers)


def examples(ours: Sequence[str] | pl.Series, theirs: Sequence[str] | pl.Series, where: str) -> str:
    """For a message that nothing matches: how ids look on either side, where ours are in `where`."""
    mine, other = (next((text for text in side if text is not None), None) for side in (ours, theirs))
    if mine is None or other is None:
        return f"there are no ids in {'the table' if mine is not None else where}"
    return f"ids look like '{cut(mine)}' in {where} and '{cut(other)}' in the table"


def cut(text: str) -> str:
    """A value as a message can show it."""
    return shortened(text, _SHOWN_CHARACTERS)


def class_texts(values: Iterable[Any], from_csv: bool = False) -> list[str | None]:
    """The class of each value; None where there is none (null, NaN, empty text).

    Args:
        values: As a table has them.
        from_csv: Whether all are fields of CSV files. They are text and stay so, but where every field is a number,
            they are judged as numbers: a measurement is no class, and NaN is none.

    Raises:
        ValueError: They are no classes; the message goes on from "column 'x' holds ...".
    """
    values = list(values)
    if from_csv:
        values = _judged_fields(values)
    return [_class_text(value) for value in values]


def label_text(value: Any, classes: Sequence[str]) -> str | None:
    """A label by which one document is compared with classes that are known; None where it has none.

    What is none is what it is in `class_texts`: empty text too, and among numbers the text NaN.

    Raises:
        TypeError: As `value_text`.
    """
    text = value_text(value) or None
    if text is None or text in classes or text.lower() not in _NOT_A_NUMBER:
        return text
    return None if all(map(_AS_NUMBER.fullmatch, classes)) else text


def _class_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if is_missing(value):
        return None
    if isinstance(value, Real | Decimal) and not isinstance(value, Integral | bool | np.bool_):
        _refuse_measurement(value)
    try:
        return value_text(value)
    except TypeError as exc:
        raise ValueError(f"{exc}, not classes; give text, whole numbers or truth values") from None


def _refuse_measurement(value: Any) -> None:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"measurements such as {value}, not classes; bin them first")
    if not isinstance(value, Decimal) and abs(value) > _EXACT_IN_FLOAT64:
        raise ValueError(f"measurements such as {value}, not classes; bin them first")


def _judged_fields(fields: list[Any]) -> list[Any]:
    there = [field for field in fields if field]
    numbers = [field for field in there if field.lower() not in _NOT_A_NUMBER]
    if not numbers or not all(map(_AS_NUMBER.fullmatch, numbers)):
        return fields
    for field in numbers:
        if not _DIGITS.fullmatch(field):
            _refuse_measurement(float(field))
    return [None if not field or field.lower() in _NOT_A_NUMBER else field for field in fields]


def in_order(classes: Iterable[str]) -> list[str]:
    """Distinct class names: in numeric order where all are whole numbers, else in alphabetical order."""
    distinct = set(classes)
    if all(map(_WHOLE_NUMBER.fullmatch, distinct)):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)
