"""Take tables and lists of ids from a caller's memory: polars, pandas, pyarrow, numpy and plain Python.

Ids become the texts by which `compare` compares, whatever type they had; other columns what polars has a type for, or
else what a store would keep of them. A path instead of a table is read by `table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.number_words import counted, first_line
from featurestore.errors import TableError
from featurestore.tables.arrow import family_of, python_values, reader_of
from featurestore.tables.same_value import is_missing, value_text
from featurestore.tables.table import no_column, read_table, table_ids
from featurestore.tables.values import column_type, kind_of, stored_value

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

# What polars has a type of its own for; the rest becomes what a store would keep of it.
_NATIVE = frozenset({"null", "truth", "integer", "float", "decimal", "text", "moment"})
_PYTHON_YEAR = re.compile(r"(?!0000)[0-9]{4}-")


@dataclass(frozen=True)
class Keyed:
    """A table to be joined, its ids apart from its other columns.

    Attributes:
        ids: Polars strings by which its rows compare, null where there is none.
        columns: Name -> column, as `kept_series` takes it.
        notes: What a reader must know of rows that cannot be used, in sentences.
    """

    ids: pl.Series
    columns: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def keyed(table: Any, key: str) -> Keyed:
    """A table in memory or in a file, by the ids in its column `key`.

    Args:
        table: As for `columns_of`, or the path or URL of a table as for `read_table`.
        key: The column that holds ids.

    Raises:
        TableError: It is no table, cannot be read, has no such column, or the column holds no ids.
    """
    if isinstance(table, str | Path):
        read = read_table(str(table), id=key)
        ids = table_ids(read, key)
        notes = (*read.notes(), *([f"{read.name}: {ids.note}"] if ids.note else ()))
        fields = {name: _Field(values, read.from_csv) for name, values in read.columns.items() if name != key}
        return Keyed(ids.text, fields, notes)
    columns = columns_of(table)
    if key not in columns:
        raise TableError(no_column("the table", key, list(columns)))
    try:
        texts = id_texts(columns.pop(key))
    except TypeError as exc:
        raise TableError(f"column '{key}' holds {exc}, not ids; name another") from None
    return Keyed(texts, columns)


def columns_of(table: Any) -> dict[str, Any]:
    """Name -> column of a table in memory, as `id_texts` and `kept_series` take them.

    Args:
        table: A polars DataFrame or LazyFrame, a pandas DataFrame, a pyarrow Table or RecordBatch, or anything else
            that exports Arrow data.

    Raises:
        TableError: It is none of these, cannot be read, or has two columns of one name.
    """
    import polars as pl

    if isinstance(table, pl.DataFrame | pl.LazyFrame):
        try:
            frame = table.lazy().collect()
        except (OSError, pl.exceptions.PolarsError) as exc:
            raise TableError(f"the table cannot be read ({first_line(exc)}); check it") from None
        return {series.name: series for series in frame.get_columns()}
    if _is_pandas(table):
        is_indexed = any(table.index.names) and not {*table.index.names} & {*table.columns}
        named = table.reset_index() if is_indexed else table
        pairs = [(str(name), named.iloc[:, i]) for i, name in enumerate(named.columns)]
    elif hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__"):
        import pyarrow as pa

        arrow = pa.table(table)
        pairs = list(zip(arrow.column_names, arrow.columns, strict=True))
    else:
        raise TableError(
            f"a table is one of polars, pandas or pyarrow, or the path of a file, not {type(table).__name__}"
        )
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TableError(f"the table has {names.count(twice)} columns named '{twice}'; rename all but one")
    return dict(pairs)


@dataclass(frozen=True)
class _Field:
    """A column that was read from files."""

    values: list[Any]
    from_csv: bool


def id_texts(ids: Any) -> pl.Series:
    """Ids as the texts by which they compare; null where there is none.

    Args:
        ids: A column of `columns_of`, or any list, array or series of texts, numbers, dates or UUIDs.

    Raises:
        TypeError: Some of them are nothing that an id can be; the message is what they are, e.g. "lists".
    """
    import polars as pl

    if isinstance(ids, pl.Series):
        ids = ids.alias("")  # its methods take a name such as `^a.*$` for a pattern
        if ids.dtype == pl.String:
            return ids
        if ids.dtype.is_integer() or isinstance(ids.dtype, pl.Categorical | pl.Enum):
            return ids.cast(pl.String)
        ids = ids.to_list() if ids.dtype == pl.Object else ids.to_arrow()
    if isinstance(ids, str | bytes | Mapping) or hasattr(ids, "columns") or not isinstance(ids, Iterable):
        raise TypeError(f"{type(ids).__name__} (give a list, or one column of a table)")
    return pl.Series([value_text(value) for value in _id_values(ids)], dtype=pl.String)


def _id_values(ids: Any) -> list[Any]:
    if not _is_pandas(ids):
        return _values(ids, "id")
    if ids.dtype == object:  # each of them is what it is
        return list(ids)
    return _values(_arrow_of_pandas(ids), "id")


def kept_series(name: str, column: Any, notes: list[str]) -> pl.Series:
    """A column of `columns_of` for polars: natively where it has the type, else what a store would keep of it.

    What cannot be kept is null; `notes` gets a sentence about it.
    """
    import polars as pl
    import pyarrow as pa

    if isinstance(column, pl.Series):
        return column
    if _is_pandas(column):
        column = _arrow_of_pandas(column)
    if isinstance(column, pa.ChunkedArray) and _is_native(column):
        with suppress(pl.exceptions.PolarsError, pa.ArrowException):  # of these types polars knows not all, e.g. zones
            return pl.Series(name, pl.from_arrow(column))
    values = _values(column, "kept")
    from_csv = isinstance(column, _Field) and column.from_csv
    kept_type = column_type({kind_of(value, from_csv) for value in values})
    kept = [stored_value(value, kept_type, name) for value in values]
    problems = [f"row {row}, {problem}" for row, (_, problem) in enumerate(kept) if problem]
    if problems:
        notes.append(f"column '{name}': {counted(len(problems), 'value')} null that cannot be kept ({problems[0]})")
    kinds: dict[str, Any] = {"string": pl.String, "int64": pl.Int64, "float64": pl.Float64, "bool": pl.Boolean}
    return pl.Series(name, [value for value, _ in kept], dtype=kinds[kept_type])


def _is_native(column: pa.ChunkedArray) -> bool:
    """Whether polars has the type, and Python the years, for it is Python that a polars value becomes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) or family_of(kind) not in _NATIVE:
        return False
    if pa.types.is_decimal(kind):
        return pa.types.is_decimal128(kind) and kind.scale >= 0
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return True
    ends = pc.min_max(column)
    texts = python_values(pa.array([ends["min"], ends["max"]], kind))
    return all(text is None or _PYTHON_YEAR.match(str(text)) for text in texts)


def _values(column: Any, role: str) -> list[Any]:
    """Plain values of a column, of Arrow or any other."""
    import pyarrow as pa

    if isinstance(column, _Field):
        return column.values
    if isinstance(column, pa.ChunkedArray):
        read = reader_of(column.type, role)
        return [value for chunk in column.chunks for value in read(chunk)]
    if isinstance(column, pa.Array):
        return reader_of(column.type, role)(column)
    return list(column)


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


def _arrow_of_pandas(column: Any) -> Any:
    """A pandas Series as Arrow; one of mixed objects as a list of plain values, None for none."""
    import pyarrow as pa

    try:
        found = pa.Array.from_pandas(column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return [None if is_missing(value) else value for value in column.tolist()]
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])
