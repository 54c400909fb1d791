"""Values of a column that a study names (`test: [0]`, `train: [2020]`), found among those that the column holds.

Values compare as text: whole numbers of any type as their digits, truth values as `true` and `false`. A text such as
`1.0` stands for the number 1 only where nothing is written just so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from featurestore.errors import StudyError
from featurestore.nearest import did_you_mean

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")
_SHOWN = 5  # of the values that a column holds


def value_text(value: Any) -> str:
    """The text by which a value of a store's column compares."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def named_values(there: Iterable[str], wanted: Sequence[str], key: str, column: str) -> list[str]:
    """The values of a column that were meant, in the order in which they were named; empty where none is there.

    Args:
        there: What the column holds, as `value_text` has it.
        wanted: What the study names.
        key: The key that names them, for the message.
        column: The column's name, likewise.

    Raises:
        StudyError: The column holds some of them and not another, or two that one of them could mean.
    """
    held = sorted(set(there))
    found = {value: [o for o in held if o == value] or [o for o in held if _alike(value, o)] for value in wanted}
    for value, same in found.items():
        if len(same) > 1 or (not same and any(found.values())):
            hint = f"; both {same[0]} and {same[1]} could be meant" if same else did_you_mean(value, held)
            raise StudyError(f"{key}: {no_such_value(column, value, held)}{hint}")
    return [same[0] for same in found.values() if same]


def no_such_value(column: str, value: str, held: Sequence[str]) -> str:
    """The sentence about a value that a column does not hold."""
    more = f" and {len(held) - _SHOWN:,} more" if len(held) > _SHOWN else ""
    return f"column '{column}' holds no '{value}'; it holds: {', '.join(held[:_SHOWN])}{more}"


def _alike(value: str, other: str) -> bool:
    """Whether two texts are the same whole number, or the same truth value."""
    mine, theirs = _WHOLE.fullmatch(value), _WHOLE.fullmatch(other)
    if mine and theirs:
        return mine[1] == theirs[1]
    return value.lower() == other.lower() and value.lower() in {"true", "false"}
