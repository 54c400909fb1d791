"""Parse Thrift's compact protocol, as far as Parquet's headers use it, from bytes that may be anything.

Everything that is wrong with them is a ValueError; no more is allocated than the bytes themselves can fill. Which
fields mean what is left to `parquet_limits`. The protocol is doc/specs/thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

LIST = 9
_STOP, _TRUE, _FALSE, _BYTE, _INT64, _DOUBLE, _BINARY, _SET, _STRUCT = 0, 1, 2, 3, 6, 7, 8, 10, 12
_DEPTH = 24  # footer, row groups, columns, metadata, statistics: lists counted, ten


class Struct(dict[int, object]):
    """Field number -> value; `places` has the bytes [start, stop) at which 64-bit numbers stand."""

    __slots__ = ("places",)

    places: dict[int, tuple[int, int]]


class CompactReader:
    """A position in the bytes; reading moves it on."""

    def __init__(self, data: memoryview, position: int) -> None:
        self.data = data.cast("B")  # Arrow's bytes are signed
        self.position = position

    def byte(self) -> int:
        """One byte."""
        try:
            byte: int = self.data[self.position]
        except IndexError:
            raise ValueError("a header is cut off") from None
        self.position += 1
        return byte

    def varint(self) -> int:
        """An unsigned number, seven bits a byte."""
        byte = self.byte()
        if byte < 0x80:  # nearly all of them
            return byte
        value, shift = byte & 0x7F, 7
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a header holds a number that is too long")

    def zigzag(self) -> int:
        """A signed number."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def field(self, before: int) -> tuple[int, int]:
        """Number and type of the next field; type 0 ends the struct."""
        head = self.byte()
        kind, step = head & 0x0F, head >> 4
        if kind == _STOP:
            return before, _STOP
        return (before + step if step else self.zigzag()), kind

    def list_header(self) -> tuple[int, int]:
        """Type and number of a list's items."""
        head = self.byte()
        length = head >> 4
        return head & 0x0F, self.varint() if length == 15 else length

    def struct(self, before: int = 0, depth: int = 0) -> Struct:
        """The fields after number `before`, to the end of the struct."""
        fields, places = Struct(), dict[int, tuple[int, int]]()
        fields.places = places
        while True:
            before, kind = self.field(before)
            if kind == _STOP:
                return fields
            if before in fields:
                raise ValueError("a header has a field twice")  # of which readers make different things
            start = self.position
            fields[before] = self.value(kind, depth + 1)
            if kind == _INT64:
                places[before] = (start, self.position)

    def value(self, kind: int, depth: int = 0) -> object:
        """int, bool, bytes, list or struct (as a dict); ValueError for what Parquet's headers have not."""
        if depth > _DEPTH:
            raise ValueError("a header is nested too deeply")
        if _BYTE < kind < _DOUBLE:
            return self.zigzag()
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self.byte()
        if kind == _DOUBLE:
            return self._advance(8)
        if kind == _BINARY:
            return self._advance(self.varint())
        if kind in (LIST, _SET):
            item, length = self.list_header()
            item = _BYTE if item in (_TRUE, _FALSE) else item
            return [self.value(item, depth + 1) for _ in range(length)]
        if kind == _STRUCT:
            return self.struct(depth=depth + 1)
        raise ValueError("a header holds a type that Parquet has not")

    def _advance(self, n_bytes: int) -> bytes:
        if n_bytes > len(self.data) - self.position:
            raise ValueError("a header is cut off")
        self.position += n_bytes
        return bytes(self.data[self.position - n_bytes : self.position])


def put_number(data: bytearray, place: tuple[int, int], value: int) -> None:
    """Write a number of 0 or more over a larger one; the bytes before and after stay where they are.

    It is filled up to the other one's length: a varint may end in groups of zeros.

    Raises:
        ValueError: What stands there is no varint that is long enough.
    """
    start, stop = place
    bits = value << 1
    for at in range(start, stop):
        data[at] = bits & 0x7F | (0x80 if at < stop - 1 else 0)
        bits >>= 7
    if bits:
        raise ValueError("a header holds a number of another type")
