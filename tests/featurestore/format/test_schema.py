"""Columns and precision: what a schema accepts, and how values are rounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import StoreError
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema, round_values
from tests.featurestore.stores import SCHEMA

LARGEST = float(np.finfo(np.float32).max)


def nearest(value: float, bits: int) -> float:
    """Round-half-even to `bits` significant bits in exact arithmetic, saturating: an independent reference."""
    mantissa, exponent = math.frexp(value)  # value = mantissa * 2**exponent, 0.5 <= mantissa < 1
    rounded = math.ldexp(round(mantissa * 2**bits), exponent - bits)  # Python rounds half to even
    largest = (1 - 2.0**-bits) * 2.0**128
    return max(-largest, min(largest, rounded))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), st.integers(2, 24))
def test_rounding_is_to_nearest_even_and_saturates(value: float, bits: int) -> None:
    assert round_values(np.array([value], np.float32), bits)[0] == nearest(value, bits)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 24))
def test_rounding_keeps_zero_zero_and_everything_else_nonzero_finite_and_stable(value: float, bits: int) -> None:
    values = np.array([value], np.float32)
    rounded = round_values(values, bits)
    assert (rounded == 0) == (values == 0)
    assert np.isfinite(rounded)
    assert round_values(rounded, bits) == rounded
    assert (rounded.view(np.uint32)[0] & np.uint32((1 << (24 - bits)) - 1)) == 0


def test_the_largest_float_saturates_at_the_largest_of_eight_bits() -> None:
    assert round_values(np.array([LARGEST], np.float32), 8)[0] == np.float32(255 / 128 * 2.0**127)


def test_rounding_leaves_its_input_alone() -> None:
    values = np.array([0.3], np.float32)
    round_values(values, 8)
    assert values[0] == np.float32(0.3)


def test_a_schema_survives_json() -> None:
    assert StoreSchema.from_json(SCHEMA.to_json()) == SCHEMA


def test_columns_come_in_the_order_of_the_format() -> None:
    names = SCHEMA.arrow_schema().names
    assert names[:5] == ["doc_id", "label", "score", "group", "flag"]
    assert names[5:9] == ["n_tokens", "truncated", "error", "l12_64__indices"]
    assert names[9:14] == [f"l12_64__{pool}" for pool in ("max", "sum", "count", "last", "top2")]


@pytest.mark.parametrize("name", ["", "9l", "l__9", "l-9", "l 9", "größe", "../../l9", "l9/../x", "l9\x00"])
def test_an_sae_name_that_cannot_prefix_a_column_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="SAE name"):
        SaeColumns(name, 8, ("max",))


@pytest.mark.parametrize("pools", [(), ("max", "max"), ("mean",), ("top0",), ("top",), ("Max",)])
def test_poolings_that_are_not_stored_are_refused(pools: tuple[str, ...]) -> None:
    with pytest.raises(StoreError, match="l9"):
        SaeColumns("l9", 8, pools)


@pytest.mark.parametrize("kept", ["doc_id", "error", "n_tokens", "l9__indices", "l9__max", "hidden"])
def test_a_kept_column_that_takes_the_name_of_another_is_refused(kept: str) -> None:
    with pytest.raises(StoreError, match=f"'{kept}' is used twice"):
        StoreSchema(((kept, "string"),), (SaeColumns("l9", 8, ("max",)),), (DenseColumn("hidden", 2),))


@pytest.mark.parametrize("bits", [0, 25])
def test_impossible_precision_is_refused(bits: int) -> None:
    with pytest.raises(StoreError, match="value_bits"):
        StoreSchema((), (), (), bits)


def test_an_unknown_kept_type_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match="'when' has type 'date'"):
        StoreSchema((("when", "date"),), (), ())
