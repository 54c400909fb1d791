"""Under which condition a split is trained: as the study itself, or under one of its regimes; and how files name it.

A condition is a regime and its strength: 128 training documents, a fifth of the labels wrong, trained on English. Code
compares conditions; their names are made here, for files and tables, and nowhere read back. No two conditions of a
study have one name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

ALL = "all"  # what training on all values of the transfer column is called


class Regime(Enum):
    """What is made harder; the value begins the condition's name in the files of a study."""

    NONE = ""
    SIZE = "n"
    NOISE = "noise"
    MINORITY = "minority"
    TRANSFER = "train"


@dataclass(frozen=True)
class Condition:
    """A regime at one strength.

    Attributes:
        regime: Which one.
        level: How many documents, which share, or the value of the transfer column that is trained on; None for no
            regime, and for transfer where all values are trained on.
        written: The level in the name, where its usual spelling would be another's too.
    """

    regime: Regime = Regime.NONE
    level: int | float | str | None = None
    written: str | None = field(default=None, compare=False)

    @property
    def is_transfer(self) -> bool:
        """Whether its test documents are scored by the values of the transfer column."""
        return self.regime is Regime.TRANSFER

    def __str__(self) -> str:
        """As results.parquet and split.parquet have it: "" for the study itself, else such as "n=100"."""
        if self.regime is Regime.NONE:
            return ""
        level = ALL if self.level is None else f"{self.level:g}" if isinstance(self.level, float) else self.level
        return f"{self.regime.value}={level if self.written is None else self.written}"


STUDY = Condition()  # the study itself


def trained_on_all(values: Collection[str]) -> Condition:
    """The study itself, beside conditions that train on `values`; in brackets where one of these is `all` itself."""
    written = ALL
    while written in values:
        written = f"({written})"
    return Condition(Regime.TRANSFER, written=written)
