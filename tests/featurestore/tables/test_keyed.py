"""Tables and ids in memory, of whichever library."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore.errors import TableError
from featurestore.tables.keyed import columns_of, id_texts, kept_series


def frames() -> list[Any]:
    data: dict[str, Any] = {
        "id": [1, 2],
        "word": ["a", None],
        "score": [0.5, 1.0],
        "day": pd.to_datetime(["2024-05-01"] * 2),
    }
    frame = pd.DataFrame(data)
    arrow = pa.Table.from_pandas(frame)
    polars = pl.from_arrow(arrow)
    assert isinstance(polars, pl.DataFrame)
    return [frame, frame.set_index("id"), arrow, arrow.to_batches()[0], polars, polars.lazy()]


@pytest.mark.parametrize("table", frames(), ids=lambda table: f"{type(table).__module__}.{type(table).__name__}")
def test_a_table_in_memory_may_be_of_any_library(table: Any) -> None:
    columns = columns_of(table)
    assert list(columns) == ["id", "word", "score", "day"]
    assert id_texts(columns["id"]).to_list() == ["1", "2"]
    series = {name: kept_series(name, column, []) for name, column in columns.items()}
    assert series["word"].to_list() == ["a", None] and series["score"].to_list() == [0.5, 1.0]
    assert series["day"].dtype.is_temporal()


def test_columns_that_polars_has_no_type_for_are_kept_as_a_store_keeps_them() -> None:
    zoned = pa.array([0], pa.timestamp("us", "Eastern Standard Time"))
    mixed = pd.Series([1, "a", None, [1]], dtype=object)
    assert kept_series("x", pa.chunked_array([zoned]), []).to_list() == ["1970-01-01 00:00:00Z"]
    assert kept_series("x", mixed, []).to_list() == ["1", "a", None, "[1]"]
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16)))
    assert kept_series("x", pa.chunked_array([uuids]), []).to_list() == ["00000000-0000-0000-0000-000000000000"]


def test_dates_beyond_pythons_years_are_text_for_polars_cannot_show_them() -> None:
    far = pa.chunked_array([pa.array([0, 4_000_000], pa.int32()).cast(pa.date32())])
    assert kept_series("x", far, []).to_list() == ["1970-01-01", "12921-08-18"]


def test_values_that_cannot_be_kept_are_null_and_noted() -> None:
    notes: list[str] = []
    assert kept_series("x", pd.Series([1, object(), 2j], dtype=object), notes).to_list() == ["1", None, None]
    (note,) = notes
    assert note == (
        "column 'x': 2 values null that cannot be kept (row 1, the value of 'x' is among values of type object)"
    )


@pytest.mark.parametrize("table", [None, 5, [1, 2], {"id": [1]}])
def test_what_is_no_table_is_named(table: Any) -> None:
    with pytest.raises(TableError, match=f"a table is one of polars, .*, not {type(table).__name__}"):
        columns_of(table)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(TableError, match="2 columns named 'a'"):
        columns_of(pd.DataFrame([[1, 2]], columns=["a", "a"]))
