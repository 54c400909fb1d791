"""Define the columns of a store, and the precision to which its values are kept.

A `StoreSchema` is the whole truth about the columns of every part: it becomes the Arrow schema, the Parquet encodings
and an element of `store.json`. Rounding is done here too, for it is part of the format. Names of poolings stand in
`base.poolings`; who fills the columns does not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import STORED, is_count_pool, is_pool
from featurestore.errors import StoreError

KEEP_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
FULL_BITS = 24  # significant bits of a float32, the hidden one included
_ROUNDED_AT_ONCE = 1 << 15  # values: the arrays of a block stay in the second-level cache, which is worth a factor of 4


@dataclass(frozen=True)
class SaeColumns:
    """The columns of one SAE: `{name}__indices` and one parallel `{name}__{pool}` for each pooling."""

    name: str
    d_sae: int
    pools: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_name(self.name, "SAE")
        if not 0 < self.d_sae < 2**32:
            raise StoreError(f"SAE '{self.name}': d_sae must be between 1 and 2**32 - 1, not {self.d_sae}")
        if not self.pools or len(set(self.pools)) != len(self.pools):
            raise StoreError(f"SAE '{self.name}': name at least one pooling, and each only once")
        for pool in self.pools:
            if not is_pool(pool):
                raise StoreError(f"SAE '{self.name}': unknown pooling '{pool}'; use {STORED}")

    @property
    def indices(self) -> str:
        """Name of the index column."""
        return f"{self.name}__indices"

    def column(self, pool: str) -> str:
        """Name of the value column of one pooling."""
        return f"{self.name}__{pool}"


@dataclass(frozen=True)
class DenseColumn:
    """A dense float32 vector for each document, e.g. `resid_post_9__hidden_mean`; null where there is none."""

    name: str
    dim: int

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise StoreError(f"dense column '{self.name}': use letters, digits and '_', starting with a letter")
        if not 0 < self.dim < 2**31:
            raise StoreError(f"dense column '{self.name}': dim must be positive, not {self.dim}")


@dataclass(frozen=True)
class StoreSchema:
    """Every column of a store.

    Attributes:
        keep: (name, type) of the corpus columns carried along; types are "string", "int64", "float64", "bool".
        saes: The sparse columns.
        dense: The dense columns.
        value_bits: Significant bits kept of each sparse float32 value: 24 is exact, 8 is bfloat16's precision.
    """

    keep: tuple[tuple[str, str], ...]
    saes: tuple[SaeColumns, ...]
    dense: tuple[DenseColumn, ...]
    value_bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.value_bits <= FULL_BITS:
            raise StoreError(f"value_bits must be between 1 and {FULL_BITS}, not {self.value_bits}")
        for name, kind in self.keep:
            if kind not in KEEP_TYPES:
                raise StoreError(f"kept column '{name}' has type '{kind}'; it must be one of {', '.join(KEEP_TYPES)}")
            if not name:
                raise StoreError("a kept column has an empty name; rename it in the corpus")
        names = self.arrow_schema().names
        for name in names:
            if names.count(name) > 1:
                raise StoreError(f"column name '{name}' is used twice; rename the kept column or SAE of that name")

    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of every part, in column order, without key-value metadata."""
        fields = [pa.field("doc_id", pa.string(), nullable=False)]
        fields += [pa.field(name, KEEP_TYPES[kind]) for name, kind in self.keep]
        fields += [
            pa.field("n_tokens", pa.uint32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("error", pa.string()),
        ]
        for sae in self.saes:
            fields.append(pa.field(sae.indices, _list_of(pa.uint32()), nullable=False))
            for pool in sae.pools:
                value = pa.uint32() if is_count_pool(pool) else pa.float32()
                fields.append(pa.field(sae.column(pool), _list_of(value), nullable=False))
        for dense in self.dense:
            item = pa.field("element", pa.float32(), nullable=False)
            fields.append(pa.field(dense.name, pa.list_(item, dense.dim)))
        return pa.schema(fields)

    @property
    def metadata_columns(self) -> list[str]:
        """Names of the columns of a part that are neither features nor dense vectors."""
        return ["doc_id", *(name for name, _ in self.keep), "n_tokens", "truncated", "error"]

    def sae(self, name: str) -> SaeColumns:
        """The columns of the SAE called `name`; StoreError naming those there are if there is none."""
        for sae in self.saes:
            if sae.name == name:
                return sae
        there = ", ".join(sae.name for sae in self.saes) or "none"
        hint = did_you_mean(name, [sae.name for sae in self.saes])
        raise StoreError(f"no SAE '{name}' in this store; it holds: {there}{hint}")

    def to_json(self) -> dict[str, Any]:
        """Plain data for `store.json`; `from_json` is its inverse."""
        return {
            "keep": [{"name": name, "type": kind} for name, kind in self.keep],
            "saes": [{"name": s.name, "d_sae": s.d_sae, "pools": list(s.pools)} for s in self.saes],
            "dense": [{"name": d.name, "dim": d.dim} for d in self.dense],
            "value_bits": self.value_bits,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoreSchema:
        """Read what `to_json` wrote; raises KeyError, TypeError or StoreError on anything else."""
        return cls(
            keep=tuple((str(c["name"]), str(c["type"])) for c in data["keep"]),
            saes=tuple(SaeColumns(str(s["name"]), int(s["d_sae"]), tuple(s["pools"])) for s in data["saes"]),
            dense=tuple(DenseColumn(str(d["name"]), int(d["dim"])) for d in data["dense"]),
            value_bits=int(data["value_bits"]),
        )


def round_values(values: np.ndarray, value_bits: int) -> np.ndarray:
    """Round float32 to `value_bits` significant bits, to nearest, ties to even.

    A finite value never becomes infinite: it saturates at the largest finite number of that precision. Zero stays zero
    and nothing else becomes zero, for the exponent is kept (subnormals, whose leading bits are zeros, keep at least
    the smallest step of that precision).

    Args:
        values: float32, any shape.
        value_bits: 1 to 24.

    Returns:
        float32 of the same shape; `values` itself when `value_bits` is 24.
    """
    if value_bits == FULL_BITS:
        return values
    drop = np.uint32(FULL_BITS - value_bits)  # low mantissa bits that become zero
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    flat, out = bits.reshape(-1), np.empty(bits.size, dtype=np.uint32)
    for lo in range(0, flat.size, _ROUNDED_AT_ONCE):
        _round_block(flat[lo : lo + _ROUNDED_AT_ONCE], out[lo : lo + _ROUNDED_AT_ONCE], drop)
    return out.reshape(bits.shape).view(np.float32)


def _round_block(bits: np.ndarray, out: np.ndarray, drop: np.uint32) -> None:
    """Round float32 `bits` into `out`; values at the edges of float32 are mended only in blocks that have any."""
    one, keep = np.uint32(1), ~np.uint32((1 << int(drop)) - 1)
    largest = np.uint32(0x7F7FFFFF) & keep
    np.right_shift(bits, drop, out=out)
    out &= one  # the last bit that is kept: a tie goes up only where it is odd
    out += np.uint32((1 << (int(drop) - 1)) - 1)
    out += bits
    out &= keep
    size = bits & np.uint32(0x7FFFFFFF)
    if size.max() < largest and np.count_nonzero(out & np.uint32(0x7FFFFFFF)) == np.count_nonzero(size):
        return
    sign, rounded = bits & np.uint32(0x80000000), np.minimum(out & np.uint32(0x7FFFFFFF), largest)
    rounded = np.where((rounded == 0) & (size != 0), one << drop, rounded)
    rounded = np.where(size >= np.uint32(0x7F800000), size, rounded)  # inf and nan pass through unchanged
    np.bitwise_or(rounded, sign, out=out)


def _list_of(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", item, nullable=False))


def _check_name(name: str, what: str) -> None:
    if _NAME.fullmatch(name) is None or "__" in name:
        raise StoreError(f"{what} name '{name}': use letters, digits and single '_', starting with a letter")
