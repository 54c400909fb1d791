"""Read a whole table from files, for what is joined to documents: labels, texts, and whatever else has its own table.

`read_table` reads as a corpus is read (every format, compression and URL, several files by a pattern) and gives the
values as they stand there; a row that cannot be read is left out, counted and named. `table_ids` makes a column the
texts by which ids compare. Tables in memory are left to `keyed`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.number_words import counted
from featurestore.errors import CorpusError, TableError
from featurestore.finding.dialect import CsvSpec
from featurestore.finding.files import COMPRESSION_OF_SUFFIX, FORMAT_OF_SUFFIX, SourceFile, find_files
from featurestore.finding.patterns import is_pattern, unescaped
from featurestore.storage.files import shown
from featurestore.tables.arrays import told_apart
from featurestore.tables.csv_head import with_dialect
from featurestore.tables.json_and_csv import Fused, csv_header, json_keys, text_records
from featurestore.tables.parquet import open_parquet, parquet_records
from featurestore.tables.record import MISSING, Record, Wanted, decompressed, open_raw, refusals
from featurestore.tables.same_value import value_text
from featurestore.tables.values import document_id

if TYPE_CHECKING:
    import polars as pl

_SHOWN_COLUMNS = 12


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
        raise TableError(_none_read(table.name, read.first_unreadable))
    for name in names:
        if read.rows and name not in read.seen:
            raise TableError(no_column(table.name, name, _column_names(files[0])))
    return table


def read_head(paths: Sequence[str], rows: int) -> dict[str, list[Any]]:
    """The first rows of tables that belong together, as many of each: column -> values, None where a row has none.

    Args:
        paths: Files, patterns or directories, local or as URLs.
        rows: About how many in all.

    Raises:
        TableError: There is no such file, it is no table, not one row can be read, or two have no column in common.
    """
    files: list[SourceFile] = []
    for path in paths:
        _check_there(path, None)
        with _refused(path):
            files += [with_dialect(file, None, []) for file in find_files([path], None)]
    each = max(1, rows // len(files))
    names: list[str] = []
    for file in files:
        with _refused(file.uri):
            here = json_keys(file, each) if file.format == "jsonl" else _column_names(file)
        if names and here and not set(names) & set(here):
            said = f"{file.name} ({', '.join(here[:_SHOWN_COLUMNS])}) shares no column with {files[0].name}"
            raise TableError(f"{said} ({', '.join(names[:_SHOWN_COLUMNS])}); give the files of one corpus")
        names += here
    read = _Rows(list(dict.fromkeys(names)), must_have=False)
    for file in files:
        with _refused(file.uri):
            read.add(file, None, each)
    if not read.rows:
        raise TableError(_none_read(files[0].name, read.first_unreadable))
    return read.columns


def _none_read(name: str, first: str) -> str:
    """The sentence for files of which no row can be read, with what is wrong with the first."""
    do = "save it as UTF-8" if first.endswith("is not UTF-8") else "check the file"
    return f"{name}: not one row can be read ({first or 'it is empty'}); {do}"


def column_names(path: str, format: str | None = None) -> list[str]:
    """The columns of a table, of all its files together; of JSON lines the keys that any of its objects has.

    Raises:
        TableError: There is no such file, or it is no table.
    """
    _check_there(path, format)
    with _refused(path):
        files = [with_dialect(file, None, []) for file in find_files([path], format)]
        return list(dict.fromkeys(name for file in files for name in _column_names(file)))


class _Rows:
    """Gathers the rows of several files."""

    def __init__(self, names: Sequence[str], must_have: bool) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self.seen: set[str] = set()  # columns that some file or row has
        self.rows = self.unreadable = 0
        self.first_unreadable = ""
        self.fused: tuple[str, ...] = ()
        self._must_have = must_have

    def add(self, file: SourceFile, id: str | None, most: int | None = None) -> None:
        """The rows of a file, or the first of them; ids are the column `id`."""
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
            for row, record in enumerate(itertools.islice(_records(file, wanted, stack, fused), most)):
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
            raise TableError(no_column(file.uri, name, names) + hint)
        return times == 1


def _records(file: SourceFile, wanted: Wanted, stack: ExitStack, fused: Fused) -> Iterator[Record]:
    """The rows of a whole file."""
    if file.format == "parquet":
        parquet = open_parquet(file, stack)
        return parquet_records(parquet, wanted, 0, parquet.metadata.num_rows)
    header = csv_header(file) if file.format == "csv" else ()
    if file.format == "csv" and not header:
        return iter(())
    file, stream = told_apart(file, decompressed(open_raw(file, stack), file, stack))
    return text_records(stream, file, wanted, header, 0, fused)


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
    there = is_url or Path(literal).exists() or Path(literal).is_symlink()
    if is_pattern(path) and (is_url or not there):
        return
    name = PurePosixPath((path.partition("?")[0] if is_url else literal).lower())
    ending = name.with_suffix("").suffix if name.suffix in COMPRESSION_OF_SUFFIX else name.suffix
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
        # Nobody speaks of a corpus here.
        reason = str(exc).replace("corpus.path '", "'").replace("give corpus.format or a narrower path", "rename it")
        raise TableError(f"{shown(unescaped(path))}: cannot be read as a table ({reason})") from None


def no_column(where: str, name: str, names: Sequence[str]) -> str:
    """The sentence for a column that is not there."""
    hint = did_you_mean(name, names) or ";"
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

    @property
    def note(self) -> str:
        """What a reader must know; empty if there is nothing."""
        without = f"{counted(self.unusable, 'row')} without an id that can be used ({self.first_unusable})"
        return without if self.unusable else ""


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
