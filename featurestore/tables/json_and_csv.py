"""Split JSON lines and CSV into records, each with the byte offset at which it starts.

Bounded memory and no guessing: how a CSV file is written is settled before (`csv_head`). A reader can start at any
offset that an earlier pass reported and sees the same rows from there on. A broken line is a record with `error`; a CSV
quote that is never closed leaves in doubt where rows end, so that file is refused, and one that swallowed rows before
another quote closed it is noted.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO, cast

from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.tables.arrays import elements, told_apart
from featurestore.tables.record import BLOCK_BYTES, MISSING, Record, Wanted, decompressed, open_raw, refusals
from featurestore.tables.values import kind_of_json

MAX_ROW_BYTES = 64 << 20  # a row beyond this is no document but a damaged file; bounds the memory of hostile input
MAX_DEPTH = 100  # fixed, because Python's own limit depends on the caller's stack: a row must fare alike everywhere
# Carriage returns within a line pass csv.reader, which takes them for row ends, in the guise of a character that no
# decoded text contains: common writers leave them unquoted where "\n" ends the rows.
_RETURN = "\ud800"
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(unsafe_hash=True)
class Fused:
    """Rows of a CSV file that look as if a quote were not closed and several rows had become one.

    Attributes:
        count: How many.
        row: The first of them.
        lines: Its lines.
    """

    count: int = 0
    row: int = -1
    lines: int = 0

    def sentence(self, where: str, setting: str) -> str:
        """What there is to say about them, if there are any."""
        more = f", and so do {self.count - 1:,} more" if self.count > 1 else ""
        return (
            f"{where} row {self.row:,} holds {self.lines:,} lines that look like rows of their own{more}; close the "
            f"quote there, or set {setting}.quote to none if quotes are text"
        )


def text_records(
    stream: BinaryIO,
    file: SourceFile,
    wanted: Wanted,
    header: tuple[str, ...],
    offset: int = 0,
    fused: Fused | None = None,
) -> Iterator[Record]:
    """The rows of a JSONL or CSV stream that starts at `offset`, which is 0 or the offset of a record.

    Args:
        stream: The decompressed bytes.
        file: What they are of; a CSV file knows its dialect.
        wanted: What to take from the rows.
        header: The column names of a CSV file as `csv_header` gives them; unused for JSON lines.
        offset: Where the stream starts.
        fused: Takes note of doubtful rows.

    Raises:
        CorpusError: JSON lines are not UTF-8 as a whole, or a CSV quote is never closed.
    """
    if file.format == "json":
        return _json_records(elements(stream, offset, file), wanted, "element")
    lines = _lines(stream, offset, file)
    if file.format == "jsonl":
        return _json_records(lines, wanted)
    return _csv_records(_CsvFeed(lines, file, offset), file, wanted, header, offset, fused)


class _Aligned:
    """A stream whose blocks never end within a character of so many bytes."""

    def __init__(self, stream: BinaryIO, width: int) -> None:
        self._stream = stream
        self._width = width
        self._rest = b""

    def read(self, size: int) -> bytes:
        block = self._rest
        while len(block) < self._width and (more := self._stream.read(max(size, self._width))):
            block += more
        whole = len(block) // self._width * self._width or len(block)
        self._rest = block[whole:]
        return block[:whole]


def _split(block: bytes, line_break: bytes) -> list[bytes]:
    """The lines of a block that begins with a whole character."""
    pieces = block.split(line_break)
    if len(line_break) == 1:
        return pieces
    lines: list[bytes] = []
    at = 0
    for piece in pieces:
        if at % len(line_break):  # what ended the last one lies across two characters
            lines[-1] += line_break + piece
        else:
            lines.append(piece)
        at += len(piece) + len(line_break)
    return lines


def _lines(stream: BinaryIO, offset: int, file: SourceFile) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line without its newline); None in place of a line longer than MAX_ROW_BYTES."""
    line_break = b"\n" if file.dialect is None else file.dialect.line_break
    mark = codecs.BOM_UTF8 if file.dialect is None else file.dialect.mark
    if len(line_break) > 1:
        stream = cast("BinaryIO", _Aligned(stream, len(line_break)))
    pieces: list[bytes] = []
    length = 0
    start = offset
    at_beginning = offset == 0
    while block := stream.read(BLOCK_BYTES):
        if at_beginning:
            at_beginning = False
            while len(block) < len(mark) and (more := stream.read(BLOCK_BYTES)):
                block += more
            if file.dialect is None and block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise CorpusError(f"{file.uri} is UTF-16 text; save it as UTF-8")
            if mark and block.startswith(mark):
                block, start = block[len(mark) :], len(mark)
        first, *rest = _split(block, line_break)
        length += len(first)
        if length <= MAX_ROW_BYTES:
            pieces.append(first)
        else:
            pieces.clear()
        if not rest:
            continue
        yield start, b"".join(pieces) if length <= MAX_ROW_BYTES else None
        start += length + len(line_break)
        last = rest.pop()
        for line in rest:
            yield start, line
            start += len(line) + len(line_break)
        pieces, length = [last], len(last)
    if length:
        yield start, b"".join(pieces) if length <= MAX_ROW_BYTES else None


def _json_records(
    lines: Iterator[tuple[int, bytes | None]] | Iterator[tuple[int, bytes]], wanted: Wanted, what: str = "line"
) -> Iterator[Record]:
    decode = json.JSONDecoder().decode
    text, id_, keep, image = wanted.text, wanted.id, wanted.keep, wanted.image
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
            None,
            None if image is None else get(image, MISSING),
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
    """Hands lines to `csv.reader` and knows where the next record starts and whether the last one could be decoded."""

    def __init__(self, lines: Iterator[tuple[int, bytes | None]], file: SourceFile, offset: int) -> None:
        assert file.dialect is not None
        self.dialect = file.dialect
        self.offset = offset
        self.fed: list[bytes] = []
        self.overlong = False
        self.has_returns = False
        self._lines = lines
        self._break = file.dialect.line_break
        self._encoding = file.dialect.encoding
        self._errors = "surrogateescape" if file.dialect.width == 1 else "replace"

    def __iter__(self) -> _CsvFeed:
        return self

    def __next__(self) -> str:
        start, line = next(self._lines)
        if line is None:
            self.overlong = True
            raise StopIteration
        self.fed.append(line)
        self.offset = start + len(line) + len(self._break)
        text = line.decode(self._encoding, self._errors)
        if "\r" in text[:-1]:
            self.has_returns = True
            text = text[:-1].replace("\r", _RETURN) + text[-1]
        return text + "\n"

    def problem(self) -> str | None:
        """Why what was fed is no text in the encoding of the file."""
        if len(self._break) == 1 and all(map(bytes.isascii, self.fed)):
            return None
        try:
            self._break.join(self.fed).decode(self._encoding)
        except UnicodeDecodeError:
            return f"the row is not {self._encoding.upper() if self._encoding == 'utf-8' else self._encoding}"
        return None

    def is_fused(self, n_columns: int) -> bool:
        """Whether each line of the last row looks like a row: as many fields as the header, and one kind of value.

        A quote that is not closed swallows only rows without a quote, whose delimiters all count; and some column of
        theirs, ids or labels, looks the same in all of them, which lines of one text have no reason to.
        """
        lines = [line.decode(self._encoding, "replace").split(self.dialect.delimiter) for line in self.fed]
        if n_columns < 2 or any(len(fields) != n_columns for fields in lines):
            return False
        shapes = [{_shape(fields[i], self.dialect.quote) for fields in lines} for i in range(n_columns)]
        return any(len(shape) == 1 and shape != {""} for shape in shapes)


def _shape(field: str, quote: str) -> str:
    """What a short value looks like: `a0` for `d17`; of a text of several words nothing that another text has."""
    value = field.strip("\r").removeprefix(quote).removesuffix(quote)
    return value if " " in value else re.sub(r"[^\W\d]+", "a", re.sub(r"\d+", "0", value))


def _csv_rows(feed: _CsvFeed, file: SourceFile) -> Iterator[tuple[int, list[str], str | None]]:
    """(offset, fields, error) of each record; blank lines are none."""
    if csv.field_size_limit() < MAX_ROW_BYTES:  # the module's own 128 KiB is shorter than real documents
        csv.field_size_limit(MAX_ROW_BYTES)
    rows = feed.dialect.rows(feed)
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
                " close its quote, because where later rows begin cannot be told, or set csv.quote to none if quotes"
                " are text there"
            )
        if problem:
            yield offset, [], f"the row is not CSV ({problem})"
            continue
        if row is None:
            return
        if feed.has_returns:
            row = [field.replace(_RETURN, "\r") for field in row]
        if row:
            yield offset, row, feed.problem()


def csv_header(file: SourceFile) -> tuple[str, ...]:
    """The column names in the first row of a CSV file that knows its dialect; none in an empty file."""
    with refusals(file), ExitStack() as stack:
        stream = decompressed(open_raw(file, stack), file, stack)
        for _, row, error in _csv_rows(_CsvFeed(_lines(stream, 0, file), file, 0), file):
            if error:
                raise CorpusError(f"{file.uri}: its first row must name the columns, but {error}; correct it")
            return tuple(row)
    return ()


def _csv_records(
    feed: _CsvFeed, file: SourceFile, wanted: Wanted, header: tuple[str, ...], offset: int, fused: Fused | None
) -> Iterator[Record]:
    rows = _csv_rows(feed, file)
    if offset == 0:
        next(rows, None)  # the header
    text = None if wanted.text is None else header.index(wanted.text)
    id_ = None if wanted.id is None else header.index(wanted.id)
    image = None if wanted.image is None else header.index(wanted.image)
    keep = [header.index(name) for name in wanted.keep]
    none = (None,) * len(keep)
    for number, (start, row, error) in enumerate(rows):
        if error is None and len(row) != len(header):
            error = f"the row has {len(row)} fields where the header has {len(header)}"
        if fused is not None and error is None and len(feed.fed) > 1 and feed.is_fused(len(header)):
            fused.row, fused.lines = (fused.row, fused.lines) if fused.count else (number, len(feed.fed))
            fused.count += 1
        if error:
            yield Record(None, None, none, start, error)
        else:
            yield Record(
                None if text is None else row[text],
                None if id_ is None else row[id_] or None,
                tuple([row[i] or None for i in keep]) if keep else none,
                start,
                None,
                None if image is None else row[image] or None,
            )
