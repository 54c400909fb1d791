"""Encode and decode a part: a plain Parquet file that holds the rows of one unit.

Encoding is deterministic (the same rows give the same bytes) and small: delta-packed indices, byte-stream-split values,
zstd, no dictionaries, a checksum on every page; docs/storage.md has the measurements behind it. Both ways go row group
by row group, so memory is bounded by ROW_GROUP_BYTES and not by the part. Where parts lie and which belong to a store
is left to `writing` and `reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from featurestore.errors import StoreError
from featurestore.format.part_file import PartFile
from featurestore.format.rows import PartRows, concat_rows, to_table
from featurestore.format.schema import StoreSchema
from featurestore.format.store_plan import FORMAT_VERSION, PARTS, StorePlan
from featurestore.guard.parquet_limits import MAX_GROUP_BYTES
from featurestore.storage.files import open_input, shown

# Raw bytes of text, indices, values and dense vectors in a row group. A reader holds one row group at a time, and
# decoding takes a few times as much, so this bounds its memory; far below, chunks get too short for object stores.
ROW_GROUP_BYTES = 64 << 20
_ZSTD_LEVEL = 1  # level 9 saves 3 % on real stores and writes at a third of the rate
_PART_NAME = re.compile(r"part-([0-9]{6,})\.parquet")
_FOOTER = "sparsemill."

# What reading a damaged or foreign file can raise: Arrow's errors, our own ValueError, and storage's.
READ_ERRORS = (OSError, ValueError, pa.ArrowException)


def part_name(unit: int) -> str:
    """File name of a unit's part; more than a million units simply take more digits."""
    return f"part-{unit:06d}.parquet"


def part_path(root: str, unit: int) -> str:
    """Path of a unit's part below the store's root."""
    return f"{root}/{PARTS}/{part_name(unit)}"


def unit_of(name: str) -> int | None:
    """The unit whose part has this file name; None if no part is called so."""
    match = _PART_NAME.fullmatch(name)
    return int(match[1]) if match and part_name(int(match[1])) == name else None


def encode_part(plan: StorePlan, unit: int, rows: PartRows) -> pa.Buffer:
    """The bytes of a part.

    Raises:
        StoreError: A single row is larger than a row group may be.
        UnicodeEncodeError: An id or kept text holds a lone surrogate.
        pa.ArrowException: A kept value does not fit its column's type.
    """
    return encode_chunks(plan, unit, [rows])


def encode_chunks(plan: StorePlan, unit: int, chunks: Iterable[PartRows]) -> pa.Buffer:
    """`encode_part` of the chunks' rows one after the other, holding no more than a row group and a chunk of them.

    However the rows are cut into chunks, the bytes are the same. Errors as of `encode_part`.
    """
    schema = plan.schema
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        schema.arrow_schema(),
        version="2.6",
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        use_dictionary=False,
        column_encoding=_encodings(schema),
        write_statistics=["doc_id", *(name for name, _ in schema.keep), "n_tokens"],
        write_page_checksum=True,
    )
    n_rows = errors = tokens = 0
    with writer:
        for rows, start, stop in _grouped(schema, chunks):
            writer.write_table(to_table(schema, rows, start, stop), row_group_size=stop - start)
            n_rows += stop - start
            errors += sum(text is not None for text in rows.error[start:stop])
            tokens += int(rows.n_tokens[start:stop].sum(dtype=np.int64))
        footer = {"format_version": FORMAT_VERSION, "fingerprint": plan.fingerprint, "unit": unit}
        footer |= {"rows": n_rows, "errors": errors, "tokens": tokens}
        writer.add_key_value_metadata({f"{_FOOTER}{key}": str(value) for key, value in footer.items()})
    return sink.getvalue()


def _grouped(schema: StoreSchema, chunks: Iterable[PartRows]) -> Iterator[tuple[PartRows, int, int]]:
    """(rows, start, stop) of each row group; the last group of the rows so far waits for what may still join it."""
    waiting, weight = list[PartRows](), 0
    for chunk in chunks:
        waiting.append(chunk)
        weight += int(_weights(schema, chunk).sum())
        if weight <= ROW_GROUP_BYTES:
            continue
        rows = concat_rows(waiting) if len(waiting) > 1 else chunk
        *whole, (last, end) = row_groups(schema, rows)
        for start, stop in whole:
            yield rows, start, stop
        waiting = [rows.slice(last, end)]
        weight = int(_weights(schema, waiting[0]).sum())
    if waiting:
        rows = concat_rows(waiting) if len(waiting) > 1 else waiting[0]
        for start, stop in row_groups(schema, rows):
            yield rows, start, stop


def row_groups(schema: StoreSchema, rows: PartRows) -> Iterator[tuple[int, int]]:
    """Rows [start, stop) of each row group: as many as fit in ROW_GROUP_BYTES, and at least one."""
    weight = _weights(schema, rows)
    if (weight > MAX_GROUP_BYTES).any():
        row = int(weight.argmax())
        raise StoreError(
            f"row {row} takes {int(weight[row]):,} bytes; a row may take {MAX_GROUP_BYTES:,}, so keep less"
        )
    ends = np.cumsum(weight)
    start, before = 0, 0
    while start < len(rows):
        stop = max(start + 1, int(np.searchsorted(ends, before + ROW_GROUP_BYTES, side="right")))
        yield start, stop
        start, before = stop, int(ends[stop - 1])


def _weights(schema: StoreSchema, rows: PartRows) -> np.ndarray:
    """Raw bytes of each row, about: text counts by its characters."""
    weight = np.full(len(rows), 1 + 4 * sum(dense.dim for dense in schema.dense), dtype=np.int64)
    for name, kind in schema.keep:
        if kind == "string":
            weight += np.fromiter((len(str(text or "")) for text in rows.keep[name]), np.int64, len(rows))
    for sae in schema.saes:
        weight += 4 * (1 + len(sae.pools)) * np.diff(rows.sparse[sae.name].indptr)
    return weight


@contextmanager
def open_part(fs: pafs.FileSystem, path: str) -> Iterator[PartFile]:
    """A part open for reading, page checksums verified and its promises checked (`guard`).

    Raises one of READ_ERRORS, here or when it is read, if it is no Parquet or promises more than a part may hold.
    """
    with open_input(fs, path) as source:
        yield PartFile(source)


def unreadable(uri: str, unit: int, exc: Exception) -> StoreError:
    """What to say when a part cannot be read."""
    hint = "if verify finds it damaged, delete it and rerun extract"
    return StoreError(f"{shown(uri)}: part {unit} cannot be read ({exc}); {hint}")


def read_footer(file: PartFile) -> dict[str, str]:
    """The `sparsemill.*` metadata of a part, without the prefix; ValueError if the file is no part."""
    pairs = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
    footer = {key.removeprefix(_FOOTER): value for key, value in pairs.items() if key.startswith(_FOOTER)}
    for key in ("unit", "rows", "errors", "tokens"):
        if not footer.get(key, "").isdecimal():
            raise ValueError(f"its footer has no valid '{_FOOTER}{key}'")
    return footer


def part_problem(file: PartFile, plan: StorePlan, unit: int) -> str | None:
    """Why this file cannot be unit `unit` of `plan`, judged by its footer and schema; None if it can."""
    footer = read_footer(file)
    if footer.get("format_version") != str(FORMAT_VERSION):
        return f"has format version {footer.get('format_version')}, not {FORMAT_VERSION}"
    if footer.get("fingerprint") != plan.fingerprint:
        return "carries the fingerprint of another job"
    if int(footer["unit"]) != unit:
        return f"holds unit {footer['unit']}"
    expected = plan.unit_rows(unit)
    if file.metadata.num_rows != expected or int(footer["rows"]) != expected:
        return f"has {file.metadata.num_rows} rows (footer: {footer['rows']}), but its unit has {expected} documents"
    there, wanted = file.schema_arrow, plan.schema.arrow_schema()
    if not there.equals(wanted):
        strange = [f.name for f in there if f not in wanted] + [f.name for f in wanted if f not in there]
        return f"has columns that differ from the store's schema: {', '.join(dict.fromkeys(strange)) or 'their order'}"
    return None


def read_group(file: PartFile, group: int, columns: Sequence[str] | None = None) -> pa.RecordBatch:
    """One row group as a single record batch; raises one of READ_ERRORS if a page is damaged."""
    table = file.read_row_group(group, columns)
    return table.combine_chunks().to_batches(max_chunksize=max(1, table.num_rows))[0]


def _encodings(schema: StoreSchema) -> dict[str, str]:
    """Encoding by Parquet path; `list.element` are the path's levels below a list column."""
    encodings = {f"{dense.name}.list.element": "BYTE_STREAM_SPLIT" for dense in schema.dense}
    for sae in schema.saes:
        encodings[f"{sae.indices}.list.element"] = "DELTA_BINARY_PACKED"
        for pool in sae.pools:
            encodings[f"{sae.column(pool)}.list.element"] = "BYTE_STREAM_SPLIT"  # counts too: half of delta-packed
    return encodings
