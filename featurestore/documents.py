"""Documents by id and by what is known of them: row selections, positions, joins with other tables.

Ids decide, never the order of rows, and what one side of a join lacks is reported, not dropped in silence. Metadata
goes through polars (`metadata`); features never pass through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurestore.errors import StoreError
from featurestore.files import shown
from featurestore.nearest import did_you_mean
from featurestore.wording import first_line

if TYPE_CHECKING:
    import polars as pl

    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class IdReport:
    """What two sets of ids do not share.

    Attributes:
        missing: object array of strings: ids of the store that the other side lacks, in the store's order.
        extra: object array of strings: ids of the other side that the store lacks, in the other's order.
    """

    missing: np.ndarray
    extra: np.ndarray

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
        return " and ".join(parts) or "the same ids"


def stored_ids(store: FeatureStore) -> pl.Series:
    """The ids of a store's documents, in input order."""
    return store.documents().select("doc_id").collect()["doc_id"]


def row_mask(store: FeatureStore, rows: pl.Expr | np.ndarray) -> np.ndarray:
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


def row_positions(store: FeatureStore, doc_id: Iterable[str]) -> np.ndarray:
    """int64 [K]: the row of each id, in the order asked for.

    Raises:
        StoreError: An id is not there.
    """
    import polars as pl

    wanted = list(doc_id)
    ids = stored_ids(store)
    at = np.flatnonzero(ids.is_in(pl.Series(wanted, dtype=pl.String).unique().implode()).to_numpy())
    row = dict(zip(ids.gather(at).to_list(), at.tolist(), strict=True))
    if absent := [text for text in dict.fromkeys(wanted) if text not in row]:
        more = f" (nor {len(absent) - 1:,} more of these ids)" if len(absent) > 1 else ""
        raise StoreError(
            f"no document '{absent[0]}'{more} in {shown(store.uri)}; `documents()` and `show` list the ids there are"
        )
    return np.array([row[text] for text in wanted], dtype=np.int64)


def compare_ids(ours: pl.Series, theirs: pl.Series) -> IdReport:
    """What two columns of unique ids do not share."""
    return IdReport(
        missing=ours.filter(~ours.is_in(theirs.implode())).to_numpy(),
        extra=theirs.filter(~theirs.is_in(ours.implode())).to_numpy(),
    )


def match_table(store: FeatureStore, table: pl.DataFrame | pl.LazyFrame, key: str) -> tuple[pl.DataFrame, IdReport]:
    """The rows of a table that belong to documents, with their ids as `doc_id`; see `FeatureStore.join`."""
    import polars as pl

    where = shown(store.uri)
    try:
        frame = table.lazy().collect()
    except (OSError, pl.exceptions.PolarsError) as exc:
        raise StoreError(f"join: the table cannot be read ({first_line(exc)}); check it") from None
    if key not in frame.columns:
        hint = did_you_mean(key, frame.columns)
        raise StoreError(f"join: the table has no column '{key}'; it has: {', '.join(frame.columns)}{hint}")
    if frame[key].dtype.is_nested():
        raise StoreError(f"join: column '{key}' holds lists, not ids; name another")
    taken = store.documents().collect_schema().names()
    if clash := [name for name in frame.columns if name != key and name in taken]:
        raise StoreError(f"join: {where} has a column '{clash[0]}' already; rename the table's")
    frame = frame.with_columns(pl.col(key).cast(pl.String)).rename({key: "doc_id"}).drop_nulls("doc_id")
    if (doubled := frame["doc_id"].is_duplicated()).any():
        twice = frame["doc_id"].filter(doubled).sort()[0]
        raise StoreError(f"join: id '{twice}' stands in the table more than once; keep one row for each document")
    ids = stored_ids(store)
    matched = frame.filter(frame["doc_id"].is_in(ids.implode()))
    if len(ids) and not len(matched):
        raise StoreError(f"join: no value of '{key}' is a doc_id of {where}; name the right column")
    return matched, compare_ids(ids, frame["doc_id"])
