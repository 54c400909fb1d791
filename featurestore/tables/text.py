"""JSON and CSV: a byte stream becomes records, with the byte offset at which each starts.

Bounded memory and no guessing. A reader can start at any offset that an earlier pass reported and sees the same rows
from there on. A broken line is a record with `error`; a CSV quote that is never closed leaves in doubt where rows end,
so that file is refused.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

from featurestore.errors import CorpusError
from featurestore.tables.arrays import elements, told_apart
from featurestore.tables.files import SourceFile
from featurestore.tables.record import BLOCK_BYTES, MISSING, Record, Wanted, decompressed, open_raw, refusals
from featurestore.tables.values import kind_of_json

MAX_ROW_BYTES = 64 << 20  # a row beyond this is no document but a damaged file; bounds the memory of hostile input
MAX_DEPTH = 100  # fixed, because Python's own limit depends on the caller's stack: a row must fare alike everywhere
# Carriage returns within a line pass csv.reader, which takes them for row ends, in the guise of a character that no
# decoded text contains: common writers leave them unquoted where "\n" ends the rows.
_RETURN = "\ud800"
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def text_records(
    stream: BinaryIO, file: SourceFile, wanted: Wanted, header: tuple[str, ...], offset: int = 0
) -> Iterator[Record]:
    """The rows of a JSONL or CSV stream that starts at `offset`, which is 0 or the offset of a record.

    Args:
        header: The column names of a CSV file as `csv_header` gives them; unused for JSON lines.

    Raises:
        CorpusError: The file is not UTF-8 as a whole, or a CSV quote is never closed.
    """
    if file.format == "json":
        return _json_records(elements(stream, offset, file), wanted, "element")
    lines = _lines(stream, offset, file)
    return _json_records(lines, wanted) if file.format == "jsonl" else _csv_records(lines, file, wanted, header, offset)


def _lines(stream: BinaryIO, offset: int, file: SourceFile) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line without its newline); None in place of a line longer than MAX_ROW_BYTES."""
    pieces: list[bytes] = []
    held = 0
    start = offset
    at_beginning = offset == 0
    while block := stream.read(BLOCK_BYTES):
        if at_beginning:
            at_beginning = False
            if block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise CorpusError(f"{file.uri} is UTF-16 text; save it as UTF-8")
            if block.startswith(b"\xef\xbb\xbf"):
                block, start = block[3:], 3
        first, *rest = block.split(b"\n")
        held += len(first)
        if held <= MAX_ROW_BYTES:
            pieces.append(first)
        else:
            pieces.clear()
        if not rest:
            continue
        yield start, b"".join(pieces) if held <= MAX_ROW_BYTES else None
        start += held + 1
        last = rest.pop()
        for line in rest:
            yield start, line
            start += len(line) + 1
        pieces, held = [last], len(last)
    if held:
        yield start, b"".join(pieces) if held <= MAX_ROW_BYTES else None


def _json_records(
    lines: Iterator[tuple[int, bytes | None]] | Iterator[tuple[int, bytes]], wanted: Wanted, what: str = "line"
) -> Iterator[Record]:
    decode = json.JSONDecoder().decode
    text, id_, keep = wanted.text, wanted.id, wanted.keep
    none = (None,) * len(keep)
    for offset, line in lines:
        if line is not None and (not line or line.isspace()):
            continue  # no row: editors and shells leave such lines behind
        problem = None
        value: Any = None
        if line is None:
            problem = f"the {what} is longer than {MAX_ROW_BYTES >> 20} MiB"
        elif line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
            problem = f"the {what} is nested more than {MAX_DEPTH} deep"
        else:
            try:
                value = decode(line.decode("utf-8"))
            except UnicodeDecodeError as exc:
                problem = f"the {what} is not UTF-8 (byte 0x{line[exc.start]:02x} at position {exc.start})"
            except json.JSONDecodeError as exc:
                problem = f"the {what} is not JSON ({exc.msg.removesuffix(' at')}, column {exc.colno})"
            except RecursionError:
                problem = f"the {what} is nested more than {MAX_DEPTH} deep"
            except ValueError:
                problem = f"the {what} holds a number of more digits than can be read"
        if problem is None and not isinstance(value, dict):
            problem = f"the {what} is {kind_of_json(value)}, not a JSON object"
        if problem:
            yield Record(None, None, none, offset, problem)
            continue
        get = value.get
        yield Record(
            None if text is None else get(text, MISSING),
            None if id_ is None else get(id_, MISSING),
            tuple([get(name, MISSING) for name in keep]) if keep else none,
            offset,
        )


def json_keys(file: SourceFile, rows: int | None = 100) -> list[str]:
    """The keys that the first objects of a file of JSON have, or all of them where `rows` is None."""
    keys: dict[str, None] = {}
    with refusals(file), ExitStack() as stack:
        file, stream = told_apart(replace(file, format="jsonl"), decompressed(open_raw(file, stack), file, stack))
        lines = elements(stream, 0, file) if file.format == "json" else _lines(stream, 0, file)
        for _, line in islice(lines, rows):
            try:
                value = json.loads(line or b"null")
            except (ValueError, RecursionError):
                continue
            keys.update(dict.fromkeys(value) if isinstance(value, dict) else {})
    return list(keys)


def _depth(line: bytes) -> int:
    """How deep a line's brackets nest, those inside strings set aside."""
    depth = deepest = 0
    for match in _JSON_TOKEN.finditer(line):
        token = match[0]
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


class _CsvFeed:
    """Hands lines to `csv.reader` and knows where the next record starts and whether the last one was UTF-8."""

    def __init__(self, lines: Iterator[tuple[int, bytes | None]], offset: int) -> None:
        self._lines = lines
        self.offset = offset
        self.fed: list[bytes] = []
        self.overlong = False
        self.has_returns = False

    def __iter__(self) -> _CsvFeed:
        return self

    def __next__(self) -> str:
        start, line = next(self._lines)
        if line is None:
            self.overlong = True
            raise StopIteration
        self.fed.append(line)
        self.offset = start + len(line) + 1
        text = line.decode("utf-8", "surrogateescape")
        if "\r" in text[:-1]:
            self.has_returns = True
            text = text[:-1].replace("\r", _RETURN) + text[-1]
        return text + "\n"

    def is_utf8(self) -> bool:
        if all(map(bytes.isascii, self.fed)):
            return True
        try:
            b"\n".join(self.fed).decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True


def _csv_rows(feed: _CsvFeed, file: SourceFile) -> Iterator[tuple[int, list[str], str | None]]:
    """(offset, fields, error) of each record; blank lines are none."""
    if csv.field_size_limit() < MAX_ROW_BYTES:  # the module's own 128 KiB is shorter than real documents
        csv.field_size_limit(MAX_ROW_BYTES)
    rows = csv.reader(feed, delimiter="\t" if file.is_tsv else ",", strict=True)
    while True:
        offset = feed.offset
        feed.fed.clear()
        feed.has_returns = False
        problem = None
        row: list[str] | None = []
        try:
            row = next(rows, None)
        except csv.Error as exc:
            problem = str(exc)
        if feed.overlong or (problem and ("end of data" in problem or "field larger" in problem)):
            raise CorpusError(
                f"{file.uri}: the row at byte {offset} has no end within {MAX_ROW_BYTES >> 20} MiB or the file;"
                " close its quote, because where later rows begin cannot be told"
            )
        if problem:
            yield offset, [], f"the row is not CSV ({problem})"
            continue
        if row is None:
            return
        if feed.has_returns:
            row = [field.replace(_RETURN, "\r") for field in row]
        if row:
            yield offset, row, None if feed.is_utf8() else "the row is not UTF-8"


def csv_header(file: SourceFile) -> tuple[str, ...]:
    """The column names in the first row of a CSV file; none in an empty file."""
    with refusals(file), ExitStack() as stack:
        stream = decompressed(open_raw(file, stack), file, stack)
        for _, row, error in _csv_rows(_CsvFeed(_lines(stream, 0, file), 0), file):
            if error:
                raise CorpusError(f"{file.uri}: its first row must name the columns, but {error}; correct it")
            return tuple(row)
    return ()


def _csv_records(
    lines: Iterator[tuple[int, bytes | None]], file: SourceFile, wanted: Wanted, header: tuple[str, ...], offset: int
) -> Iterator[Record]:
    rows = _csv_rows(_CsvFeed(lines, offset), file)
    if offset == 0:
        next(rows, None)  # the header
    text = None if wanted.text is None else header.index(wanted.text)
    id_ = None if wanted.id is None else header.index(wanted.id)
    keep = [header.index(name) for name in wanted.keep]
    none = (None,) * len(keep)
    for start, row, error in rows:
        if error is None and len(row) != len(header):
            error = f"the row has {len(row)} fields where the header has {len(header)}"
        if error:
            yield Record(None, None, none, start, error)
        else:
            yield Record(
                None if text is None else row[text],
                None if id_ is None else row[id_] or None,
                tuple([row[i] or None for i in keep]) if keep else none,
                start,
            )
