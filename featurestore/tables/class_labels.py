"""Replace numbers by the names of classes that the `datasets` library keeps beside a Parquet file's ClassLabel column.

The names stand in the schema's metadata, and everything that reads such a file by `datasets` shows them; numbers alone
would mean nothing once the file is gone, and something else where two files count differently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.tables.arrow import family_of

if TYPE_CHECKING:
    import pyarrow as pa

_NONE = -1  # what `datasets` has for an example without a label


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Column of whole numbers -> the names that 0, 1, ... stand for, where the schema's metadata has them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" and feature.get("names")
            if name in schema.names and family_of(schema.field(name).type) == "integer"
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # no metadata of `datasets`, or of a version that writes it otherwise


def named(numbers: Iterable[Any], names: Sequence[str]) -> list[str | None]:
    """The names of classes; a number that has none stays one, as text."""
    return [
        None if number is None or number == _NONE else names[number] if 0 <= number < len(names) else str(number)
        for number in numbers
    ]
