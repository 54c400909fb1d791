"""Check a hostile Parquet file before Arrow decodes it: what its footer and pages promise must stay within limits.

A Parquet file of a kilobyte can promise terabytes: a page that unpacks to 2 GiB of zeros, a run of a billion levels in
one byte, text that repeats a long prefix, a schema nested deeper than the stack. Arrow believes such promises. So the
footer and the header of every page are parsed here, their promises added up, and a row group beyond MAX_GROUP_BYTES
refused. Every column chunk is read once and checked on its way to the decoder (`format.part_file`), so this costs no
request and less than a millisecond a row group. It says nothing about values: a part that passes can be decoded in
bounded memory, and may still be wrong.

The numbers of fields and types are those of the Parquet format, https://parquet.apache.org/docs/file-format/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from featurestore.guard.thrift import LIST, CompactReader, Struct

# A row group as it is written holds 64 MiB; sixteen times that leaves room for others' writers and still fits any
# machine that trains from a store. Larger ones are refused by writer and reader alike.
MAX_GROUP_BYTES = 1 << 30
# A thousand row groups of twenty columns take two; a hostile footer takes sixty times its size when it is parsed.
MAX_FOOTER_BYTES = 16 << 20
MAX_SCHEMA_DEPTH = 8  # root, list, element are three; Arrow descends by recursion
MAX_SCHEMA_ELEMENTS = 1 << 16  # three a list column

MAGIC = b"PAR1"  # a Parquet file begins and ends with them

# Parquet's physical types, those that parts have: boolean, int32, int64, float, double, byte array
_TEXT = 6
_WIDTH = {0: 1, 1: 4, 2: 8, 4: 4, 5: 8, _TEXT: 4}  # bytes of a value when decoded; of text, those of its offset
_STORED = {0: 1, 1: 4, 2: 8, 4: 4, 5: 8}  # bytes of a value in statistics
_CODECS = {0: "uncompressed", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DICTIONARY_ENCODINGS = (2, 8)  # PLAIN_DICTIONARY, RLE_DICTIONARY
_DELTA_BYTE_ARRAY = 7

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class ColumnChunk:
    """What the footer says of a column chunk: its place in the file, its values, how they are packed.

    `offsets` are the numbers in the footer that give its place, each with the bytes of the footer where it stands.
    """

    where: str
    start: int
    stop: int
    values: int
    is_text: bool
    codec: str
    offsets: tuple[tuple[tuple[int, int], int], ...] = ()


@dataclass(frozen=True)
class RowGroup:
    """The column chunks of a row group and the bytes [start, stop) of the file in which they lie."""

    chunks: list[ColumnChunk]
    start: int
    stop: int

    @property
    def shift(self) -> int:
        """From a place in the file to that in an image of the group, which leaves room for the magic bytes."""
        return self.start - len(MAGIC)


def check_pages(data: memoryview, chunk: ColumnChunk) -> None:
    """Walk the headers of a column chunk's pages; ValueError where they promise more than the footer or the limit."""
    position = unpacked = values = longest = 0
    while values < chunk.values:
        header = CompactReader(data, position)
        fields = header.struct()
        kind, unpacked_size, packed_size = fields.get(1), _size(fields.get(2), chunk), _size(fields.get(3), chunk)
        body = header.position
        position = body + packed_size
        unpacked += unpacked_size
        if position > len(data) or unpacked > MAX_GROUP_BYTES:
            raise ValueError(f"{chunk.where}: a page claims {packed_size:,} bytes that unpack to {unpacked_size:,}")
        if kind == _DICTIONARY_PAGE:
            if chunk.is_text:
                longest = _longest_text(data[body:position], unpacked_size, chunk)
            continue
        page = fields.get(5 if kind == _DATA_PAGE else 8) if kind in (_DATA_PAGE, _DATA_PAGE_V2) else None
        if not isinstance(page, dict):
            raise ValueError(f"{chunk.where}: a page is of a kind that no part has")
        n_values = _size(page.get(1), chunk)
        values += n_values
        encoding = page.get(2 if kind == _DATA_PAGE else 4)
        if chunk.is_text and encoding == _DELTA_BYTE_ARRAY:
            raise ValueError(f"{chunk.where}: text must not be coded by prefixes; its size cannot be bounded")
        if chunk.is_text and encoding in _DICTIONARY_ENCODINGS and n_values * longest > MAX_GROUP_BYTES:
            raise ValueError(f"{chunk.where}: a dictionary unpacks to as much as {n_values * longest:,} bytes")
    if values != chunk.values:
        raise ValueError(f"{chunk.where}: its pages hold {values:,} values and the footer says {chunk.values:,}")


def _size(value: object, chunk: ColumnChunk) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{chunk.where}: a page has no valid size")
    return value


def _longest_text(page: memoryview, unpacked_size: int, chunk: ColumnChunk) -> int:
    """Bytes of the longest entry of a text dictionary."""
    data = page.cast("B")
    if chunk.codec != "uncompressed":
        data = memoryview(pa.decompress(page, unpacked_size, codec=chunk.codec)).cast("B")
    position = longest = 0
    while position + 4 <= len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        longest, position = max(longest, length), position + 4 + length
    return longest


def check_footer(footer: memoryview, file_bytes: int) -> list[RowGroup]:
    """The row groups that a footer tells of.

    Parsed here and not asked of Arrow, whose accessors end the process where a footer contradicts itself.

    Raises:
        ValueError: It is no footer, contradicts itself, or promises more than a part may hold.
    """
    reader = CompactReader(footer, 0)
    number, kind = reader.field(0)
    if number == 1:
        reader.value(kind)
        number, kind = reader.field(1)
    if (number, kind) != (2, LIST):
        raise ValueError("its footer is no Parquet footer")
    leaves = _schema_leaves(reader)
    document = reader.struct(2)
    groups, rows = list[RowGroup](), 0
    for number, group in enumerate(_list_of(document, 4, Struct)):
        where, promised, chunks = f"row group {number}", 0, list[ColumnChunk]()
        rows += _integer(group, 3, where)
        columns = _list_of(group, 1, Struct)
        if [_integer(_struct_of(column, 3), 1, where) for column in columns] != leaves:
            raise ValueError(f"{where} has other columns than the schema")
        for column in columns:
            chunk, size = _chunk(column, where, file_bytes)
            promised += size
            chunks.append(chunk)
        if promised > MAX_GROUP_BYTES:
            raise ValueError(f"{where} claims {promised:,} bytes; {MAX_GROUP_BYTES:,} are the limit")
        start = min((chunk.start for chunk in chunks), default=len(MAGIC))
        stop = max((chunk.stop for chunk in chunks), default=start)
        if stop - start > MAX_GROUP_BYTES:
            raise ValueError(f"{where} lies in {stop - start:,} bytes of the file; {MAX_GROUP_BYTES:,} are the limit")
        groups.append(RowGroup(chunks, start, stop))
    if rows != _integer(document, 3, "the footer"):
        raise ValueError(f"its row groups hold {rows} rows and its footer says {document.get(3)}")
    return groups


def _schema_leaves(reader: CompactReader) -> list[object]:
    """Physical types of the columns; ValueError where the schema is nested or long beyond reason."""
    _, n_elements = reader.list_header()
    if n_elements > MAX_SCHEMA_ELEMENTS:
        raise ValueError(f"its schema claims {n_elements:,} elements")
    open_groups: list[int] = []  # children still to come, from the root down
    leaves: list[object] = []
    for _ in range(n_elements):
        element = reader.struct()
        children = element.get(5, 0)
        while open_groups and open_groups[-1] == 0:
            open_groups.pop()
        if open_groups:
            open_groups[-1] -= 1
        if isinstance(children, int) and children > 0:
            open_groups.append(children)
        elif 1 in element:
            leaves.append(element[1])
        if len(open_groups) > MAX_SCHEMA_DEPTH:
            raise ValueError(f"its schema is nested more than {MAX_SCHEMA_DEPTH} deep")
    return leaves


def _chunk(column: Struct, where: str, file_bytes: int) -> tuple[ColumnChunk, int]:
    """A column chunk, and the bytes that it claims to take when decoded."""
    data = _struct_of(column, 3)
    where = f"{where}, column '{_path(data)}'"
    if 1 in column:
        raise ValueError(f"{where} points to another file")
    kind, codec, values = (_integer(data, field, where) for field in (1, 4, 5))
    unpacked, length, start = (_integer(data, field, where) for field in (6, 7, 9))
    if kind not in _WIDTH or codec not in _CODECS:
        raise ValueError(f"{where} is of a type or packed in a way that no part is")
    dictionary = _integer(data, 11, where) if 11 in data else 0  # 0 says that there is none
    offsets = [(data.places.get(field, (0, 0)), place) for field, place in ((9, start), (11, dictionary)) if place]
    start = min(start, dictionary or start)
    if start < len(MAGIC) or start + length > file_bytes:
        raise ValueError(f"{where} lies outside of the file")
    statistics = data.get(12, {})
    for field in (1, 2, 5, 6) if kind != _TEXT else ():
        if isinstance(statistics, dict) and field in statistics and len(statistics[field]) != _STORED[kind]:
            raise ValueError(f"{where} has statistics of another type")
    chunk = ColumnChunk(where, start, start + length, values, kind == _TEXT, _CODECS[codec], tuple(offsets))
    return chunk, max(unpacked, values * _WIDTH[kind])


def _path(data: Struct) -> str:
    return ".".join(bytes(name).decode("utf-8", "replace") for name in _list_of(data, 3, bytes))


def _list_of(fields: Mapping[int, object], number: int, kind: type[_Item]) -> list[_Item]:
    items = fields.get(number, [])
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        raise ValueError("its footer is no Parquet footer")
    return items


def _struct_of(fields: Mapping[int, object], number: int) -> Struct:
    (struct,) = _list_of({0: [fields.get(number)]}, 0, Struct)
    return struct


def _integer(fields: Mapping[int, object], number: int, where: str) -> int:
    value = fields.get(number)
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{where}: a number is missing, negative or absurd")
    return value
