"""Thrift's compact protocol, as far as Parquet's headers use it, over bytes that may be anything.

Everything that is wrong with them is a ValueError; no more is allocated than the bytes themselves can fill. Which
fields mean what is the caller's business. The protocol is doc/specs/thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

from typing import Any

LIST = 9
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 10, 12
_DEPTH = 24  # footer, row groups, columns, metadata, statistics: lists counted, ten


class CompactReader:
    """A position in the bytes; reading moves it on."""

    def __init__(self, data: memoryview, position: int) -> None:
        self.data = data.cast("B")  # Arrow's bytes are signed
        self.position = position

    def byte(self) -> int:
        """One byte."""
        if self.position >= len(self.data):
            raise ValueError("a header is cut off")
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        """An unsigned number, seven bits a byte."""
        value = shift = 0
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

    def struct(self, before: int = 0, depth: int = 0) -> dict[int, Any]:
        """Field number -> value, from the field after number `before` to the end of the struct."""
        fields: dict[int, Any] = {}
        while True:
            before, kind = self.field(before)
            if kind == _STOP:
                return fields
            fields[before] = self.value(kind, depth + 1)

    def value(self, kind: int, depth: int = 0) -> Any:
        """int, bool, bytes, list or struct (as a dict); ValueError for what Parquet's headers have not."""
        if depth > _DEPTH:
            raise ValueError("a header is nested too deeply")
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self.byte()
        if kind < _DOUBLE:
            return self.zigzag()
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
