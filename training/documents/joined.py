"""Join labels and texts from tables outside the store to its documents, by id.

The table is read as a corpus is (`featurestore.tables`), ids compare as everywhere, and what a reader of the study must
know (rows that cannot be read, ids that match only as numbers or not at all) becomes a note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featurestore.base.number_words import counted
from featurestore.errors import StudyError, TableError
from featurestore.tables.same_value import IdMatch, cut, examples, match_ids
from featurestore.tables.table import Ids, Table, read_table, table_ids
from training.spec import TableColumn

if TYPE_CHECKING:
    import polars as pl


def joined_column(source: TableColumn, doc_ids: pl.Series, key: str, notes: list[str]) -> tuple[Table, list[Any]]:
    """The values of a column for documents.

    Args:
        source: Which column of which table.
        doc_ids: Of the N documents.
        key: Of STUDY.yaml, for messages.
        notes: Sentences are added here.

    Returns:
        The table, and N values as they stand there, None where it has none.

    Raises:
        StudyError: The table cannot be read, has an id twice, or none that is a document's.
    """
    try:
        table = read_table(source.path, [source.column], id=source.id, csv=source.csv)
        ids = table_ids(table, source.id)
    except TableError as exc:
        raise StudyError(f"{key}: {exc}") from None
    if not len(ids.text):
        raise StudyError(f"{key}: {table.name} holds no row; give a table with a row for each document")
    there = ids.text.drop_nulls()
    if there.n_unique() < len(there):
        twice = there.filter(there.is_duplicated()).sort()[0]
        raise StudyError(
            f"{key}: {table.name}: id '{cut(twice)}' stands there more than once; keep one row for each document"
        )
    found = match_ids(doc_ids, ids.text)
    if found.clash:
        raise StudyError(f"{key}: {table.name}: {found.clash}; write each id there and in the store in one way")
    if not (found.row >= 0).any():
        looks = ids.first_unusable if not len(there) else examples(doc_ids, there, "the store")
        raise StudyError(
            f"{key}: {table.name}: no value of '{source.id}' is a doc_id of the store"
            f"{f' ({looks})' if looks else ''}; name the right column, or write ids alike"
        )
    said = [*table.notes(), *(f"{table.name}: {note}" for note in _match_notes(doc_ids, ids, found))]
    notes += [f"{key}: {note}" for note in said]
    values: list[Any] = [None] * len(doc_ids)
    for row, value in zip(found.row.tolist(), table.columns[source.column], strict=True):
        if row >= 0:
            values[row] = value
    return table, values


def _match_notes(doc_ids: pl.Series, ids: Ids, found: IdMatch) -> list[str]:
    """What is not as one expects of a table's ids."""
    notes = [ids.note] if ids.note else []
    if found.as_numbers:
        pairs = ((text, doc_ids[row]) for text, row in zip(ids.text, found.row.tolist(), strict=True) if row >= 0)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        notes.append(
            f"{counted(found.as_numbers, 'id')} the same only as numbers ('{theirs}' is '{ours}' in the store)"
        )
    strangers = ids.text.filter(found.row < 0).drop_nulls()
    if len(strangers):
        some = cut(strangers[0])
        notes.append(f"{len(strangers):,} of {counted(len(ids.text), 'id')} are of no document of the store ('{some}')")
    return notes
