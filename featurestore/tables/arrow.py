"""Convert values of Arrow's types, in a table that a user brings, to the plain values that stand for them.

`FAMILY_OF_TYPE` and `TREATMENTS` say as data what each type is good for; everything that reads Arrow goes by them.
Values become what JSON has (text, whole numbers, floats, truth values, lists, objects), decimals stay `Decimal`, and
what none of these can hold becomes `Unusable` with its reason, or stays bytes where it should have been text and is not
UTF-8.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from featurestore.tables.record import Unusable
from featurestore.tables.times import moments, spans

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Treatment:
    """What becomes of the values of a family of types in each role; None where the column is refused.

    Attributes:
        id: The text of an id.
        kept: The type of a kept column, as in the store's schema; "string" holds text that loses nothing, but for the
            values that are `Unusable`.
        label: The name of a class.
        text: The text of a document.
    """

    id: str | None
    kept: str
    label: str | None
    text: str | None


TREATMENTS: Mapping[str, Treatment] = {
    "null": Treatment(id="none", kept="string", label="none", text="none"),
    "truth": Treatment(id=None, kept="bool", label="true or false", text=None),
    "integer": Treatment(id="digits", kept="int64, or string beyond it", label="digits", text=None),
    "float": Treatment(id="digits where whole", kept="float64", label="digits where whole, else refused", text=None),
    "decimal": Treatment(id="digits where whole", kept="string", label="digits where whole, else refused", text=None),
    "text": Treatment(id="itself", kept="string", label="itself", text="itself"),
    "bytes": Treatment(id="as UTF-8", kept="string", label="as UTF-8", text="as UTF-8"),
    "fixed bytes": Treatment(id="as UTF-8, else hex", kept="string", label="as UTF-8, else hex", text="as UTF-8"),
    "uuid": Treatment(id="8-4-4-4-12 hex", kept="string", label="8-4-4-4-12 hex", text=None),
    "moment": Treatment(id="ISO 8601", kept="string", label="ISO 8601", text=None),
    "span": Treatment(id="ISO 8601", kept="string", label="ISO 8601", text=None),
    "nested": Treatment(id=None, kept="string", label=None, text=None),
    "union": Treatment(id="as each value is", kept="string", label="as each value is", text=None),
    "unknown": Treatment(id=None, kept="string", label=None, text=None),
}
"""Family -> its treatment. Nested values are kept as JSON; dictionaries, run-end-encoded arrays and extension types are
treated as what they hold."""

FAMILY_OF_TYPE: Mapping[str, str] = {
    "NA": "null",
    "BOOL": "truth",
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"), "integer"),
    **dict.fromkeys(("HALF_FLOAT", "FLOAT", "DOUBLE"), "float"),
    **dict.fromkeys(("DECIMAL32", "DECIMAL64", "DECIMAL128", "DECIMAL256"), "decimal"),
    **dict.fromkeys(("STRING", "LARGE_STRING", "STRING_VIEW"), "text"),
    **dict.fromkeys(("BINARY", "LARGE_BINARY", "BINARY_VIEW"), "bytes"),
    "FIXED_SIZE_BINARY": "fixed bytes",
    **dict.fromkeys(("DATE32", "DATE64", "TIME32", "TIME64", "TIMESTAMP"), "moment"),
    **dict.fromkeys(("DURATION", "INTERVAL_MONTH_DAY_NANO"), "span"),
    **dict.fromkeys(("LIST", "LARGE_LIST", "FIXED_SIZE_LIST", "LIST_VIEW", "LARGE_LIST_VIEW", "MAP"), "nested"),
    "STRUCT": "nested",
    **dict.fromkeys(("SPARSE_UNION", "DENSE_UNION"), "union"),
    # pyarrow can neither make these two nor say what they hold; they come from other Arrow libraries only.
    **dict.fromkeys(("INTERVAL_MONTHS", "INTERVAL_DAY_TIME"), "unknown"),
}
"""Name of an Arrow type id -> its family."""


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that decides: what a dictionary, a run-end-encoded array or an extension type holds."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType | pa.Bool8Type):
        return plain_type(kind.storage_type)
    return kind


def family_of(kind: pa.DataType) -> str:
    """The family of a type, a key of TREATMENTS."""
    import pyarrow as pa

    kind = plain_type(kind)
    if isinstance(kind, pa.UuidType):
        return "uuid"
    return "truth" if isinstance(kind, pa.Bool8Type) else _family_of_type_id().get(kind.id, "unknown")


@cache
def _family_of_type_id() -> Mapping[int, str]:
    import pyarrow as pa

    return {
        type_id: family
        for name, family in FAMILY_OF_TYPE.items()
        if (type_id := getattr(pa.lib, f"Type_{name}", None)) is not None
    }


def python_values(column: pa.Array) -> list[Any]:
    """The values of an Arrow array as plain Python, in order; None for null."""
    plain = decoded(column)
    return _READERS[family_of(plain.type)](plain)


def decoded(column: pa.Array) -> pa.Array:
    """An array of the `plain_type` of this one's type, with the same values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        return decoded(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return decoded(pc.run_end_decode(column))
    return column if kind == plain_type(kind) else decoded(column.storage)


def reader_of(kind: pa.DataType, role: str) -> Callable[[pa.Array], list[Any]]:
    """How to read a column in a role, a field of `Treatment`: like `python_values`, but for two types.

    As ids, floats of less than 64 bits have their own shortest digits (0.1, not 0.10000000149011612); as texts, bytes
    of one length are UTF-8 or bytes, never digits.
    """
    import pyarrow as pa

    plain = plain_type(kind)
    if role == "id" and (pa.types.is_float16(plain) or pa.types.is_float32(plain)):
        return _short_floats
    return _bytes_as_text if role == "text" and family_of(plain) == "fixed bytes" else python_values


def _short_floats(column: pa.Array) -> list[Any]:
    narrow = plain_type(column.type).to_pandas_dtype()
    return [value if value is None else float(str(narrow(value))) for value in python_values(column)]


def _bytes_as_text(column: pa.Array) -> list[Any]:
    return _text(decoded(column))


def _plainly(column: pa.Array) -> list[Any]:
    return cast("list[Any]", column.to_pylist())


def _truths(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    is_stored = isinstance(column.type, pa.BaseExtensionType)  # bool8 is an integer of eight bits
    return _plainly(column.storage.cast(pa.bool_()) if is_stored else column)


def _unknown(column: pa.Array) -> list[Any]:
    unusable = Unusable(f"is of the type {column.type}, which cannot be read")
    return [unusable if valid else None for valid in column.is_valid().to_pylist()]


def _text(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    try:
        return cast("list[Any]", column.cast(pa.large_string()).to_pylist())
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return [_text_or_bytes(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _text_or_hex(column: pa.Array) -> list[Any]:
    """Bytes of one length are codes that can be read, or digests and UUIDs that cannot."""
    return [None if value is None else _printable_or_hex(value) for value in column.to_pylist()]


def _printable_or_hex(value: bytes) -> str:
    text = _text_or_bytes(value)
    return text if isinstance(text, str) and text.isprintable() else value.hex()


def _uuids(column: pa.Array) -> list[Any]:
    return [None if value is None else str(uuid.UUID(bytes=value)) for value in column.storage.to_pylist()]


def _nested(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        return _objects(column)
    lists = [python_values(scalar.values) if scalar.is_valid else None for scalar in column]
    if not pa.types.is_map(kind):
        return lists
    return [None if pairs is None else [list(pair.values()) for pair in pairs] for pairs in lists]


def _objects(column: pa.StructArray) -> list[Any]:
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    if len(set(names)) < len(names):
        twice = Unusable("has two fields of one name")
        return [twice if valid else None for valid in column.is_valid().to_pylist()]
    fields = [python_values(field) for field in column.flatten()]
    rows: Sequence[tuple[Any, ...]] = list(zip(*fields, strict=True)) if fields else [()] * len(column)
    return [
        dict(zip(names, row, strict=True)) if valid else None
        for row, valid in zip(rows, column.is_valid().to_pylist(), strict=True)
    ]


def _union(column: pa.UnionArray) -> list[Any]:
    import pyarrow as pa

    if column.offset:  # its codes do not know where a slice begins
        column = column.take(pa.array(range(len(column))))
    kind = column.type
    child_of = {code: child for child, code in enumerate(kind.type_codes)}
    children = [python_values(column.field(child)) for child in range(kind.num_fields)]
    codes = column.type_codes.to_pylist()
    is_dense = kind.id == pa.lib.Type_DENSE_UNION
    places = column.offsets.to_pylist() if is_dense else range(len(column))
    return [children[child_of[code]][place] for code, place in zip(codes, places, strict=True)]


_READERS: Mapping[str, Callable[[Any], list[Any]]] = {
    "null": _plainly,
    "truth": _truths,
    "integer": _plainly,
    "float": _plainly,
    "decimal": _plainly,
    "text": _text,
    "bytes": _text,
    "fixed bytes": _text_or_hex,
    "uuid": _uuids,
    "moment": moments,
    "span": spans,
    "nested": _nested,
    "union": _union,
    "unknown": _unknown,
}
