"""Name the ways in which CSV is written: what separates fields, how they are quoted, in which encoding.

`CsvSpec` is what a user says of it, `Dialect` what is known of one file in the end. Reading it off a file's beginning
is left to `csv_head`.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from encodings.aliases import aliases
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

NO_QUOTES = "none"
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "blank"}
BYTE_ORDER_MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = {"utf-16": 2, "utf-16-le": 2, "utf-16-be": 2, "utf-32": 4, "utf-32-le": 4, "utf-32-be": 4}
_ASCII = bytes(range(128))
_OFFICE = {"ansi": "cp1252", "unicode": "utf-16"}  # what Windows and Excel call them


class CsvSpec(BaseModel):
    """What a job or study says of its CSV files; what it leaves out is read off each file.

    Attributes:
        delimiter: The character between fields, or its name: comma, semicolon, tab, pipe, blank.
        quote: The character around fields that hold a delimiter or a line break, or `none`.
        encoding: utf-8, utf-16, cp1252, latin-1 or any other that Python knows and that contains ASCII.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None

    @field_validator("delimiter", mode="before")
    @classmethod
    def _one_character(cls, value: Any) -> Any:
        names = {name: char for char, name in _DELIMITERS.items()} | {"\\t": "\t", "space": " "}
        value = names.get(value, value) if isinstance(value, str) else value
        if value is not None and (not isinstance(value, str) or len(value) != 1 or value in '"\r\n\0'):
            raise ValueError(f"must be one character or {', '.join(names)}")
        return value

    @field_validator("quote", mode="before")
    @classmethod
    def _quote_or_none(cls, value: Any) -> Any:
        value = NO_QUOTES if value in (None, False, "", "None", "no", "off") else value
        if value != NO_QUOTES and (not isinstance(value, str) or len(value) != 1 or value in "\r\n\0"):
            raise ValueError(f"must be one character, or {NO_QUOTES} where quotes are text")
        return value

    @field_validator("encoding", mode="before")
    @classmethod
    def _known_encoding(cls, value: Any) -> Any:
        return value if value is None else encoding_name(value)

    @model_validator(mode="after")
    def _they_differ(self) -> CsvSpec:
        if self.quote is not None and self.quote == self.delimiter:
            raise ValueError("delimiter and quote are the same character; change one")
        return self


@dataclass(frozen=True)
class Dialect:
    """How one file is written.

    Attributes:
        delimiter: The character between fields.
        quote: The character around fields, or "" where there is none.
        encoding: As Python calls it; of UTF-16 and UTF-32 with the order of the bytes.
    """

    delimiter: str
    quote: str
    encoding: str

    def __str__(self) -> str:
        """In words, e.g. `semicolon, quotes ", cp1252`."""
        delimiter = _DELIMITERS.get(self.delimiter, self.delimiter)
        return f"{delimiter}, {f'quotes {self.quote}' if self.quote else 'no quotes'}, {self.encoding}"

    @property
    def width(self) -> int:
        """Bytes of a line break, and what all lengths are multiples of."""
        return _WIDE.get(self.encoding, 1)

    @property
    def mark(self) -> bytes:
        """The byte order mark with which a file in this encoding may begin."""
        return next((mark for mark, name in BYTE_ORDER_MARKS if name == self.encoding), b"")

    @property
    def line_break(self) -> bytes:
        """The end of a line in the file."""
        return "\n".encode(self.encoding)

    def rows(self, lines: Iterable[str]) -> Any:
        """`csv.reader` over lines."""
        if not self.quote:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)


USUAL = Dialect(",", '"', "utf-8")


def encoding_name(value: Any) -> str:
    """The one name of an encoding that is called by any of its names.

    Raises:
        ValueError: There is none, or one in which commas and line breaks are not where ASCII has them.
    """
    name = str(value).strip().lower()
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        usable = {alias.replace("_", "-") for alias, of in _charsets().items() if of in _WIDE or _contains_ascii(of)}
        near = get_close_matches(re.sub(r"[\s_-]+", "-", name), [*_OFFICE, *sorted(usable)], n=1, cutoff=0.5)
        meant = _OFFICE.get(near[0], near[0]) if near else None
        hint = f"; did you mean '{meant}'?" if meant else "; write utf-8, utf-16, cp1252 or latin-1"
        raise ValueError(f"there is no encoding '{value}'{hint}") from None
    if found.name in _WIDE:
        return found.name
    if found.name not in _charsets().values() or not _contains_ascii(found.name):
        raise ValueError(f"files in '{value}' cannot be read, because it does not contain ASCII; convert them to utf-8")
    return {"utf-8-sig": "utf-8", "iso8859-1": "latin-1"}.get(found.name, found.name)


def _charsets() -> dict[str, str]:
    """Every name of every character set that Python knows -> the one by which its codec calls itself."""
    found = {}
    for alias in {*aliases, *aliases.values(), "utf-8-sig"}:
        with suppress(LookupError):  # some names lead to what only Windows has
            found[alias] = codecs.lookup(alias).name
    return found


def _contains_ascii(encoding: str) -> bool:
    """Whether ASCII's bytes mean in it what they mean in ASCII, and nothing else, wherever they stand."""
    try:
        if _ASCII.decode(encoding) != _ASCII.decode("ascii"):
            return False
    except (UnicodeError, LookupError):
        return False
    for char in "éжあ漢한":
        with suppress(UnicodeError):
            if char.encode(encoding).isascii():  # shifted to another set by escapes, as in ISO 2022
                return False
    return True
