"""When two values are the same id or class, however they are written."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.tables.arrow import python_values
from featurestore.tables.keyed import id_texts
from featurestore.tables.same_value import IdMatch, class_texts, in_order, match_ids, value_text


def matched(ours: list[str], theirs: list[str | None]) -> IdMatch:
    return match_ids(pl.Series(ours, dtype=pl.String), pl.Series(theirs, dtype=pl.String))


def as_every_type(number: int) -> list[Any]:
    """A whole number in all the types that hold it exactly."""
    found: list[Any] = [number, Decimal(number), Decimal(f"{number}.00")]
    found += [kind(number) for kind in (np.int64, np.uint64) if np.iinfo(kind).min <= number <= np.iinfo(kind).max]
    if abs(number) < 10**300 and int(float(number)) == number:
        found += [float(number), np.float64(number)]
    return found


@given(st.integers(-(10**30), 10**30) | st.integers(-(2**54), 2**64))
def test_a_whole_number_of_any_type_is_its_digits(number: int) -> None:
    assert {value_text(value) for value in as_every_type(number)} == {str(number)}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_other_number_is_the_shortest_text_that_reads_back_as_it(number: float) -> None:
    text = value_text(number)
    assert text is not None
    assert text == (str(int(number)) if number == int(number) else repr(number))
    assert float(text) == number


@given(st.text())
def test_a_text_is_itself(text: str) -> None:
    assert value_text(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (np.bool_(False), "false"),
        (np.float32(0.1), "0.1"),
        (-0.0, "0"),
        (Decimal("1.50"), "1.5"),
        (Decimal("9" * 60 + ".25"), "9" * 60 + ".25"),
        (UUID("20c9d79c-89f8-4f30-95f7-b1ceb9dae03f"), "20c9d79c-89f8-4f30-95f7-b1ceb9dae03f"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 12, 30), "2024-05-01 12:30:00"),
        (pd.Timestamp("2024-05-01T12:30", tz="Europe/Berlin"), "2024-05-01 12:30:00+02:00"),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (datetime.timedelta(minutes=90), "PT5400S"),
        (None, None),
        (math.nan, None),
        (np.float32("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
    ],
)
def test_other_values_have_one_text_too(value: Any, text: str | None) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("value", "what"),
    [([1], "lists"), ({"a": 1}, "objects"), (b"x", "bytes"), (object(), "values of type object")],
)
def test_what_can_be_no_id_is_named(value: Any, what: str) -> None:
    with pytest.raises(TypeError, match=what):
        value_text(value)


def test_a_number_of_more_digits_than_python_reads_is_named() -> None:
    with pytest.raises(TypeError, match="numbers of more digits than can be read"):
        value_text(10**5000)


numbers = st.integers(0, 12)
spellings = st.tuples(
    numbers, st.sampled_from(["{}", "{}.0", "{}.", "{}.00", "00{}", "-{}", "{} ", "x{}", "{}.5"])
).map(lambda pair: pair[1].format(pair[0]))


@settings(max_examples=300)
@given(ours=st.lists(spellings, unique=True, max_size=12), theirs=st.lists(st.none() | spellings, max_size=12))
def test_ids_meet_what_equals_them_and_only_then_what_is_the_same_number(
    ours: list[str], theirs: list[str | None]
) -> None:
    def number(text: str) -> int | None:
        whole, _, zeros = text.partition(".")
        plain = whole.removeprefix("-")
        looks = plain.isdecimal() and str(int(plain)) == plain and set(zeros) <= {"0"}
        return int(whole) if looks else None

    left_ours = [text for text in ours if text not in theirs and number(text) is not None]
    left_theirs = [text for text in theirs if text is not None and text not in ours and number(text) is not None]
    found = matched(ours, theirs)
    if found.clash is None:
        for text, row in zip(theirs, found.row.tolist(), strict=True):
            same = [mine for mine in left_ours if text in left_theirs and number(mine) == number(str(text))]
            expected = text if text in ours else same[0] if same else None
            assert (ours[row] if row >= 0 else None) == expected
    else:  # never two to one
        assert any(
            len({t for t in side if number(t) == n}) > 1
            for n in {number(t) for t in left_ours} & {number(t) for t in left_theirs}
            for side in (left_ours, left_theirs)
        )
    assert found.as_numbers == sum(text not in ours for text, row in zip(theirs, found.row, strict=True) if row >= 0)


def test_two_spellings_of_one_number_are_refused_where_both_would_be_it() -> None:
    assert matched(["1", "2"], ["1.0", "1.00"]).clash == "ids '1.0' and '1.00' would both be 1"
    assert matched(["1.0", "1.00"], ["1"]).clash is not None
    assert matched(["1"], ["1", "1.0"]).row.tolist() == [0, -1]  # an equal one is there, so 1.0 is another id


def test_a_float_beyond_what_is_exact_matches_nothing_but_itself() -> None:
    assert matched([str(2**53 + 2)], [f"{2**53 + 2}.0"]).row.tolist() == [-1]
    assert matched([str(2**53)], [f"{2**53}.0"]).row.tolist() == [0]


NUMBERS = [1, 20, 2**53 + 1]


@pytest.mark.parametrize(
    "ids",
    [
        NUMBERS,
        [str(number) for number in NUMBERS],
        np.array(NUMBERS),
        np.array(NUMBERS, dtype=np.uint64),
        np.array([str(number) for number in NUMBERS]),
        pl.Series(NUMBERS),
        pl.Series(NUMBERS, dtype=pl.UInt64),
        pl.Series(NUMBERS, dtype=pl.Int128),
        pl.Series([Decimal(number) for number in NUMBERS]),
        pl.Series([str(number) for number in NUMBERS], dtype=pl.Categorical),
        pl.Series([str(number) for number in NUMBERS], dtype=pl.Enum([str(number) for number in NUMBERS])),
        pl.Series([NUMBERS[0], str(NUMBERS[1]), Decimal(NUMBERS[2])], dtype=pl.Object),
        pd.Series(NUMBERS),
        pd.Series(NUMBERS, dtype="Int64"),
        pd.Series([NUMBERS[0], str(NUMBERS[1]), NUMBERS[2]], dtype=object),
        pd.Series([str(number) for number in NUMBERS], dtype="category"),
        pd.Series([str(number) for number in NUMBERS], dtype="string"),
        pd.Index(NUMBERS),
        pa.array(NUMBERS),
        pa.array(NUMBERS).cast(pa.decimal128(38, 0)),
        pa.chunked_array([pa.array(NUMBERS[:1]), pa.array(NUMBERS[1:])]),
        pa.array(NUMBERS).dictionary_encode(),
        (number for number in NUMBERS),
    ],
    ids=lambda ids: f"{type(ids).__module__}.{type(ids).__name__}",
)
def test_a_list_of_ids_may_be_of_any_library(ids: Any) -> None:
    assert id_texts(ids).to_list() == ["1", "20", "9007199254740993"]


def test_ids_that_pandas_made_floats_beside_a_missing_one_are_whole() -> None:
    assert id_texts(pd.Series([1.0, None, 3.0])).to_list() == ["1", None, "3"]
    assert id_texts(pd.Series([1, pd.NA, "x"], dtype=object)).to_list() == ["1", None, "x"]


@pytest.mark.parametrize("ids", ["u0-1", b"u", 5, pl.DataFrame({"a": ["x"]}), pd.DataFrame({"a": ["x"]}), {"a": 1}])
def test_what_is_no_list_of_ids_is_named(ids: Any) -> None:
    with pytest.raises(TypeError, match="give a list, or one column of a table"):
        id_texts(ids)


def test_01_and_1_stay_two_classes_and_numbers_of_all_types_are_one() -> None:
    assert class_texts(["01", "1", None, "", "02"]) == ["01", "1", None, None, "02"]
    assert class_texts([1, 1.0, Decimal(1), "1", True, math.nan]) == ["1", "1", "1", "1", "true", None]


@given(st.lists(st.sampled_from(["01", "1", "1.0", "-0", "a", "", "True", "2e3"])))
def test_a_field_of_csv_is_a_class_as_it_stands(fields: list[str]) -> None:
    assert class_texts([field or None for field in fields], from_csv=True) == [field or None for field in fields]


def test_nan_among_numbers_of_csv_is_none_and_among_words_a_word() -> None:
    assert class_texts(["1", "NaN", "0", "nan"], from_csv=True) == ["1", None, "0", None]
    assert class_texts(["yes", "nan"], from_csv=True) == ["yes", "nan"]


@pytest.mark.parametrize(
    ("values", "from_csv", "said"),
    [
        ([0.37, 12.5], False, "measurements such as 0.37"),
        ([1.0, math.inf], False, "measurements such as inf"),
        ([-math.inf], False, "measurements such as -inf"),
        ([1e300], False, r"measurements such as 1e\+300"),
        ([float(2**54)], False, "measurements such as 1.8"),
        ([Decimal("1.5")], False, "measurements such as 1.5"),
        ([np.float32(0.5)], False, "measurements such as 0.5"),
        (["0.37", "12.5"], True, "measurements such as 0.37"),
        (["1", "inf"], True, "measurements such as inf"),
        (["1", "1e300"], True, r"measurements such as 1e\+300"),
        (["1", "1e999"], True, "measurements such as inf"),
        (["", ".5"], True, "measurements such as 0.5"),
        ([["a"]], False, "lists, not classes"),
        ([{"a": 1}], False, "objects, not classes"),
        ([b"\xff"], False, "bytes, not classes"),
    ],
)
def test_measurements_and_lists_are_no_classes(values: list[Any], from_csv: bool, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        class_texts([None, *values], from_csv)


def test_classes_stand_in_numeric_order_where_all_are_numbers() -> None:
    assert in_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert in_order(["10", "9", "a"]) == ["10", "9", "a"]
    assert in_order(["02", "1", "01"]) == ["01", "02", "1"]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5))
def test_a_date_has_one_text_whichever_unit_it_is_stored_in(days: list[int]) -> None:
    column = pa.array(days, pa.int32()).cast(pa.date32())
    texts = python_values(column)
    for text, day in zip(texts, days, strict=True):
        if isinstance(text, str) and 0 < int(text.rsplit("-", 2)[0]) < 10_000:
            assert text == (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
            seconds = pa.array([day * 86_400]).cast(pa.timestamp("s"))
            midnight = [f"{text} 00:00:00"]
            assert python_values(seconds) == python_values(seconds.cast(pa.timestamp("ms"))) == midnight
