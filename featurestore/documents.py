"""Documents by id and by what is known of them: metadata as a polars frame, row selections, joins with other tables.

Ids decide, never the order of rows, and what one side of a join lacks is reported, not dropped in silence. Metadata
goes through polars, which reads flat columns lazily; features never pass through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from featurestore.errors import StoreError
from featurestore.files import shown

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


def stored_documents(store: FeatureStore, paths: list[str] | None) -> pl.LazyFrame:
    """The metadata columns of a store's parts, lazily from local files; see `FeatureStore.documents`."""
    import polars as pl

    if paths:
        return pl.scan_parquet(paths, glob=False).select(store.metadata_columns)
    schema = pa.schema([store.schema.arrow_schema().field(name) for name in store.metadata_columns])
    batches = [batch.select(store.metadata_columns) for _, _, batch in store.groups(store.metadata_columns)]
    frame = pl.from_arrow(pa.Table.from_batches(batches, schema=schema))
    return frame.to_frame().lazy() if isinstance(frame, pl.Series) else frame.lazy()


def collect(store: FeatureStore, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of `documents()`, read; StoreError if a part cannot be."""
    import polars as pl

    try:
        return store.documents().select(columns).collect()
    except (OSError, pl.exceptions.PolarsError) as exc:
        reason = f"{shown(store.uri)}: a part cannot be read ({_first_line(exc)}); run verify to see which"
        raise StoreError(reason) from None


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
    except (OSError, pl.exceptions.PolarsError) as exc:
        reason = f"rows cannot be selected in {shown(store.uri)} ({_first_line(exc)})"
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
    ids = collect(store, ["doc_id"])["doc_id"]
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
        raise StoreError(f"join: the table cannot be read ({_first_line(exc)}); check it") from None
    if key not in frame.columns:
        raise StoreError(f"join: the table has no column '{key}'; it has: {', '.join(frame.columns)}")
    if frame[key].dtype.is_nested():
        raise StoreError(f"join: column '{key}' holds lists, not ids; name another")
    taken = store.documents().collect_schema().names()
    if clash := [name for name in frame.columns if name != key and name in taken]:
        raise StoreError(f"join: {where} has a column '{clash[0]}' already; rename the table's")
    frame = frame.with_columns(pl.col(key).cast(pl.String)).rename({key: "doc_id"}).drop_nulls("doc_id")
    if (doubled := frame["doc_id"].is_duplicated()).any():
        twice = frame["doc_id"].filter(doubled).sort()[0]
        raise StoreError(f"join: id '{twice}' stands in the table more than once; keep one row for each document")
    ids = collect(store, ["doc_id"])["doc_id"]
    matched = frame.filter(frame["doc_id"].is_in(ids.implode()))
    if len(ids) and not len(matched):
        raise StoreError(f"join: no value of '{key}' is a doc_id of {where}; name the right column")
    return matched, compare_ids(ids, frame["doc_id"])


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
