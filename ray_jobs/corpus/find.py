"""Find single documents of a corpus whose store is there, without scanning the corpus again.

The store's identity says which files there were, with their sizes and rows, in order; so the row of a document tells
its file and its place in it. Parquet decodes one row group for it, text files are read up to the row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile, look_up
from featurestore.tables.arrays import told_apart
from featurestore.tables.csv_head import with_dialect
from featurestore.tables.json_and_csv import csv_header
from featurestore.tables.parquet import open_parquet, parquet_groups
from featurestore.tables.record import Wanted, decompressed, open_raw, refusals
from ray_jobs.corpus.read import document_of
from ray_jobs.corpus.slices import Slice, changed, records_of

if TYPE_CHECKING:
    from ray_jobs.spec import CorpusSpec


def find_texts(
    corpus: CorpusSpec, files: Sequence[Mapping[str, Any]], rows: Sequence[int], doc_ids: Sequence[str]
) -> list[str]:
    """The texts of some documents, in the order asked for.

    Args:
        corpus: The spec that the store was made from.
        files: Name, size and rows of each file, in order, as the store's identity has them.
        rows: Global row of each document.
        doc_ids: Their ids, as the store has them.

    Raises:
        CorpusError: A file is gone or has changed, or a row is no longer the document's.
    """
    if corpus.image is not None:
        raise CorpusError("its documents are images, and tokens can be shown of texts only")
    there = {file.name: file for file in look_up(corpus.path, corpus.format).files}
    starts = list(accumulate((int(file["rows"]) for file in files), initial=0))
    by_file: dict[int, dict[int, int]] = {}  # file -> row in it -> place in the answer
    for place, row in enumerate(rows):
        number = bisect_right(starts, row) - 1
        by_file.setdefault(number, {})[row - starts[number]] = place
    texts = [""] * len(rows)
    for number, places in sorted(by_file.items()):
        name, size = str(files[number]["name"]), files[number]["size"]
        file = there.get(name)
        if file is None:
            raise CorpusError(f"the corpus no longer has its file {name}; put it back or set corpus.path")
        if None not in (file.size, size) and file.size != size:
            raise CorpusError(changed(file, f"{file.size} bytes instead of {size}"))
        for row, doc_id, text in _rows(file, corpus, places):
            place = places[row]
            if text is None or doc_id not in (None, doc_ids[place]):
                raise CorpusError(changed(file, f"row {row} is no longer the document '{doc_ids[place]}'"))
            texts[place] = text
    return texts


def _rows(
    file: SourceFile, corpus: CorpusSpec, rows: Mapping[int, Any]
) -> Iterator[tuple[int, str | None, str | None]]:
    """(row, id if the corpus has ids, text) of some rows of a file."""
    wanted = Wanted(corpus.text, corpus.id, turns=corpus.messages is not None)
    if file.format == "parquet":
        with refusals(file), ExitStack() as stack:
            groups = parquet_groups(open_parquet(file, stack))
        within = [[row for row in rows if first <= row < first + n] for first, n in groups]
        parts = [Slice(file, min(own), max(own) - min(own) + 1) for own in within if own]
    else:
        file = with_dialect(file, corpus.csv, wanted.settings())
        header = csv_header(file) if file.format == "csv" else ()
        with refusals(file), ExitStack() as stack:
            file, _ = told_apart(file, decompressed(open_raw(file, stack), file, stack))
        parts = [Slice(file, 0, max(rows) + 1, header)]
    n_found = 0
    for part in parts:
        for row, record in enumerate(records_of(part, wanted), part.first_row):
            if row in rows:
                doc_id, text, _, _ = document_of(record, corpus.text, corpus.id, wanted.turns)
                n_found += 1
                yield row, doc_id, text
    if n_found < len(rows):
        raise CorpusError(changed(file, "it has fewer rows"))
