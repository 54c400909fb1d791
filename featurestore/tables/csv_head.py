"""Read off a CSV file's beginning how it is written, and only where the file proves it.

A byte order mark is proof of an encoding, otherwise it is UTF-8. Commas separate, tabs in a `.tsv`; where the header
has none of them and one of `;`, tab or `|` instead, that does. Quotes are RFC 4180's, but between tabs they are text,
because most writers of such files quote nothing: unless the header is quoted, or rows fit the header only with quotes.
What a user says of the file is taken as it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace

from featurestore.errors import CorpusError
from featurestore.finding.dialect import BYTE_ORDER_MARKS, NO_QUOTES, CsvSpec, Dialect
from featurestore.finding.files import SourceFile
from featurestore.tables.record import decompressed, open_raw, refusals

HEAD_BYTES = 1 << 20  # that a dialect is read off: some hundred to some thousand rows


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
    marked = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), None)
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
