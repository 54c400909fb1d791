"""Find the rows of a range: which files they are in, from which byte on, and the records that stand there.

`slices` cuts a range of the whole corpus into ranges of single files, `records_of` reads one of these. What becomes of
a record is left to `read`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError
from featurestore.finding.files import IMAGE, SourceFile
from featurestore.tables.json_and_csv import text_records
from featurestore.tables.parquet import open_parquet, parquet_records
from featurestore.tables.partitions import with_partitions, without_partitions
from featurestore.tables.record import Record, Wanted, open_text, refusals
from ray_jobs.corpus.scanned import MARK_ROWS, CorpusScan

if TYPE_CHECKING:
    from ray_jobs.corpus.spill import Spill


@dataclass(frozen=True)
class Slice:
    """Rows `[first_row, first_row + n_rows)` of one file, and where to begin looking for them.

    Attributes:
        header: Column names of a CSV file, else empty.
        mark_row: A row at or before `first_row`.
        mark_offset: The byte at which `mark_row` starts, in the decompressed text (0 for Parquet).
        end_offset: The byte that no row of the slice reaches beyond; None for the end of the file.
        sha256: Of a compressed file.
        text_bytes: Length of its text.
    """

    file: SourceFile
    first_row: int
    n_rows: int
    header: tuple[str, ...] = ()
    mark_row: int = 0
    mark_offset: int = 0
    end_offset: int | None = None
    sha256: str = ""
    text_bytes: int = 0

    @property
    def is_far(self) -> bool:
        """Whether it lies so far inside of a compressed file that decompressing what is before costs more than it."""
        return self.file.compression is not None and self.mark_row > self.n_rows


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
                    file=SourceFile(**source_fields(file)),
                    first_row=low,
                    n_rows=high - low,
                    header=file.header,
                    mark_row=mark * MARK_ROWS if file.marks else 0,
                    mark_offset=file.marks[mark] if file.marks else 0,
                    end_offset=file.marks[after] if after < len(file.marks) else None,
                    sha256=file.sha256 if file.compression else "",
                    text_bytes=file.text_bytes if file.compression else 0,
                )
            )
    return tuple(found)


def records_of(part: Slice, wanted: Wanted, spill: Spill | None = None) -> Iterator[Record]:
    """The records of a slice, in order.

    Raises:
        CorpusError: The file cannot be read, or has another size than when it was scanned.
    """
    from featurestore.storage.files import filesystem

    file = part.file
    with refusals(file), ExitStack() as stack:
        size = filesystem(file.root)[0].get_file_info(file.path).size
        if None not in (size, file.size) and size != file.size:
            raise CorpusError(changed(file, f"{size} bytes instead of {file.size}"))
        if file.format == IMAGE:  # one row, of which its path tells what there is beside the image
            read, told = without_partitions(file, (), wanted)
            yield from with_partitions(iter([Record(None, None, (), 0)]), read, wanted, told)
        elif file.format == "parquet":
            parquet = open_parquet(file, stack)
            read, told = without_partitions(file, parquet.schema_arrow.names, wanted)
            records = parquet_records(parquet, read, part.first_row, part.n_rows)
            yield from with_partitions(records, read, wanted, told)
        else:
            text = spill.open(file, part.sha256, part.text_bytes, stack) if spill and part.is_far else None
            on_block = spill.on_block if spill else None
            stream = open_text(file, part.mark_offset, part.end_offset, stack, text, on_block)
            read, told = without_partitions(file, part.header if file.format == "csv" else None, wanted)
            records = text_records(stream, file, read, part.header, part.mark_offset)
            before = part.first_row - part.mark_row
            yield from with_partitions(islice(records, before, before + part.n_rows), read, wanted, told)


def source_fields(file: SourceFile) -> dict[str, Any]:
    """What every description of a file has."""
    return {f.name: getattr(file, f.name) for f in fields(SourceFile)}


def changed(file: SourceFile, how: str) -> str:
    """What a slice says of a file that is no longer what was scanned."""
    return f"{file.uri} has changed since the corpus was scanned ({how}); restore it or start a new store"
