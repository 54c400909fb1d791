"""Whole tables that are joined to documents: labels, texts and whatever else stands in a table of its own.

`read_table` reads files as a corpus' files are read (every format, compression and URL, several files by a pattern)
and gives the values as they stand there; a row that cannot be read is left out, counted and named. `columns_of` takes
tables from memory. Ids become the texts by which `compare` compares, other columns what a store would keep of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError, TableError
from featurestore.files import shown
from featurestore.tables.arrow import family_of, reader_of
from featurestore.tables.compare import is_missing, value_text
from featurestore.tables.dialect import CsvSpec, with_dialect
from featurestore.tables.files import COMPRESSION_OF_SUFFIX, FORMAT_OF_SUFFIX, SourceFile, find_files
from featurestore.tables.parquet import open_parquet, parquet_records
from featurestore.tables.patterns import is_pattern, unescaped
from featurestore.tables.record import MISSING, Record, Wanted, decompressed, open_raw, refusals
from featurestore.tables.text import Fused, csv_header, json_keys, text_records
from featurestore.tables.values import column_type, document_id, kind_of, stored_value
from featurestore.wording import counted, first_line

if TYPE_CHECKING:
    import polars as pl

_SHOWN_COLUMNS = 12
# What polars has a type of its own for; the rest becomes what a store would keep of it.
_NATIVE = frozenset({"null", "truth", "integer", "float", "decimal", "text", "moment"})


@dataclass(frozen=True)
class Table:
    """A table read from files.

    Attributes:
        name: Its path or URL, for messages.
        columns: Name -> the values of the rows that could be read, in order, as the files have them; None for none.
        from_csv: Whether all values are fields of CSV files, and so text.
        unreadable: Rows that could not be read.
        first_unreadable: Which was the first of them and why; empty if there is none.
        fused: A sentence for each CSV file in which a quote may not be closed.
    """

    name: str
    columns: Mapping[str, list[Any]]
    from_csv: bool
    unreadable: int = 0
    first_unreadable: str = ""
    fused: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What a reader must know, in sentences."""
        if not self.unreadable:
            return list(self.fused)
        return [
            f"{self.name}: {counted(self.unreadable, 'row')} cannot be read ({self.first_unreadable})",
            *self.fused,
        ]


def read_table(
    path: str,
    columns: Sequence[str] | None = None,
    *,
    id: str | None = None,
    format: str | None = None,
    csv: CsvSpec | None = None,
) -> Table:
    """Read columns of a table.

    Args:
        path: A file, a pattern or a directory, local or as a URL: whatever `corpus.path` can be.
        columns: Which columns; all of them where None.
        id: The column that holds ids, one more to be read; floats of few bits in it have their shortest digits.
        format: "parquet", "jsonl" or "csv"; taken from each file's name where None.
        csv: How CSV files are written, where they do not say it themselves.

    Raises:
        TableError: There is no such file, it is no table, not one row can be read, or a column is missing.
    """
    _check_there(path, format)
    names = list(dict.fromkeys([*([id] if id is not None else []), *(columns if columns is not None else [])]))
    with _refused(path):
        files = [with_dialect(file, csv, names) for file in find_files([path], format)]
    if columns is None:
        with _refused(path):
            names = list(dict.fromkeys([*names, *(name for file in files for name in _column_names(file))]))
    read = _Rows(names, must_have=columns is not None)
    for file in files:
        with _refused(path):
            read.add(file, id)
    table = Table(
        shown(unescaped(path)),
        read.columns,
        all(file.format == "csv" for file in files),
        read.unreadable,
        read.first_unreadable,
        read.fused,
    )
    if read.unreadable and not read.rows:
        raise TableError(f"{table.name}: not one row can be read ({read.first_unreadable}); check the file")
    for name in names:
        if read.rows and name not in read.seen:
            raise TableError(_no_column(table.name, name, _column_names(files[0])))
    return table


class _Rows:
    """Gathers the rows of several files."""

    def __init__(self, names: Sequence[str], must_have: bool) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self.seen: set[str] = set()  # columns that some file or row has
        self.rows = self.unreadable = 0
        self.first_unreadable = ""
        self.fused: tuple[str, ...] = ()
        self._must_have = must_have

    def add(self, file: SourceFile, id: str | None) -> None:
        there = list(self.columns)
        if file.format != "jsonl":
            names = _column_names(file)
            there = [name for name in self.columns if self._is_in(file, name, names)]
            self.seen.update(there)
        wanted = Wanted(None, id if id in there else None, tuple(name for name in there if name != id))
        lists = [self.columns[name] for name in wanted.keep]
        absent = [values for name, values in self.columns.items() if name not in there]
        fused = Fused()
        with refusals(file), ExitStack() as stack:
            for row, record in enumerate(_records(file, wanted, stack, fused)):
                if record.error:
                    self.unreadable += 1
                    self.first_unreadable = self.first_unreadable or f"{file.name} row {row}, {record.error}"
                    continue
                self.rows += 1
                for name, values, value in zip(wanted.keep, lists, record.keep, strict=True):
                    values.append(None if value is MISSING else value)
                    if value is not MISSING:
                        self.seen.add(name)
                if wanted.id is not None:
                    self.columns[wanted.id].append(None if record.id is MISSING else record.id)
                    if record.id is not MISSING:
                        self.seen.add(wanted.id)
                for values in absent:
                    values.append(None)
        self.fused += (fused.sentence(file.name, "csv"),) if fused.count else ()

    def _is_in(self, file: SourceFile, name: str, names: Sequence[str]) -> bool:
        times = list(names).count(name)
        if times > 1:
            raise TableError(f"{file.uri} has {times} columns named '{name}'; rename all but one")
        if not times and self._must_have and names:
            hint = ""
            if file.dialect is not None and len(names) == 1:
                hint = f"; it is read as {file.dialect}: set csv if that is not how it is written"
            raise TableError(_no_column(file.uri, name, names) + hint)
        return times == 1


def _records(file: SourceFile, wanted: Wanted, stack: ExitStack, fused: Fused) -> Iterator[Record]:
    """The rows of a whole file."""
    if file.format == "parquet":
        parquet = open_parquet(file, stack)
        return parquet_records(parquet, wanted, 0, parquet.metadata.num_rows)
    header = csv_header(file) if file.format == "csv" else ()
    if file.format == "csv" and not header:
        return iter(())
    return text_records(decompressed(open_raw(file, stack), file, stack), file, wanted, header, 0, fused)


def _column_names(file: SourceFile) -> list[str]:
    """The columns of a file; of JSON lines the keys that its objects have."""
    if file.format == "csv":
        return list(csv_header(file))
    if file.format == "jsonl":
        return json_keys(file, rows=None)
    with refusals(file), ExitStack() as stack:
        return list(open_parquet(file, stack).schema_arrow.names)


def _check_there(path: str, format: str | None) -> None:
    """Refuse what is no table by its name, and a local file that is not there."""
    is_url, literal = "://" in path, unescaped(path)
    name = PurePosixPath((path.partition("?")[0] if is_url else literal).lower())
    ending = name.with_suffix("").suffix if name.suffix in COMPRESSION_OF_SUFFIX else name.suffix
    there = is_url or is_pattern(path) or Path(literal).exists() or Path(literal).is_symlink()
    is_folder = not is_url and Path(literal).is_dir()
    if format is None and ending not in FORMAT_OF_SUFFIX and not is_folder and (name.suffix or there):
        known = ", ".join(FORMAT_OF_SUFFIX)
        raise TableError(f"{shown(literal)}: not a known kind of table; give a file ending in {known} (also .gz, .zst)")
    if not there:
        raise TableError(f"{shown(literal)}: there is no such file; check the path")


@contextmanager
def _refused(path: str) -> Iterator[None]:
    try:
        yield
    except CorpusError as exc:
        reason = str(exc).replace("corpus.path '", "'")  # nobody speaks of a corpus here
        raise TableError(f"{shown(unescaped(path))}: cannot be read as a table ({reason})") from None


def _no_column(where: str, name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    more = ", ..." if len(names) > _SHOWN_COLUMNS else ""
    return f"{where} has no column '{name}'{hint} it has: {', '.join(names[:_SHOWN_COLUMNS]) or 'none'}{more}"


@dataclass(frozen=True)
class Ids:
    """A column of ids.

    Attributes:
        text: Polars strings, null where there is no id that can be used.
        unusable: How many are null.
        first_unusable: Which was the first of them and why; empty if there is none.
    """

    text: pl.Series
    unusable: int = 0
    first_unusable: str = ""


def table_ids(table: Table, column: str) -> Ids:
    """The ids in a column of a table.

    Raises:
        TableError: It holds lists or objects.
    """
    import polars as pl

    texts, unusable, first = [], 0, ""
    for row, value in enumerate(table.columns[column]):
        if isinstance(value, list | dict):
            what = "lists" if isinstance(value, list) else "objects"
            raise TableError(f"{table.name}: column '{column}' holds {what}, not ids; name another")
        text, problem = document_id(value, column)
        if isinstance(value, bool):
            text, problem = value_text(value), None
        texts.append(text)
        if problem:
            unusable += 1
            first = first or f"row {row}, {problem}"
    return Ids(pl.Series(texts, dtype=pl.String), unusable, first)


def columns_of(table: Any) -> dict[str, Any]:
    """Name -> column of a table in memory or in a file, as `id_texts` and `kept_series` take them.

    Args:
        table: A polars DataFrame or LazyFrame, a pandas DataFrame, a pyarrow Table or RecordBatch (or anything that
            exports Arrow streams), or the path or URL of a table as for `read_table`.

    Raises:
        TableError: It is none of these, cannot be read, or has two columns of one name.
    """
    import polars as pl

    if isinstance(table, str | Path):
        read = read_table(str(table))
        return {name: _Field(values, read.from_csv) for name, values in read.columns.items()}
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


def kept_series(name: str, column: Any) -> pl.Series:
    """A column of `columns_of` for polars: natively where it has the type, else what a store would keep of it."""
    import polars as pl
    import pyarrow as pa

    if isinstance(column, pl.Series):
        return column
    if _is_pandas(column):
        column = _arrow_of_pandas(column)
    is_arrow = isinstance(column, pa.ChunkedArray) and not isinstance(column.type, pa.BaseExtensionType)
    if is_arrow and family_of(column.type) in _NATIVE:
        with suppress(pl.exceptions.PolarsError, pa.ArrowException):  # of these types polars knows not all, e.g. zones
            return pl.Series(name, pl.from_arrow(column))
    values = _values(column, "kept")
    from_csv = isinstance(column, _Field) and column.from_csv
    kept_type = column_type({kind_of(value, from_csv) for value in values})
    kinds: dict[str, Any] = {"string": pl.String, "int64": pl.Int64, "float64": pl.Float64, "bool": pl.Boolean}
    return pl.Series(name, [stored_value(value, kept_type, name)[0] for value in values], dtype=kinds[kept_type])


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
