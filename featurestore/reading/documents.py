"""Select documents by id or by what is known of them, and join other tables to them by id.

Ids decide, never the order of rows, and what one side of a join lacks is reported, not dropped in silence. When two ids
are the same is left to `tables.same_value`, reading metadata to `metadata`; features never pass through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.number_words import first_line
from featurestore.errors import StoreError, TableError
from featurestore.storage.files import shown
from featurestore.tables.keyed import id_texts, kept_series, keyed
from featurestore.tables.same_value import IdMatch, cut, examples, match_ids

if TYPE_CHECKING:
    import polars as pl

    from featurestore.reading.open_store import OpenStore


@dataclass(frozen=True)
class IdReport:
    """What two sets of ids do not share.

    Attributes:
        missing: object array of strings: ids of the store that the other side lacks, in the store's order.
        extra: object array of strings: ids of the other side that the store lacks, in the other's order.
        notes: Rows and values of a table that could not be used, in sentences.
    """

    missing: np.ndarray
    extra: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether both sides have the same ids."""
        return not len(self.missing) and not len(self.extra)

    def __str__(self) -> str:
        parts = [
            f"{len(ids):,} {what} ('{ids[0]}'{', ...' if len(ids) > 1 else ''})"
            for ids, what in ((self.missing, "missing"), (self.extra, "extra"))
            if len(ids)
        ]
        return "; ".join([" and ".join(parts) or "the same ids", *self.notes])


def stored_ids(store: OpenStore) -> pl.Series:
    """The ids of a store's documents, in input order."""
    return store.documents().select("doc_id").collect()["doc_id"]


def row_mask(store: OpenStore, rows: pl.Expr | np.ndarray) -> np.ndarray:
    """bool [len(store)]: a row selection, applied; null is no.

    Raises:
        StoreError: The expression cannot be applied to `documents()`, or the booleans are not one for each document.
    """
    if isinstance(rows, np.ndarray | list):
        given = np.asarray(rows)
        if given.dtype != bool or given.shape != (len(store),):
            raise StoreError(
                f"rows must be a polars expression or {len(store):,} booleans, one for each document of "
                f"{shown(store.uri)}, not {given.dtype} of shape {given.shape}"
            )
        return given
    import polars as pl

    if not isinstance(rows, pl.Expr):
        raise StoreError(f"rows must be a polars expression or booleans, not {type(rows).__name__}")
    documents = store.documents()
    names = documents.collect_schema().names()
    number = "row" + "_" * max(map(len, names))  # longer than every column's name, so none is called so
    try:
        chosen = documents.with_row_index(number).filter(rows).select(number).collect()
    except pl.exceptions.PolarsError as exc:
        reason = f"rows cannot be selected in {shown(store.uri)} ({first_line(exc)})"
        raise StoreError(f"{reason}; its columns are: {', '.join(names)}") from None
    mask = np.zeros(len(store), dtype=bool)
    mask[chosen[number].to_numpy()] = True
    return mask


def row_positions(store: OpenStore, doc_id: Iterable[object]) -> np.ndarray:
    """int64 [K]: the row of each id, in the order asked for.

    Raises:
        StoreError: An id is not there, or is nothing that an id can be.
    """
    try:
        wanted = id_texts(doc_id)
    except TypeError as exc:
        raise StoreError(f"ids are text or numbers, not {exc}") from None
    found = match_ids(stored_ids(store), wanted)
    if found.clash:
        raise StoreError(f"{found.clash} in {shown(store.uri)}; ask for ids as `documents()` has them")
    if absent := wanted.filter(found.row < 0).unique(maintain_order=True).to_list():
        first = "(null)" if absent[0] is None else f"'{cut(absent[0])}'"
        more = f" (nor {len(absent) - 1:,} more of these ids)" if len(absent) > 1 else ""
        raise StoreError(
            f"no document {first}{more} in {shown(store.uri)}; `documents()` and `show` list the ids there are"
        )
    return found.row


def id_report(ours: pl.Series, theirs: pl.Series, found: IdMatch) -> IdReport:
    """What `found`, a match of two columns of ids, leaves over."""
    met = np.zeros(len(ours), dtype=bool)
    met[found.row[found.row >= 0]] = True
    return IdReport(missing=ours.filter(~met).to_numpy(), extra=theirs.filter(found.row < 0).to_numpy())


def match_table(store: OpenStore, table: Any, key: str) -> tuple[pl.DataFrame, IdReport]:
    """The rows of a table that belong to documents, with their ids as `doc_id`; see `FeatureStore.join`."""
    import polars as pl

    where = shown(store.uri)
    try:
        given = keyed(table, key)
    except TableError as exc:
        raise StoreError(f"join: {exc}") from None
    theirs, columns = given.ids, given.columns
    taken = store.documents().collect_schema().names()
    if clash := [name for name in columns if name in taken]:
        raise StoreError(f"join: {where} has a column '{clash[0]}' already; rename the table's")
    if (doubled := theirs.is_duplicated() & theirs.is_not_null()).any():
        twice = theirs.filter(doubled).sort()[0]
        raise StoreError(f"join: id '{twice}' stands in the table more than once; keep one row for each document")
    ids = stored_ids(store)
    found = match_ids(ids, theirs)
    if found.clash:
        raise StoreError(f"join: {found.clash}; write each id of the table and of {where} in one way")
    met = found.row >= 0
    if len(ids) and not met.any():
        looks = examples(ids, theirs, "the store")
        raise StoreError(
            f"join: no value of '{key}' is a doc_id of {where} ({looks}); name the right column, or write ids alike"
        )
    notes = list(given.notes)
    kept = [kept_series(name, column, notes).filter(met) for name, column in columns.items()]
    there = theirs.is_not_null()
    report = id_report(ids, theirs.filter(there), replace(found, row=found.row[there.to_numpy()]))
    return pl.DataFrame([ids.gather(found.row[met]).alias("doc_id"), *kept]), replace(report, notes=tuple(notes))
