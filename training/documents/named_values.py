"""Find the values that a study names (`test: [0]`, `train: [2020]`) among those that a column holds.

They compare as ids and classes do (`featurestore.tables.same_value`); only `True` and `TRUE` are also the truth value
that the store has as `true`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StudyError
from featurestore.tables.same_value import match_ids

_SHOWN = 5  # of the values that a column holds


def named_values(there: Iterable[str], wanted: Sequence[str], key: str, column: str) -> list[str]:
    """The values of a column that were meant, in the order in which they were named; empty where none is there.

    Args:
        there: What the column holds, as `compare.value_text` has it.
        wanted: What the study names.
        key: The key that names them, for the message.
        column: The column's name, likewise.

    Raises:
        StudyError: The column holds some of them and not another, or two that one of them could mean.
    """
    held = sorted(set(there))
    found = meant(held, wanted, f"{key}: column '{column}'")
    missing = [value for value, one in zip(wanted, found, strict=True) if one is None]
    if missing and len(missing) < len(wanted):
        raise StudyError(f"{key}: {no_such_value(column, missing[0], held)}{did_you_mean(missing[0], held)}")
    return list(dict.fromkeys(one for one in found if one is not None))


def meant(held: Sequence[str], wanted: Sequence[str], where: str) -> list[str | None]:
    """For each value that a study names the one of `held` that it is; None where there is none.

    Raises:
        StudyError: It could be two of them.
    """
    import polars as pl

    asked = [value if value in held or value.lower() not in {"true", "false"} else value.lower() for value in wanted]
    found = match_ids(pl.Series(held, dtype=pl.String), pl.Series(asked, dtype=pl.String))
    if found.clash:
        raise StudyError(f"{where}: {found.clash}; write each value as it stands there")
    return [held[row] if row >= 0 else None for row in found.row]


def no_such_value(column: str, value: str, held: Sequence[str]) -> str:
    """The sentence about a value that a column does not hold."""
    more = f" and {len(held) - _SHOWN:,} more" if len(held) > _SHOWN else ""
    return f"column '{column}' holds no '{value}'; it holds: {', '.join(held[:_SHOWN])}{more}"
