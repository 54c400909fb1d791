"""Parquet: a range of rows becomes records, decoding only the row groups and columns that hold them.

Arrow's many types are brought down to what JSON has: text in any of its encodings, whole numbers, floats, truth
values, and nested values; dates and decimals become text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from featurestore.errors import CorpusError
from featurestore.tables.files import SourceFile
from featurestore.tables.record import Record, Wanted, open_raw

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 1024  # a batch of long documents stays within some tens of MB


def open_parquet(file: SourceFile, stack: ExitStack) -> pq.ParquetFile:
    """A Parquet file with its footer read."""
    import pyarrow.parquet as pq
    from pyarrow import fs as pafs

    from featurestore.files import filesystem

    # Arrow reads ahead in threads of its own; a file that Python reads (fsspec's) must not be theirs when Python ends.
    read_ahead = not isinstance(filesystem(file.root)[0], pafs.PyFileSystem)
    return stack.enter_context(pq.ParquetFile(open_raw(file, stack), pre_buffer=read_ahead))


def parquet_groups(parquet: pq.ParquetFile) -> list[tuple[int, int]]:
    """(first row, rows) of each row group that has any."""
    counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    return [(sum(counts[:group]), rows) for group, rows in enumerate(counts) if rows]


def parquet_kinds(file: SourceFile, schema: pa.Schema, wanted: Wanted) -> dict[str, str]:
    """Kept column -> its kind as `values.kind_of` has them, by the schema.

    Raises:
        CorpusError: The text column is no text, or the id column neither text nor numbers.
    """
    import pyarrow as pa

    if wanted.text is not None:
        kind = schema.field(wanted.text).type
        if not (_is_textual(kind) or pa.types.is_null(kind)):
            raise CorpusError(f"{file.uri}: column '{wanted.text}' (corpus.text) holds {kind}, not text; name another")
    if wanted.id is not None:
        kind = _value_type(schema.field(wanted.id).type)
        if not (_is_textual(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise CorpusError(
                f"{file.uri}: column '{wanted.id}' (corpus.id) holds {kind}; ids are text or numbers, so name another"
            )
    return {name: _kind(_value_type(schema.field(name).type)) for name in wanted.keep}


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_null(kind):
        return ""
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "text" if pa.types.is_uint64(kind) else "int"  # beyond int64 only text loses nothing
    return "float" if pa.types.is_floating(kind) else "text"


def _value_type(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


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
    columns = [name for name in dict.fromkeys((wanted.text, wanted.id, *wanted.keep)) if name is not None]
    skip = first_row - (before or 0)
    # In this thread, for the same reason; and what takes time is what follows, making Python's values of them.
    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
        rows = batch.slice(min(skip, batch.num_rows), n_rows)
        skip -= min(skip, batch.num_rows)
        n_rows -= rows.num_rows
        values = {name: _python_values(rows.column(name)) for name in columns}
        nulls = [None] * rows.num_rows
        texts = nulls if wanted.text is None else values[wanted.text]
        ids = nulls if wanted.id is None else values[wanted.id]
        keeps = zip(*(values[name] for name in wanted.keep), strict=True) if wanted.keep else [()] * rows.num_rows
        for text, id_, keep in zip(texts, ids, keeps, strict=True):
            yield Record(text, id_, keep, 0)
        if n_rows == 0:
            return


def _python_values(column: pa.Array) -> list[Any]:
    """Arrow values as JSON would have them; text that is not UTF-8 stays bytes, dates and decimals become text."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if _is_textual(kind):
        try:
            return cast("list[Any]", column.cast(pa.large_string()).to_pylist())
        except (UnicodeDecodeError, pa.ArrowInvalid):
            return [_text_or_bytes(value) for value in column.cast(pa.large_binary()).to_pylist()]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    try:
        return cast("list[Any]", column.to_pylist())
    except (UnicodeDecodeError, ValueError, OverflowError):  # somewhere inside a nested value
        return [_scalar_or_bytes(value) for value in column]


def _is_textual(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text or bytes that may be text; a dictionary of such counts."""
    import pyarrow as pa

    is_type = pa.types
    if is_type.is_dictionary(kind):
        return _is_textual(kind.value_type)
    return bool(
        is_type.is_string(kind)
        or is_type.is_large_string(kind)
        or is_type.is_string_view(kind)
        or is_type.is_binary(kind)
        or is_type.is_large_binary(kind)
        or is_type.is_binary_view(kind)
        or is_type.is_fixed_size_binary(kind)
    )


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _scalar_or_bytes(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (UnicodeDecodeError, ValueError, OverflowError):
        return b""
