"""How a CSV file is written: what separates its fields, how they are quoted, and in which encoding.

What a user sets is taken; the rest is read off the beginning of the file, and only where the file proves it. A byte
order mark is proof of an encoding, otherwise it is UTF-8. Commas separate, tabs in a `.tsv`; where the header has none
of them and one of `;`, tab or `|` instead, that does. Quotes are RFC 4180's, but between tabs they are text, because
most writers of such files quote nothing: unless the header is quoted, or rows fit the header only with quotes.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from encodings.aliases import aliases
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from featurestore.errors import CorpusError
from featurestore.tables.files import SourceFile
from featurestore.tables.record import decompressed, open_raw, refusals

HEAD_BYTES = 1 << 20  # that a dialect is read off: some hundred to some thousand rows
NO_QUOTES = "none"
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "blank"}
_MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
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
        return next((mark for mark, name in _MARKS if name == self.encoding), b"")

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


def with_dialect(file: SourceFile, given: CsvSpec | None, wanted: Collection[str] = ()) -> SourceFile:
    """A file that knows how it is written; one that is no CSV file as it is.

    Args:
        file: The file.
        given: What the user says.
        wanted: Columns that it should have.

    Raises:
        CorpusError: It cannot be read, or only in an encoding that has to be given.
    """
    if file.format != "csv" or file.dialect is not None:
        return file
    with refusals(file), ExitStack() as stack:
        stream, head = decompressed(open_raw(file, stack), file, stack), b""
        while len(head) < HEAD_BYTES and (block := stream.read(HEAD_BYTES - len(head))):
            head += block
    return replace(file, dialect=_dialect_of(head, file, given or CsvSpec(), wanted))


def _dialect_of(head: bytes, file: SourceFile, given: CsvSpec, wanted: Collection[str]) -> Dialect:
    encoding = _encoding_of(head, file, given.encoding)
    lines = [f"{line}\n" for line in head.decode(encoding, "replace").removeprefix("\ufeff").split("\n")]
    if len(head) == HEAD_BYTES:
        lines.pop()  # only a part of it is here
    header = next((line for line in lines if line.strip()), "")
    quote = given.quote or '"'
    usual = "\t" if file.is_tsv else ","
    delimiter = given.delimiter or _delimiter_of(header, '"' if quote == NO_QUOTES else quote, usual, wanted)
    if given.quote is None and delimiter == "\t" and not _needs_quotes(lines, len(head) == HEAD_BYTES):
        quote = NO_QUOTES
    return Dialect(delimiter, "" if quote == NO_QUOTES else quote, encoding)


def _encoding_of(head: bytes, file: SourceFile, given: str | None) -> str:
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    even, odd = head[::2].count(0), head[1::2].count(0)
    order = "be" if even > odd else "le"
    if given in ("utf-16", "utf-32"):
        return f"{given}-{order}"
    if given is None and max(even, odd) > len(head) / 4 and min(even, odd) < len(head) / 100:  # as of mostly ASCII
        raise CorpusError(
            f"{file.uri} has a zero in every other byte and no byte order mark; set csv.encoding, to utf-16-{order} if "
            "it is UTF-16"
        )
    return given or "utf-8"


def _delimiter_of(header: str, quote: str, usual: str, wanted: Collection[str]) -> str:
    """The usual one, unless the header has none of it and one other instead."""
    unquoted = re.sub(f"{re.escape(quote)}.*?{re.escape(quote)}", "", header)
    others = [char for char in ",;\t|" if char in unquoted]
    if usual in unquoted or len(others) != 1 or header.strip().strip(quote) in wanted:
        return usual
    return others[0]


def _needs_quotes(lines: Sequence[str], is_part: bool) -> bool:
    """Whether rows between tabs can only be meant with quotes, and all of them can."""
    filled = [line.rstrip("\r\n").split("\t") for line in lines if line.strip()]
    if not filled:
        return False
    is_quoted_header = all(len(name) > 1 and name[0] == name[-1] == '"' for name in filled[0])
    misfits = [i for i, fields in enumerate(filled) if len(fields) != len(filled[0])]
    if not is_quoted_header and not misfits:
        return False
    csv.field_size_limit(max(csv.field_size_limit(), HEAD_BYTES))
    reader = Dialect("\t", '"', "utf-8").rows(lines)
    n_read = 0
    try:
        for row in reader:
            if row and len(row) != len(filled[0]):
                return False
            n_read = reader.line_num
    except csv.Error as error:
        # The last row may go on behind the part; one that has swallowed half of it, or what was to be proved, does not.
        is_cut = is_part and "end of data" in str(error) and n_read > len(lines) // 2
        return is_cut and (is_quoted_header or misfits[0] < n_read)
    return True
