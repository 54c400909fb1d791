"""Read the columns that stand in the way to a file and not in it: `lang=de/year=2024/part-0.parquet`, as Hive writes.

The value is the directory's text, with its percent signs undone. It counts where the file has no such column, or a line
of JSON no such key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from featurestore.finding.files import SourceFile
from featurestore.tables.record import MISSING, Record, Wanted


def without_partitions(
    file: SourceFile, names: Collection[str] | None, wanted: Wanted
) -> tuple[Wanted, dict[str, str | None]]:
    """What to look for in a file, and what its path tells instead.

    Args:
        file: The file.
        names: Its columns; None where each row has its own.
        wanted: What is to be kept, among others.
    """
    told = {name: value for name, value in file.partitions.items() if name in wanted.keep}
    if names is None:
        return wanted, told
    told = {name: value for name, value in told.items() if name not in names}
    return replace(wanted, keep=tuple(name for name in wanted.keep if name not in told)), told


def with_partitions(
    records: Iterator[Record], read: Wanted, wanted: Wanted, told: Mapping[str, str | None]
) -> Iterator[Record]:
    """Records of what was read in a file, with what its path tells put where it is wanted."""
    if not told:
        return records
    place = {name: i for i, name in enumerate(read.keep)}
    ways = [(place.get(name), told.get(name, MISSING)) for name in wanted.keep]

    def values(there: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(told if i is None or there[i] is MISSING else there[i] for i, told in ways)

    return (record._replace(keep=values(record.keep)) for record in records)
