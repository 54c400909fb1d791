"""Put documents beside what the engine found in them, as rows of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.format.rows import PartRows, SparseColumn

if TYPE_CHECKING:
    from ray_jobs.corpus.read import DocumentRows
    from ray_jobs.engine.extractor import ExtractedRows


def part_rows(documents: DocumentRows, extracted: ExtractedRows) -> PartRows:
    """Put what the corpus knows of the documents beside what the engine found; N rows both."""
    return PartRows(
        doc_id=documents.doc_id,
        keep=documents.keep,
        n_tokens=extracted.n_tokens,
        truncated=extracted.truncated,
        error=extracted.errors,
        sparse={
            name: SparseColumn(indptr=rows.indptr, indices=rows.indices, values=rows.values)
            for name, rows in extracted.saes.items()
        },
        dense=extracted.dense,
    )
