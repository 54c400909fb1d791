"""Write dates, times, durations and intervals of a table as ISO 8601, exactly, whatever their unit or year.

Python's own types end with the year 9999 and with microseconds, so none of them is used here: moments are written by
Arrow, whose calendar reaches from -32767 to 32767, and spans are whole numbers of their unit.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

from featurestore.tables.record import Unusable

if TYPE_CHECKING:
    import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")


def moments(column: pa.Array) -> list[Any]:
    """Dates and times as ISO 8601 without trailing zeros, so that a unit does not tell; UTC where a zone is unknown."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    try:
        text = column.cast(pa.string())
    except pa.ArrowInvalid:
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            raise
        text = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.string())
    text = pc.replace_substring_regex(text, r"(\.[0-9]*[1-9])0+($|[^0-9])", r"\1\2")
    text = pc.replace_substring_regex(text, r"\.0+($|[^0-9])", r"\1")
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    return [_moment(value, zoned) for value in text.to_pylist()]


def _moment(text: str | None, zoned: bool) -> str | Unusable | None:
    if text is None:
        return None
    if text.startswith("<"):  # what Arrow writes for a year that its calendar does not have
        return Unusable("is a date or time beyond the calendar")
    return _OFFSET.sub(r"\1:\2", text) if zoned else text


def spans(column: pa.Array) -> list[Any]:
    """Durations and intervals as ISO 8601."""
    import pyarrow as pa

    if pa.types.is_duration(column.type):
        per_second = _PER_SECOND[column.type.unit]
        return [
            None if count is None else span_text(0, 0, count, per_second)
            for count in column.cast(pa.int64()).to_pylist()
        ]
    return [
        None if value is None else span_text(value.months, value.days, value.nanoseconds, 10**9)
        for value in column.to_pylist()
    ]


def span_text(months: int, days: int, count: int, per_second: int) -> str:
    """An interval of months, days and `count / per_second` seconds, e.g. "P1M2DT0.5S"; "PT0S" if there is nothing."""
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    if not count and date:
        return f"P{date}"
    whole, part = divmod(abs(count), per_second)
    fraction = f".{part:0{len(str(per_second)) - 1}}".rstrip("0") if part else ""
    return f"P{date}T{'-' if count < 0 else ''}{whole}{fraction}S"


def parquet_interval(value: bytes | None) -> str | None:
    """A value of Parquet's INTERVAL, which Arrow takes for twelve bytes: months, days and milliseconds."""
    if value is None:
        return None
    months, days, milliseconds = struct.unpack("<3I", value)
    return span_text(months, days, milliseconds, 1000)
