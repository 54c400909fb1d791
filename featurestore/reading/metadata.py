"""Give the documents' metadata as a polars LazyFrame over the parts of a store.

polars is asked what it needs (columns, a filter, so many rows) and gets it row group by row group from `parts`, as
every other reader of a store does: bounded by `guard`, checked against its checksums, on disks and object stores alike.
polars' own Parquet reader would read local files in parallel, but believes what a part promises and ends in an error
of its own where a part is damaged. Nothing is read before a frame is collected, and then only the columns that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from featurestore.format.schema import StoreSchema
from featurestore.reading.parts import Parts

if TYPE_CHECKING:
    import polars as pl


def metadata_frame(parts: Parts, schema: StoreSchema) -> pl.LazyFrame:
    """The metadata of all rows of `parts`, in input order.

    Collecting it raises StoreError, naming the part, where one is damaged or another job's.
    """
    from polars.io.plugins import register_io_source

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = names if columns is None else columns or names[:1]
        for _, _, batch in parts.groups(wanted):
            frame = _to_polars(batch.select(wanted))
            if n_rows is not None:  # the first so many rows, of which the filter then keeps some
                frame = frame.head(n_rows)
                n_rows -= len(frame)
            if columns == []:  # only how many rows there are: a frame without columns has a height, too
                frame = frame.drop(wanted)
            yield frame if predicate is None else frame.filter(predicate)
            if n_rows == 0:
                return

    names, arrow = schema.metadata_columns, schema.arrow_schema()
    empty = _to_polars(pa.schema([arrow.field(name) for name in names]).empty_table())
    return register_io_source(read, schema=empty.schema, is_pure=True, explain_name="parts")


def exact_columns(frame: pl.LazyFrame, names: Sequence[str]) -> dict[str, pl.Series]:
    """Name -> column, in this order, by these names and nothing else.

    Wherever polars takes a name (`select`, `col`, `frame[name]`), it reads `*` and `^...$` as patterns, and users have
    columns that are called so. The columns themselves have no name, because methods of a Series go by it, too.
    """
    from polars import selectors

    found = frame.select(selectors.by_name(*names)).collect()
    return {column.name: column.alias("") for column in found.get_columns()}


def _to_polars(rows: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame
