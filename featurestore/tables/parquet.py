"""Read a range of rows of a user's Parquet file, decoding only the row groups and columns that hold them.

What Arrow's many types mean as ids, texts and kept values is `arrow`'s to say; here stands what Parquet adds: two
logical types that Arrow takes for bytes, and timestamps of 96 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.tables.arrow import (
    TREATMENTS,
    decoded,
    family_of,
    plain_type,
    reader_of,
)
from featurestore.tables.class_labels import class_names, named
from featurestore.tables.images import holds_images, images_of
from featurestore.tables.record import Record, Wanted, open_raw
from featurestore.tables.times import parquet_interval

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE_ROWS = 32  # of images at a time: some tens of MB of photographs
_BATCH_ROWS = 1024  # a batch of long documents stays within some tens of MB
_EXACT_IN_FLOAT64 = 2**53
_INT64 = 2**63
UNSEEN_KINDS = frozenset({"integers", "unsigned", "floats"})
"""Kinds of columns of which only values can say what `values.kind_of` says; `number_kinds` looks at them."""


def open_parquet(file: SourceFile, stack: ExitStack) -> pq.ParquetFile:
    """A Parquet file with its footer read."""
    import pyarrow.parquet as pq
    from pyarrow import fs as pafs

    from featurestore.storage.files import filesystem

    # Arrow reads ahead in threads of its own; a file that Python reads (fsspec's) must not be theirs when Python ends.
    read_ahead = not isinstance(filesystem(file.root)[0], pafs.PyFileSystem)
    # Microseconds, because nanoseconds wrap around outside 1677 to 2262, and Spark writes 9999-12-31 for "never".
    parquet = pq.ParquetFile(open_raw(file, stack), pre_buffer=read_ahead, coerce_int96_timestamp_unit="us")
    return stack.enter_context(parquet)


def parquet_groups(parquet: pq.ParquetFile) -> list[tuple[int, int]]:
    """(first row, rows) of each row group that has any."""
    counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    return [(sum(counts[:group]), rows) for group, rows in enumerate(counts) if rows]


def parquet_kinds(file: SourceFile, schema: pa.Schema, wanted: Wanted) -> dict[str, str]:
    """Kept column -> its kind as `values.kind_of` has them, or one of UNSEEN_KINDS, by the schema.

    Raises:
        CorpusError: The text column is no text, or the id column nothing that an id can be.
    """
    if wanted.text is not None:
        kind = schema.field(wanted.text).type
        if TREATMENTS[family_of(kind)].text is None and not (wanted.turns and family_of(kind) == "nested"):
            said = "turns" if wanted.turns else "text"
            raise CorpusError(
                f"{file.uri}: column '{wanted.text}' ({wanted.text_setting}) holds {kind}, not {said}; name another"
            )
    if wanted.id is not None:
        kind = schema.field(wanted.id).type
        if TREATMENTS[family_of(kind)].id is None:
            raise CorpusError(
                f"{file.uri}: column '{wanted.id}' (corpus.id) holds {kind}; ids are text or numbers, so name another"
            )
    if wanted.image is not None and not holds_images(kind := schema.field(wanted.image).type):
        raise CorpusError(
            f"{file.uri}: column '{wanted.image}' (corpus.image) holds {kind}, not images (bytes, paths or structs of "
            "both); name another"
        )
    named_classes = class_names(schema)
    return {name: "text" if name in named_classes else _kind(schema.field(name).type) for name in wanted.keep}


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    family = family_of(kind)
    if family == "integer":
        plain = plain_type(kind)
        return "unsigned" if pa.types.is_uint64(plain) else "integers" if plain.bit_width == 64 else "int"
    return {"null": "", "truth": "bool", "float": "floats"}.get(family, "text")


def number_kinds(parquet: pq.ParquetFile, column: str) -> set[str]:
    """The kinds, as `values.kind_of` has them, of the values of a column of numbers; one batch in memory."""
    kinds: set[str] = set()
    for batch in parquet.iter_batches(columns=[column], use_threads=False):
        values = decoded(batch.column(column)).drop_null()
        if len(values):
            kinds |= _float_kinds(values) if family_of(values.type) == "float" else _integer_kinds(values)
    return kinds


def _integer_kinds(values: pa.Array) -> set[str]:
    import pyarrow.compute as pc

    ends = pc.min_max(values).as_py()
    if ends["max"] >= _INT64:
        return {"text"}
    return {"int" if max(ends["max"], -ends["min"]) <= _EXACT_IN_FLOAT64 else "long"}


def _float_kinds(values: pa.Array) -> set[str]:
    import numpy as np

    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    is_nan = np.isnan(numbers)
    is_whole = (np.trunc(numbers) == numbers) & (numbers >= -_INT64) & (numbers < _INT64)
    found = {"nan": is_nan, "whole": is_whole, "float": ~is_nan & ~is_whole}
    return {kind for kind, mask in found.items() if mask.any()}


def parquet_records(parquet: pq.ParquetFile, wanted: Wanted, first_row: int, n_rows: int) -> Iterator[Record]:
    """Rows `[first_row, first_row + n_rows)`, decoding only the row groups and columns that hold them."""
    start = 0
    groups = []
    before = None
    for group in range(parquet.metadata.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if start < first_row + n_rows and start + rows > first_row and rows:
            groups.append(group)
            before = start if before is None else before
        start += rows
    names = dict.fromkeys((wanted.text, wanted.id, *wanted.keep, wanted.image))
    columns = [name for name in names if name is not None]
    most = _BATCH_ROWS if wanted.image is None else IMAGE_ROWS
    readers = _Readers(parquet)
    skip = first_row - (before or 0)
    # In this thread, for the same reason; and what takes time is what follows, making Python's values of them.
    for batch in parquet.iter_batches(most, row_groups=groups, columns=columns, use_threads=False):
        rows = batch.slice(min(skip, batch.num_rows), n_rows)
        skip -= min(skip, batch.num_rows)
        n_rows -= rows.num_rows
        nulls = [None] * rows.num_rows
        values = readers.values(rows, wanted)
        texts = nulls if wanted.text is None else values[wanted.text, "text"]
        ids = nulls if wanted.id is None else values[wanted.id, "id"]
        keeps = zip(*(values[name, "kept"] for name in wanted.keep), strict=True) if wanted.keep else [()] * len(nulls)
        images = nulls if wanted.image is None else values[wanted.image, "image"]
        for text, id_, keep, image in zip(texts, ids, keeps, images, strict=True):
            yield Record(text, id_, keep, 0, None, image)
        if n_rows == 0:
            return


class _Readers:
    """How to read each column in each role; a column that has two roles is read once where they agree on how."""

    def __init__(self, parquet: pq.ParquetFile) -> None:
        columns = (parquet.schema.column(i) for i in range(len(parquet.schema.names)))
        self._classes = class_names(parquet.schema_arrow)
        self._intervals = {column.path for column in columns if column.converted_type == "INTERVAL"}

    def values(self, rows: pa.RecordBatch, wanted: Wanted) -> dict[tuple[str, str], list[Any]]:
        """(Column, role) -> its values."""
        roles = [(wanted.text, "text"), (wanted.id, "id"), *((name, "kept") for name in wanted.keep)]
        read: dict[tuple[str, Any], list[Any]] = {}
        found = {}
        if wanted.image is not None:
            found[wanted.image, "image"] = images_of(rows.column(wanted.image))
        for name, role in roles:
            if name is None:
                continue
            reader = _intervals if name in self._intervals else reader_of(rows.column(name).type, role)
            if (name, reader) not in read:
                read[name, reader] = reader(rows.column(name))
            found[name, role] = read[name, reader]
            if role == "kept" and name in self._classes:
                found[name, role] = named(read[name, reader], self._classes[name])
        return found


def _intervals(column: pa.Array) -> list[Any]:
    return [parquet_interval(value) for value in column.to_pylist()]
