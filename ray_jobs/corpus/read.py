"""Read documents by ranges of rows; a row that cannot be parsed or used becomes a document with an `error`.

Every row gives exactly one document, in order, so no row is ever missing. A file that is not what the scan saw is
refused. Finding the records in the files is left to `slices`, parsing them to `featurestore.tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError
from featurestore.finding.files import IMAGE
from featurestore.tables.images import ImageFile, document_image
from featurestore.tables.record import Record, Wanted
from featurestore.tables.values import document_id, document_text, document_turns, stored_value
from ray_jobs.corpus.slices import Slice, changed, records_of
from ray_jobs.images.spool import Spool, SpooledImage

if TYPE_CHECKING:
    from featurestore.finding.files import SourceFile
    from ray_jobs.corpus.spill import Spill
    from ray_jobs.spec import CorpusSpec


@dataclass(frozen=True)
class DocumentRows:
    """Documents in input order; all lists have one entry per row.

    Attributes:
        doc_id: The given id, or "{file name}:{row}" where none is given or it cannot be used.
        text: None exactly where `error` is set; of images the prompt, "" where they have none.
        keep: Kept column -> values of its type, or None.
        error: Why the row cannot be used, in one sentence, or None.
        image: Encoded bytes of an image, or where they are; None where `error` is set. No entries in a corpus of texts.
    """

    doc_id: list[str]
    text: list[str | None]
    keep: dict[str, list[Any]]
    error: list[str | None]
    image: list[bytes | ImageFile | SpooledImage | None] = field(default_factory=list)


def read_rows(
    parts: Sequence[Slice], corpus: CorpusSpec, keep_types: Mapping[str, str], spill: Spill | None = None
) -> DocumentRows:
    """The documents of some slices, one per row, in order.

    Args:
        parts: From `slices`.
        corpus: The spec that was scanned.
        keep_types: From the scan.
        spill: Keeps compressed files decompressed; without it they are read from their start.

    Raises:
        CorpusError: A file is gone, unreadable, or has changed since it was scanned.
    """
    (rows,) = read_batches(parts, corpus, keep_types, spill=spill)
    return rows


def read_batches(
    parts: Sequence[Slice],
    corpus: CorpusSpec,
    keep_types: Mapping[str, str],
    most: int | None = None,
    characters: int | None = None,
    spill: Spill | None = None,
) -> Iterator[DocumentRows]:
    """The documents of `read_rows`, some at a time: `most`, or texts of so many characters.

    All at once if neither is given. The last batch may be without rows.
    """
    wanted = Wanted(corpus.text, corpus.id, corpus.keep, corpus.image, corpus.messages is not None)
    out, size = DocumentRows([], [], {name: [] for name in corpus.keep}, []), 0
    spool = Spool()
    for part in parts:
        row = part.first_row
        for record in records_of(part, wanted, spill):
            doc_id, text, error, _ = document_of(record, corpus.text, corpus.id, wanted.turns)
            for name, raw in zip(corpus.keep, record.keep, strict=True):
                kept_type = keep_types[name]
                try:
                    value, _ = stored_value(raw, kept_type, name)  # what cannot be kept is null; the scan says so
                except (ValueError, OverflowError, TypeError):
                    raise CorpusError(changed(part.file, f"column '{name}' is no longer {kept_type}")) from None
                out.keep[name].append(value)
            if corpus.image is not None:
                image, problem = document_image(record.image, corpus.image, part.file) if not error else (None, error)
                text, error = (None, problem) if problem else (text, None)
                out.image.append(spool.keep(image) if isinstance(image, bytes) else image)
            out.doc_id.append(doc_id if doc_id is not None else row_id(part.file, row))
            out.text.append(text)
            out.error.append(error)
            row += 1
            size += len(text or "")
            if len(out.doc_id) == most or (characters is not None and size >= characters):
                yield out
                out, size = DocumentRows([], [], {name: [] for name in corpus.keep}, []), 0
        if row != part.first_row + part.n_rows:
            raise CorpusError(changed(part.file, f"it ends at row {row}"))
    yield out


def row_id(file: SourceFile, row: int) -> str:
    """The id of a row that has none of its own."""
    return file.name if file.format == IMAGE else f"{file.name}:{row}"


def document_of(
    record: Record, text: str | None, id: str | None, turns: bool = False
) -> tuple[str | None, str | None, str | None, str]:
    """Turn a row into a document: (id, text, error, key of JOB.yaml that may be to blame).

    Either there is a text or there is an error. A row that could not be parsed comes with the parser's error.

    Args:
        record: The row.
        text: The column that holds the text; without one it is empty.
        id: The column that holds the id, if there is one.
        turns: Whether the text is a conversation of several turns; it becomes JSON.
    """
    doc_id, id_error = document_id(record.id, id)
    found, text_error = ("", None) if text is None else (document_turns if turns else document_text)(record.text, text)
    if record.error:
        is_encoding = record.error.startswith("the row is not ") and "CSV" not in record.error
        return doc_id, None, record.error, "corpus.csv.encoding" if is_encoding else "corpus.format"
    if id_error:
        return doc_id, None, id_error, "corpus.id"
    return doc_id, found, text_error, "corpus.messages" if turns else "corpus.text"
