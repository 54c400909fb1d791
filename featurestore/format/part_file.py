"""Hand a part to Arrow for decoding: only checked bytes, and as memory that belongs to Arrow.

Footer and pages pass `guard` first. Arrow's threads let go of what they decoded when they please, also while the
interpreter ends, and one that lets go of a Python object then takes the process with it. So Arrow never gets a file
that Python reads. It gets the column chunks of one row group, read once and checked, in an image of that row group, and
a footer whose places count from there: no copy, no second request, and no more memory than the row group takes on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.guard.parquet_limits import MAGIC, MAX_FOOTER_BYTES, ColumnChunk, check_footer, check_pages
from featurestore.guard.thrift import put_number

_TAIL_BYTES = 64 << 10  # read at once from the end, where the footer of a usual part lies whole; so does a small part
_END_BYTES = 8  # length of the footer and the magic bytes


class PartFile:
    """A part whose footer was read and checked; its row groups are when they are asked for.

    Attributes:
        metadata: The footer, but places in the file count from the start of their row group.
        schema_arrow: The columns.
        num_row_groups: How many there are.
    """

    def __init__(self, source: pa.NativeFile) -> None:
        """Read and check the footer; ValueError where a promise is absurd, OSError where the file was cut."""
        self._source = source
        self._size = source.size()
        self._tail = bytearray()
        self._tail = self._read(max(0, self._size - _TAIL_BYTES), self._size)
        footer = self._footer()
        self._groups = check_footer(memoryview(footer), self._size)
        for group in self._groups:
            for place, offset in (moved for chunk in group.chunks for moved in chunk.offsets):
                put_number(footer, place, offset - group.shift)
        rowless = pq.ParquetFile(pa.BufferReader(bytes(footer) + len(footer).to_bytes(4, "little") + MAGIC))
        self.metadata: pq.FileMetaData = rowless.metadata
        self.schema_arrow: pa.Schema = rowless.schema_arrow
        self.num_row_groups = len(self._groups)
        self._paths = [self.metadata.schema.column(leaf).path for leaf in range(self.metadata.num_columns)]

    def group(self, number: int, columns: Sequence[str] | None = None) -> pq.ParquetFile:
        """One row group in memory, ready to be decoded; it has the number that it has in the part.

        Args:
            number: Which.
            columns: Read only these; no others may be asked of the result.

        Raises:
            ValueError: A page promises more than it may.
            OSError: The file is shorter than it was.
        """
        group = self._groups[number]
        image = pa.allocate_buffer(group.stop - group.shift)
        view = memoryview(image).cast("B")
        chosen = [
            group.chunks[leaf] for leaf, path in enumerate(self._paths) if columns is None or _is_in(path, columns)
        ]
        for start, stop in _stretches(chosen):
            self._read_into(view[start - group.shift : stop - group.shift], start)
        for chunk in chosen:
            check_pages(view[chunk.start - group.shift : chunk.stop - group.shift], chunk)
        source = pa.BufferReader(image)
        return pq.ParquetFile(source, metadata=self.metadata, pre_buffer=False, page_checksum_verification=True)

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A row group, decoded; errors as of `group`, and Arrow's where a page is damaged."""
        return self.group(number, columns).read_row_group(number, columns=None if columns is None else list(columns))

    def iter_batches(self, n_rows: int, number: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """A row group, so many rows decoded at a time; errors as of `read_row_group`."""
        chosen = None if columns is None else list(columns)
        yield from self.group(number, columns).iter_batches(n_rows, row_groups=[number], columns=chosen)

    def _read_into(self, view: memoryview, start: int) -> None:
        """Fill `view` with the bytes from `start`."""
        in_tail = start - (self._size - len(self._tail))
        if in_tail >= 0 and len(self._tail) - in_tail >= len(view):
            view[:] = self._tail[in_tail : in_tail + len(view)]
            return
        self._source.seek(start)
        if (n_bytes := self._source.readinto(view)) != len(view):
            raise OSError(f"it ends at byte {start + n_bytes} instead of {start + len(view)}")

    def _read(self, start: int, stop: int) -> bytearray:
        data = bytearray(stop - start)
        self._read_into(memoryview(data), start)
        return data

    def _footer(self) -> bytearray:
        end = self._tail[-_END_BYTES:]
        if len(end) < _END_BYTES or not end.endswith(MAGIC):
            raise ValueError("it does not end as a Parquet file does")
        length = int.from_bytes(end[: -len(MAGIC)], "little")
        start = self._size - _END_BYTES - length
        if length > MAX_FOOTER_BYTES or start < len(MAGIC):
            raise ValueError(f"its footer claims {length:,} bytes")
        return self._read(start, start + length)


def _is_in(path: str, columns: Sequence[str]) -> bool:
    """Whether a leaf belongs to one of these columns, by the rule that pyarrow goes by."""
    names = path.split(".")
    return any(".".join(names[:n]) in columns for n in range(1, len(names) + 1))


def _stretches(chunks: Sequence[ColumnChunk]) -> Iterator[tuple[int, int]]:
    """Bytes [start, stop) that hold all chunks; those that touch are one request."""
    stretch: tuple[int, int] | None = None
    for chunk in sorted(chunks, key=lambda chunk: chunk.start):
        if stretch is not None and chunk.start <= stretch[1]:
            stretch = (stretch[0], max(stretch[1], chunk.stop))
            continue
        if stretch is not None:
            yield stretch
        stretch = (chunk.start, chunk.stop)
    if stretch is not None:
        yield stretch
