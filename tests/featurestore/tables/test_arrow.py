"""Every Arrow type, and what becomes of it as an id, a kept column, a class and a text."""

from __future__ import annotations

import datetime
import json
import math
import uuid
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import CorpusError
from featurestore.finding.files import find_files
from featurestore.tables.arrow import FAMILY_OF_TYPE, TREATMENTS, family_of, python_values
from featurestore.tables.keyed import id_texts
from featurestore.tables.parquet import number_kinds, open_parquet, parquet_kinds, parquet_records
from featurestore.tables.record import Unusable, Wanted
from featurestore.tables.same_value import class_texts
from featurestore.tables.values import column_type, document_id, document_text, kind_of, stored_value

REFUSED = "refused"
MOMENT = 1_714_566_600  # 2024-05-01 12:30:00 in UTC
UUID = uuid.UUID("20c9d79c-89f8-4f30-95f7-b1ceb9dae03f")
UNION = (pa.array([0, 1], pa.int8()), [pa.array([7, 0]), pa.array(["x", "ü"])])


class Case(NamedTuple):
    """A column of one value and a null, and what that value becomes; REFUSED where the column or the value is."""

    column: pa.Array
    id: str | None
    kept: Any
    label: str | None
    text: str | None = REFUSED


def one(value: Any, kind: pa.DataType, **plain: Any) -> pa.Array:
    return pa.array([value, None], kind)


def cast(value: Any, plain: pa.DataType, kind: pa.DataType) -> pa.Array:
    return pa.array([value, None], plain).cast(kind)


def extension(kind: pa.DataType, value: Any) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array([value, None], kind.storage_type))


def same(column: pa.Array, text: str, kept: Any = None) -> Case:
    """The same text in every role but that of a document's text."""
    return Case(column, text, text if kept is None else kept, text)


class Celsius(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.int16(), "tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Celsius:
        return cls()


CASES = {
    "null": Case(pa.nulls(2), REFUSED, None, None, REFUSED),
    "bool": Case(one(True, pa.bool_()), REFUSED, True, "true"),
    "bool8": Case(extension(pa.bool8(), 1), REFUSED, True, "true"),
    **{f"int{n}": same(one(-7, getattr(pa, f"int{n}")()), "-7", -7) for n in (8, 16, 32, 64)},
    **{f"uint{n}": same(one(7, getattr(pa, f"uint{n}")()), "7", 7) for n in (8, 16, 32, 64)},
    "long int64": same(one(2**53 + 1, pa.int64()), str(2**53 + 1), 2**53 + 1),
    "long uint64": same(one(2**64 - 1, pa.uint64()), str(2**64 - 1)),
    "half float": Case(one(0.1, pa.float16()), "0.1", 0.0999755859375, REFUSED),
    "float": Case(one(0.1, pa.float32()), "0.1", 0.10000000149011612, REFUSED),
    "double": Case(one(0.1, pa.float64()), "0.1", 0.1, REFUSED),
    "whole half float": same(one(3.0, pa.float16()), "3", 3.0),
    "whole double": same(one(3.0, pa.float64()), "3", 3.0),
    "nan": Case(one(math.nan, pa.float64()), REFUSED, "nan", None),
    "inf": Case(one(math.inf, pa.float64()), REFUSED, math.inf, REFUSED),
    "large double": Case(one(1e300, pa.float64()), str(int(1e300)), 1e300, REFUSED),
    **{
        f"decimal{n}": Case(one(Decimal("1.50"), getattr(pa, f"decimal{n}")(7, 2)), "1.5", "1.50", REFUSED)
        for n in (32, 64, 128, 256)
    },
    "whole decimal": Case(one(Decimal("3.00"), pa.decimal128(7, 2)), "3", "3.00", "3"),
    "long decimal": same(one(Decimal(10**70 + 1), pa.decimal256(76, 0)), str(10**70 + 1)),
    "decimal of negative scale": same(one(Decimal("1.2E+4"), pa.decimal128(5, -3)), "12000"),
    **{
        str(kind): Case(one("ü", kind), "ü", "ü", "ü", "ü")
        for kind in (pa.string(), pa.large_string(), pa.string_view())
    },
    "json": Case(extension(pa.json_(), '{"a":1}'), '{"a":1}', '{"a":1}', '{"a":1}', '{"a":1}'),
    **{
        str(kind): Case(one("ü".encode(), kind), "ü", "ü", "ü", "ü")
        for kind in (pa.binary(), pa.large_binary(), pa.binary_view())
    },
    "bytes that are no text": Case(one(b"\xff\xd8", pa.binary()), REFUSED, None, REFUSED, REFUSED),
    "fixed bytes that are text": Case(one(b"deu", pa.binary(3)), "deu", "deu", "deu", "deu"),
    "sixteen bytes": Case(one(UUID.bytes, pa.binary(16)), UUID.hex, UUID.hex, UUID.hex, REFUSED),
    "uuid": same(extension(pa.uuid(), UUID.bytes), str(UUID)),
    "date32": same(one(datetime.date(2024, 5, 1), pa.date32()), "2024-05-01"),
    "date64": same(one(datetime.date(2024, 5, 1), pa.date64()), "2024-05-01"),
    "date beyond Python's years": same(cast(4_000_000, pa.int32(), pa.date32()), "12921-08-18"),
    "date beyond the calendar": Case(cast(2**31 - 1, pa.int32(), pa.date32()), REFUSED, None, REFUSED),
    "time32": same(one(45_000, pa.time32("s")), "12:30:00"),
    "time64": same(one(45_000 * 10**9 + 5, pa.time64("ns")), "12:30:00.000000005"),
    **{
        f"timestamp[{unit}]": same(one(MOMENT * scale, pa.timestamp(unit)), "2024-05-01 12:30:00")
        for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
    },
    "timestamp of a fraction": same(one(MOMENT * 1000 + 250, pa.timestamp("ms")), "2024-05-01 12:30:00.25"),
    "timestamp in UTC": same(one(MOMENT, pa.timestamp("s", "UTC")), "2024-05-01 12:30:00Z"),
    "timestamp in a zone": same(one(MOMENT, pa.timestamp("s", "America/New_York")), "2024-05-01 08:30:00-04:00"),
    "timestamp at an offset": same(one(MOMENT, pa.timestamp("s", "+05:30")), "2024-05-01 18:00:00+05:30"),
    "timestamp in an unknown zone": same(
        one(MOMENT, pa.timestamp("us", "Eastern Standard Time")), "1970-01-01 00:28:34.5666Z"
    ),
    "timestamp beyond Python's years": same(
        cast(506_606_607_800, pa.int64(), pa.timestamp("s")), "18023-09-22 09:43:20"
    ),
    "timestamp beyond the calendar": Case(cast(2**60, pa.int64(), pa.timestamp("us")), REFUSED, None, REFUSED),
    **{
        f"duration[{unit}]": same(cast(5400 * scale, pa.int64(), pa.duration(unit)), "PT5400S")
        for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
    },
    "duration of a fraction": same(cast(-1_500, pa.int64(), pa.duration("ms")), "PT-1.5S"),
    "interval": same(one((14, 3, 500_000_000), pa.month_day_nano_interval()), "P14M3DT0.5S"),
    "interval of nothing": same(one((0, 0, 0), pa.month_day_nano_interval()), "PT0S"),
    "interval of days": same(one((0, -3, 0), pa.month_day_nano_interval()), "P-3D"),
    **{
        str(kind): Case(one(["a", None], kind), REFUSED, '["a", null]', REFUSED)
        for kind in (
            pa.list_(pa.string()),
            pa.large_list(pa.string()),
            pa.list_(pa.string(), 2),
            pa.list_view(pa.string()),
            pa.large_list_view(pa.string()),
        )
    },
    "struct": Case(
        one({"d": datetime.date(2024, 5, 1), "n": [Decimal("1.5")]}, pa.struct(
            {"d": pa.date32(), "n": pa.list_(pa.decimal128(5, 2))}
        )), REFUSED, '{"d": "2024-05-01", "n": ["1.50"]}', REFUSED,
    ),
    "empty struct": Case(one({}, pa.struct([])), REFUSED, "{}", REFUSED),
    "struct of one name twice": Case(
        pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"], mask=pa.array([False, True])),
        REFUSED, None, REFUSED,
    ),
    "list of bytes that are no text": Case(one([b"a", b"\xff"], pa.list_(pa.binary())), REFUSED, None, REFUSED),
    "list of uuids": Case(
        pa.ListArray.from_arrays(
            pa.array([0, 1, 1], pa.int32()), extension(pa.uuid(), UUID.bytes)[:1], mask=pa.array([False, True])
        ),
        REFUSED, json.dumps([str(UUID)]), REFUSED,
    ),
    "map": Case(one([("a", 1)], pa.map_(pa.string(), pa.int64())), REFUSED, '[["a", 1]]', REFUSED),
    "dense union": Case(
        pa.UnionArray.from_dense(UNION[0], pa.array([0, 1], pa.int32()), UNION[1]), "7", "7", "7"
    ),
    "sparse union": Case(pa.UnionArray.from_sparse(*UNION), "7", "7", "7"),
    "dictionary of text": Case(one("a", pa.string()).dictionary_encode(), "a", "a", "a", "a"),
    "dictionary of numbers": same(one(7, pa.int64()).dictionary_encode(), "7", 7),
    "run-end-encoded": Case(
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array(["a", None])), "a", "a", "a", "a"
    ),
    "opaque": same(extension(pa.opaque(pa.int32(), "point", "postgres"), 5), "5", 5),
    "tensor": Case(extension(pa.fixed_shape_tensor(pa.int32(), [2]), [1, 2]), REFUSED, "[1, 2]", REFUSED),
    "extension type of a user": same(extension(Celsius(), 21), "21", 21),
}  # fmt: skip


def kept(values: list[Any]) -> Any:
    """What a store keeps of the first value of a column."""
    kept_type = column_type({kind_of(value, is_csv=False) for value in values})
    value, problem = stored_value(values[0], kept_type, "x")
    assert (problem is None) == (value is not None or values[0] is None)
    assert stored_value(values[1], kept_type, "x") in ((None, None), ("ü", None))
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("name", CASES)
def test_a_value_of_any_type_is_kept_or_null_with_a_reason(name: str) -> None:
    assert kept(python_values(CASES[name].column)) == CASES[name].kept


@pytest.mark.parametrize("name", CASES)
def test_a_value_of_any_type_is_a_class_none_or_refused(name: str) -> None:
    case = CASES[name]
    values = python_values(case.column)[:1]
    if case.label == REFUSED:
        with pytest.raises(ValueError, match="not classes"):
            class_texts(values)
    else:
        assert class_texts(values) == [case.label]
    assert (TREATMENTS[family_of(case.column.type)].label is None) <= (case.label == REFUSED)


def in_parquet(column: pa.Array, path: Path) -> bool:
    """Whether Parquet can hold the column, which it then does."""
    try:
        pq.write_table(pa.table({"x": column}), path)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, OSError):
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_a_column_of_a_corpus_is_an_id_a_kept_value_and_a_text_or_says_why_not(tmp_path: Path, name: str) -> None:
    case, path = CASES[name], tmp_path / "a.parquet"
    if not in_parquet(case.column, path):
        kind = case.column.type
        no_parquet = pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind) or pa.types.is_interval(kind)
        assert no_parquet or name in ("empty struct", "decimal of negative scale", "struct of one name twice")
        assert case.id == REFUSED or id_texts(case.column)[0] == case.id
        return
    (file,) = find_files([str(path)], None)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        parquet = open_parquet(file, stack)
        for role, wanted in (
            ("text", Wanted("x", None)), ("id", Wanted(None, "x")), ("kept", Wanted(None, None, ("x",)))
        ):  # fmt: skip
            try:
                kinds = parquet_kinds(file, parquet.schema_arrow, wanted)
            except CorpusError as refusal:
                assert "name another" in str(refusal)
                found[role] = REFUSED
                continue
            record, _ = parquet_records(parquet, wanted, 0, 2)
            if role == "kept":
                kind = {"integers": None, "floats": None, "unsigned": None}.get(kinds["x"], {kinds["x"]})
                kept_type = column_type(kind or number_kinds(parquet, "x"))
                value, _ = stored_value(record.keep[0], kept_type, "x")
                found[role] = "nan" if isinstance(value, float) and math.isnan(value) else value
            else:
                usable, _ = document_id(record.id, "x") if role == "id" else document_text(record.text, "x")
                found[role] = REFUSED if usable is None else usable
    assert found == {"text": case.text, "id": case.id, "kept": case.kept}


def test_every_type_that_arrow_has_is_in_the_table_and_in_these_tests() -> None:
    ids = {name.removeprefix("Type_") for name in dir(pa.lib) if name.startswith("Type_")}
    wrappers = {"DICTIONARY", "RUN_END_ENCODED", "EXTENSION"}
    assert ids - wrappers <= set(FAMILY_OF_TYPE)
    assert set(FAMILY_OF_TYPE.values()) <= set(TREATMENTS)
    tested = {case.column.type.id for case in CASES.values()}
    unmade = {"INTERVAL_MONTHS", "INTERVAL_DAY_TIME"}  # pyarrow has no way to make one
    assert {name for name in ids if getattr(pa.lib, f"Type_{name}") not in tested} == unmade


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from([None, "UTC", "Nowhere"]),
)
def test_any_moment_is_text_or_beyond_the_calendar(count: int, unit: str, zone: str | None) -> None:
    (value,) = python_values(pa.array([count]).cast(pa.timestamp(unit, zone)))
    assert value == Unusable("is a date or time beyond the calendar") or (isinstance(value, str) and "<" not in value)


def test_an_interval_of_parquet_is_no_twelve_bytes(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "a.parquet"
    duckdb.sql(
        f"copy (select interval '14 months 3 days 500 milliseconds' as i, uuid '{UUID}' as u, interval '0' as z)"
        f" to '{path}' (format parquet)"
    )
    (file,) = find_files([str(path)], None)
    with ExitStack() as stack:
        parquet = open_parquet(file, stack)
        (record,) = parquet_records(parquet, Wanted(None, "u", ("i", "z")), 0, 1)
    assert (record.id, record.keep) == (str(UUID), ("P14M3DT0.5S", "PT0S"))


def test_a_timestamp_of_96_bits_may_lie_beyond_what_nanoseconds_reach(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    never = pa.array([datetime.datetime(9999, 12, 31, 23, 59, 59)], pa.timestamp("us"))
    pq.write_table(pa.table({"x": never}), path, use_deprecated_int96_timestamps=True)
    (file,) = find_files([str(path)], None)
    with ExitStack() as stack:
        (record,) = parquet_records(open_parquet(file, stack), Wanted(None, None, ("x",)), 0, 1)
    assert record.keep == ("9999-12-31 23:59:59",)


def test_slices_and_nested_nulls_keep_their_places() -> None:
    lists = pa.array([[1], None, [2, None], []], pa.list_(pa.int64()))
    assert python_values(lists.slice(1)) == [None, [2, None], []]
    objects = pa.array([{"a": 1}, None, {"a": None}], pa.struct({"a": pa.int64()}))
    assert python_values(objects.slice(1)) == [None, {"a": None}]
    pairs = pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64()))
    assert python_values(pairs) == [[["a", 1]], None, []]
    encoded = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    assert python_values(encoded.slice(1)) == ["a", "b"]
    union = pa.UnionArray.from_sparse(*UNION)
    assert python_values(union.slice(1)) == ["ü"]
