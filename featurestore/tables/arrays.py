"""Read a JSON array of objects like JSON lines: each element with the byte at which it starts.

Whole data sets come as one array, on one line or many, larger than memory. An element is cut out by its brackets and
quotes alone and decoded by who reads JSON lines, so a broken one is a row with an error; where brackets do not tell any
more where rows begin, the file is refused. Any element's offset will do to go on from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO, cast

from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.tables.record import BLOCK_BYTES

HEAD_BYTES = 1 << 16  # that tell an array from lines: more than a first line that is an array of its own
MAX_ELEMENT_BYTES = 64 << 20  # as of a line

_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*(?:\{|\])")
# A string whose closing quote is not there yet has an empty group.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[\[{]|[\]}]', re.DOTALL)
_COMMA = re.compile(rb"[ \t\r\n]*+,[ \t\r\n]*+(?=\{)")
_DECODER = json.JSONDecoder()
_SCALAR_END, _GAP = re.compile(rb"[\s,\]]"), re.compile(rb"[ \t\r\n]*+")


def is_array(head: bytes) -> bool:
    """Whether a file that begins so is one array of objects, and not lines of JSON the first of which is an array."""
    if not _BEGINNING.match(head):
        return False
    first, newline, rest = head.lstrip(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not newline or not rest.strip():
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True
    return False


def told_apart(file: SourceFile, stream: BinaryIO) -> tuple[SourceFile, BinaryIO]:
    """A file of JSON lines that is one array gets the format "json"; the stream is handed back from its beginning."""
    if file.format != "jsonl":
        return file, stream
    head = stream.read(HEAD_BYTES)
    return (replace(file, format="json") if is_array(head) else file), cast("BinaryIO", _Behind(head, stream))


class _Behind:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._stream.read(size)
        block, self._head = self._head[:size], self._head[size:]
        return block


def elements(stream: BinaryIO, offset: int, file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each element from `offset` on, which is 0 or the offset of an element.

    Raises:
        CorpusError: The array is cut off or goes on after its end, lacks a comma, or holds an element too large.
    """
    text = _Window(stream, offset)
    if offset == 0:
        text.skip(b"\xef\xbb\xbf")
        text.skip_space()
        text.skip(b"[")
    while True:
        start = text.skip_space()
        if text.peek() == b"]":  # there is no element, or a comma behind the last one
            return _check_end(text, file)
        end = _end_of_element(text, file)
        yield start, text.take(end)
        if text.skip_comma():
            continue
        text.skip_space()
        found = text.peek()
        if found == b"]":
            return _check_end(text, file)
        if not found:
            raise CorpusError(f"{file.uri}: its JSON array is not closed by ']', so it may be cut off; fetch it again")
        if found != b",":
            raise CorpusError(f"{file.uri}: there is no comma behind the element that ends at byte {text.offset}")
        text.skip(b",")


def _check_end(text: _Window, file: SourceFile) -> None:
    text.skip(b"]")
    text.skip_space()
    if text.peek():
        raise CorpusError(f"{file.uri} goes on after its JSON array, at byte {text.offset}; keep one array a file")


def _end_of_element(text: _Window, file: SourceFile) -> int:
    """Where the element at the window's place ends, in bytes from there."""
    if text.peek() not in (b"{", b"[", b'"'):
        return _end_of_scalar(text)
    with suppress(ValueError, RecursionError):  # broken, cut off here, or deeper than Python goes
        # Latin-1 has a character for each byte, so this counts bytes; where a string ends it sees as UTF-8 would.
        return _DECODER.raw_decode(text.characters, text.place)[1] - text.place
    depth, place = 0, 0
    while True:
        match = _TOKEN.search(text.data, text.place + place)
        if match is None or (match[1] is not None and not match[1]):
            # Between brackets there may be a block without any; a string is looked at again when there is more of it.
            ahead = len(text.data) - text.place
            place = ahead if match is None else match.start() - text.place
            if ahead > MAX_ELEMENT_BYTES or not text.more():
                raise CorpusError(
                    f"{file.uri}: the element at byte {text.offset} has no end within {MAX_ELEMENT_BYTES >> 20} MiB or "
                    "the file; mend its quotes and brackets, or fetch the file again if it is cut off"
                )
            continue
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        place = match.end() - text.place
        if depth == 0:
            return place


def _end_of_scalar(text: _Window) -> int:
    while (match := _SCALAR_END.search(text.data, text.place)) is None:
        if not text.more():
            return len(text.data) - text.place
    return match.start() - text.place


class _Window:
    """The bytes of a stream from where reading has come to; more are fetched when they are asked for."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        self._stream = stream
        self._base = offset  # of data[0]
        self.data = b""
        self.characters = ""  # the same bytes
        self.place = 0

    @property
    def offset(self) -> int:
        return self._base + self.place

    def more(self) -> bool:
        """Fetch a block; what lies behind is let go."""
        block = self._stream.read(BLOCK_BYTES)
        self._base += self.place
        self.data, self.place = self.data[self.place :] + block, 0
        self.characters = self.data.decode("latin-1")
        return bool(block)

    def peek(self, ahead: int = 0) -> bytes:
        """The next byte, or the one so far ahead; nothing at the end of the stream."""
        while len(self.data) <= self.place + ahead:
            if not self.more():
                return b""
        return self.data[self.place + ahead : self.place + ahead + 1]

    def skip(self, wanted: bytes) -> None:
        """Go on behind these bytes, if they are there."""
        self.peek(len(wanted) - 1)
        if self.data.startswith(wanted, self.place):
            self.place += len(wanted)

    def skip_space(self) -> int:
        """Go on to what is no white space; its offset."""
        while True:
            gap = _GAP.match(self.data, self.place)
            assert gap is not None
            self.place = gap.end()
            if self.place < len(self.data) or not self.more():
                return self.offset

    def skip_comma(self) -> bool:
        """Go on to an object behind a comma, if there is nothing else between: the way of all but a few elements."""
        match = _COMMA.match(self.data, self.place)
        if match is not None:
            self.place = match.end()
        return match is not None

    def take(self, length: int) -> bytes:
        taken = self.data[self.place : self.place + length]
        self.place += length
        return taken
