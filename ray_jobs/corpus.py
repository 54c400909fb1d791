"""The corpus: scanned once, then read by ranges of rows.

`scan` goes through every file a single time and fixes what a job must know before it runs: the files with their
sha256, how many rows each has and where they start, the types of the kept columns, that ids are unique, and a sample
of texts to count tokens in. `read_rows` turns any range of rows into documents, in order, one per row: a row that
cannot be used is a document with an `error`, never a missing one. Cutting the rows into units is left to `units`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError
from ray_jobs.duplicates import UniqueIds
from ray_jobs.formats import (
    MISSING,
    Digest,
    Record,
    Wanted,
    check_columns,
    decompressed,
    missing_column,
    open_raw,
    open_text,
    refusals,
)
from ray_jobs.parquet_format import open_parquet, parquet_groups, parquet_kinds, parquet_records
from ray_jobs.sources import SourceFile, find_files
from ray_jobs.text_format import csv_header, json_keys, text_records
from ray_jobs.values import column_type, document_id, document_text, kind_of, stored_value

if TYPE_CHECKING:
    from ray_jobs.spec import CorpusSpec

MARK_ROWS = 512  # a byte offset is noted this often: 8 bytes a mark, and at most 511 rows parsed in vain by a slice
SAMPLE_TEXTS = 512  # enough for the mean length of a corpus to within some percent
_SAMPLE_CHARACTERS = 100_000  # of each sampled text: beyond any window of a model that is fed whole
_SAMPLE_ROW_GROUPS = 8  # Parquet row groups to take texts from, spread over all files
_SAMPLE_GROUP_ROWS = 1 << 17  # rows decoded of each at most


@dataclass(frozen=True)
class CorpusFile(SourceFile):
    """A file that was scanned.

    Attributes:
        sha256: Of its bytes on disk.
        rows: Documents in it.
        header: Column names of a CSV file, else empty.
        marks: Byte offsets, in the decompressed text, of the rows 0, MARK_ROWS, 2 * MARK_ROWS, ...; empty for Parquet.
    """

    sha256: str
    rows: int
    header: tuple[str, ...] = ()
    marks: array[int] = field(default_factory=lambda: array("q"), repr=False, compare=False)


@dataclass(frozen=True)
class CorpusScan:
    """What one pass over a corpus found.

    Attributes:
        files: In reading order; global row numbers run through them.
        rows: Documents in all files.
        keep_types: Kept column -> "string", "int64", "float64" or "bool", in the order of the job.
        sample: Some hundreds of texts, evenly spaced over the corpus, each cut at 100,000 characters.
        mean_text_bytes: Mean UTF-8 length of the sampled texts before cutting.
    """

    files: tuple[CorpusFile, ...]
    rows: int
    keep_types: Mapping[str, str]
    sample: tuple[str, ...] = field(repr=False)
    mean_text_bytes: float

    @cached_property
    def first_rows(self) -> tuple[int, ...]:
        """The global number of each file's first row."""
        return tuple(accumulate((file.rows for file in self.files[:-1]), initial=0))


@dataclass(frozen=True)
class Slice:
    """Rows `[first_row, first_row + n_rows)` of one file, and where to begin looking for them.

    Attributes:
        header: Column names of a CSV file, else empty.
        mark_row: A row at or before `first_row`.
        mark_offset: The byte at which `mark_row` starts, in the decompressed text (0 for Parquet).
        end_offset: The byte that no row of the slice reaches beyond; None for the end of the file.
    """

    file: SourceFile
    first_row: int
    n_rows: int
    header: tuple[str, ...] = ()
    mark_row: int = 0
    mark_offset: int = 0
    end_offset: int | None = None


@dataclass(frozen=True)
class DocumentRows:
    """Documents in input order; all lists have one entry per row.

    Attributes:
        doc_id: The given id, or "{file name}:{row}" where none is given or it cannot be used.
        text: None exactly where `error` is set.
        keep: Kept column -> values of its type, or None.
        error: Why the row cannot be used, in one sentence, or None.
    """

    doc_id: list[str]
    text: list[str | None]
    keep: dict[str, list[Any]]
    error: list[str | None]


def scan(corpus: CorpusSpec, progress: Callable[[int, int], None] | None = None) -> CorpusScan:
    """Read every file of a corpus once.

    Args:
        corpus: Which files and columns.
        progress: Called with (bytes read, bytes in all) from time to time.

    Raises:
        CorpusError: No file or no row, a file that cannot be read, a column that is not there, an id used twice.
    """
    found = find_files(corpus.path, corpus.format)
    total = sum(file.size or 0 for file in found)
    done = 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        if progress:
            progress(done, total)

    state = _Scanned(corpus)
    files = tuple(
        _scan_parquet(file, state, advance) if file.format == "parquet" else _scan_text(file, state, advance)
        for file in found
    )
    rows = sum(file.rows for file in files)
    if rows == 0:
        raise CorpusError(f"corpus.path matches only files without a single document; check {files[0].uri}")
    if not state.any_readable:
        raise CorpusError(f"no row of the corpus can be read (the first: {state.first_error}); check corpus.format")
    for name in corpus.keep:
        if name not in state.seen:
            keys = json_keys(next(file for file in files if file.format == "jsonl" and file.rows))
            raise CorpusError(missing_column("the corpus", name, "corpus.keep", keys))
    if corpus.id is not None and state.ids.suspects():
        state.ids.confirm((doc_id, f"{file.name}:{row}") for file in files for row, doc_id in _ids(file, corpus.id))
    sample = [*state.sample.texts, *_parquet_sample(files, corpus.text)]
    return CorpusScan(
        files=files,
        rows=rows,
        keep_types={name: column_type(state.kinds[name]) for name in corpus.keep},
        sample=tuple(text[:_SAMPLE_CHARACTERS] for text in sample),
        mean_text_bytes=sum(len(text.encode("utf-8", "replace")) for text in sample) / max(len(sample), 1),
    )


def slices(scanned: CorpusScan, start: int, stop: int) -> tuple[Slice, ...]:
    """The slices that hold the global rows `[start, stop)`, in order."""
    found = []
    index = max(bisect_right(scanned.first_rows, start) - 1, 0)
    for file, first in zip(scanned.files[index:], scanned.first_rows[index:], strict=True):
        if first >= stop:
            break
        low, high = max(start - first, 0), min(stop - first, file.rows)
        if low < high:
            mark, after = low // MARK_ROWS, -(-high // MARK_ROWS)
            found.append(
                Slice(
                    file=SourceFile(**_source_fields(file)),
                    first_row=low,
                    n_rows=high - low,
                    header=file.header,
                    mark_row=mark * MARK_ROWS if file.marks else 0,
                    mark_offset=file.marks[mark] if file.marks else 0,
                    end_offset=file.marks[after] if after < len(file.marks) else None,
                )
            )
    return tuple(found)


def read_rows(parts: Sequence[Slice], corpus: CorpusSpec, keep_types: Mapping[str, str]) -> DocumentRows:
    """The documents of some slices, one per row, in order.

    Args:
        parts: From `slices`.
        corpus: The spec that was scanned.
        keep_types: From the scan.

    Raises:
        CorpusError: A file is gone, unreadable, or has changed since it was scanned.
    """
    out = DocumentRows([], [], {name: [] for name in corpus.keep}, [])
    wanted = Wanted(corpus.text, corpus.id, corpus.keep)
    columns = [(name, keep_types[name], out.keep[name]) for name in corpus.keep]
    for part in parts:
        row = part.first_row
        for record in _records(part, wanted):
            doc_id, error = document_id(record.id, corpus.id)
            text, text_error = document_text(record.text, corpus.text)
            error = record.error or error or text_error
            for (name, kept_type, values), raw in zip(columns, record.keep, strict=True):
                try:
                    value, value_error = stored_value(raw, kept_type, name)
                except (ValueError, OverflowError, TypeError):
                    raise CorpusError(_changed(part.file, f"column '{name}' is no longer {kept_type}")) from None
                values.append(value)
                error = error or value_error
            out.doc_id.append(doc_id if doc_id is not None else f"{part.file.name}:{row}")
            out.text.append(None if error else text)
            out.error.append(error)
            row += 1
        if row != part.first_row + part.n_rows:
            raise CorpusError(_changed(part.file, f"it ends at row {row}"))
    return out


def _records(part: Slice, wanted: Wanted) -> Iterator[Record]:
    from featurestore.files import filesystem

    file = part.file
    with refusals(file), ExitStack() as stack:
        size = filesystem(file.root)[0].get_file_info(file.path).size
        if None not in (size, file.size) and size != file.size:
            raise CorpusError(_changed(file, f"{size} bytes instead of {file.size}"))
        if file.format == "parquet":
            yield from parquet_records(open_parquet(file, stack), wanted, part.first_row, part.n_rows)
        else:
            stream = open_text(file, part.mark_offset, part.end_offset, stack)
            records = text_records(stream, file, wanted, part.header, part.mark_offset)
            before = part.first_row - part.mark_row
            yield from islice(records, before, before + part.n_rows)


def _source_fields(file: SourceFile) -> dict[str, Any]:
    return {f.name: getattr(file, f.name) for f in fields(SourceFile)}


def _changed(file: SourceFile, how: str) -> str:
    return f"{file.uri} has changed since the corpus was scanned ({how}); restore it or start a new store"


class _Scanned:
    """What the pass over the files gathers."""

    def __init__(self, corpus: CorpusSpec) -> None:
        self.wanted = Wanted(corpus.text, corpus.id, corpus.keep)
        self.kinds: dict[str, set[str]] = {name: set() for name in corpus.keep}
        self.seen: set[str] = set()  # names of wanted columns that some row or schema has
        self.ids = UniqueIds()
        self.sample = _Sample(SAMPLE_TEXTS)
        self.any_readable = False
        self.first_error = ""


class _Sample:
    """Every n-th text, with n doubled whenever there are too many: even spacing without knowing the length."""

    def __init__(self, limit: int) -> None:
        self.texts: list[str] = []
        self._limit = limit
        self._step = 1
        self._count = 0

    def offer(self, text: Any) -> None:
        if not isinstance(text, str):
            return
        if self._count % self._step == 0:
            if len(self.texts) == self._limit:
                self.texts = self.texts[::2]
                self._step *= 2
                if self._count % self._step:
                    self._count += 1
                    return
            self.texts.append(text)
        self._count += 1


def _scan_text(file: SourceFile, state: _Scanned, advance: Callable[[int], None]) -> CorpusFile:
    """One pass over a JSONL or CSV file, hashing the bytes on the way."""
    wanted = state.wanted
    header = csv_header(file) if file.format == "csv" else ()
    if header:
        check_columns(file, header, wanted)
        state.seen.update(wanted.keep)
    is_csv = file.format == "csv"
    kinds = list(state.kinds.values())
    marks = array("q")
    rows = readable = 0
    has_text = has_id = False
    with refusals(file), ExitStack() as stack:
        digest = Digest(open_raw(file, stack), advance)
        stream = decompressed(digest, file, stack)
        # An empty CSV file has no header; it is hashed and has no rows.
        for record in text_records(stream, file, wanted, header) if header or not is_csv else ():
            if rows % MARK_ROWS == 0:
                marks.append(record.offset)
            rows += 1
            if wanted.id is not None:
                doc_id, _ = document_id(record.id, wanted.id)
                state.ids.add(doc_id if doc_id is not None else f"{file.name}:{rows - 1}")
            if record.error:
                state.first_error = state.first_error or f"{file.uri} row {rows - 1}, {record.error}"
                continue
            readable += 1
            has_text = has_text or record.text is not MISSING
            has_id = has_id or record.id is not MISSING
            for found, (name, value) in zip(kinds, zip(wanted.keep, record.keep, strict=True), strict=True):
                if value is not MISSING:
                    state.seen.add(name)
                    found.add(kind_of(value, is_csv))
            state.sample.offer(record.text)
        sha256 = digest.hexdigest()
    state.any_readable = state.any_readable or readable > 0
    if readable and not (has_text and has_id):
        setting, column = ("corpus.text", wanted.text) if not has_text else ("corpus.id", wanted.id)
        raise CorpusError(missing_column(file.uri, str(column), setting, json_keys(file)))
    return CorpusFile(**_source_fields(file), sha256=sha256, rows=rows, header=header, marks=marks)


def _scan_parquet(file: SourceFile, state: _Scanned, advance: Callable[[int], None]) -> CorpusFile:
    """The footer and the id column of a Parquet file; its bytes are read once more, for the hash."""
    wanted = state.wanted
    with refusals(file), ExitStack() as stack:
        sha256 = Digest(open_raw(file, stack), advance).hexdigest()
        parquet = open_parquet(file, stack)
        check_columns(file, parquet.schema_arrow.names, wanted)
        for name, kind in parquet_kinds(file, parquet.schema_arrow, wanted).items():
            state.kinds[name].add(kind)
        rows = parquet.metadata.num_rows
    state.seen.update(wanted.keep)
    state.any_readable = state.any_readable or rows > 0
    scanned = CorpusFile(**_source_fields(file), sha256=sha256, rows=rows)
    if wanted.id is not None:
        for _, doc_id in _ids(scanned, wanted.id):
            state.ids.add(doc_id)
    return scanned


def _ids(file: CorpusFile, column: str) -> Iterator[tuple[int, str]]:
    """(row, id) of every row of a file."""
    whole = Slice(file, 0, file.rows, file.header, 0, file.marks[0] if file.marks else 0)
    for row, record in enumerate(_records(whole, Wanted(None, column))):
        doc_id, _ = document_id(record.id, column)
        yield row, doc_id if doc_id is not None else f"{file.name}:{row}"


def _parquet_sample(files: Sequence[CorpusFile], text: str) -> list[str]:
    """Texts from a few row groups, evenly spaced over the Parquet files and within each group."""
    groups: list[tuple[CorpusFile, int, int]] = []
    for file in files:
        if file.format == "parquet":
            with refusals(file), ExitStack() as stack:
                groups += [(file, first, rows) for first, rows in parquet_groups(open_parquet(file, stack))]
    count = min(len(groups), _SAMPLE_ROW_GROUPS)
    texts: list[str] = []
    for i in range(count):
        file, first, rows = groups[(2 * i + 1) * len(groups) // (2 * count)]
        rows = min(rows, _SAMPLE_GROUP_ROWS)
        records = _records(Slice(file, first, rows), Wanted(text, None))
        step = -(-rows * count // SAMPLE_TEXTS)
        texts += [record.text for record in islice(records, 0, None, step) if isinstance(record.text, str)]
    return texts
