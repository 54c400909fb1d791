"""Count, before a run, the rows that will have an error instead of features: by file and kind, with an example.

Of text files every row is looked at; of a Parquet file's texts its own statistics tell the nulls, and a sample the
rest. The sentences that `plan` makes of these counts are in `planning.corpus_warnings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.base.number_words import counted, error_kind

if TYPE_CHECKING:
    import pyarrow.parquet as pq


_BATCH_ROWS = 1024  # as corpora are read: some tens of MB of long documents


@dataclass(frozen=True)
class UnreadableRows:
    """Rows of one file that cannot be read for one kind of reason.

    Attributes:
        file: Its name.
        kind: What is wrong, without names and numbers.
        count: How many of the rows that were looked at.
        looked_at: Rows that were looked at.
        row: The first of them.
        example: What is wrong with that.
        setting: The key of JOB.yaml that may be to blame.
        sampled: Whether only a sample was looked at.
    """

    file: str
    kind: str
    count: int
    looked_at: int
    row: int
    example: str
    setting: str
    sampled: bool = False


class ErrorCounts:
    """Counts the rows of a file that cannot be read, by kind."""

    def __init__(self) -> None:
        self.by_setting: dict[str, int] = {}
        self._found: dict[str, tuple[int, int, str, str]] = {}

    def add(self, row: int, error: str, setting: str, count: int = 1) -> None:
        """So many rows cannot be read, the first of them and why, and the key of JOB.yaml that may be to blame."""
        self.by_setting[setting] = self.by_setting.get(setting, 0) + count
        kind = error_kind(error)
        before, first, example, blamed = self._found.get(kind, (0, row, error, setting))
        self._found[kind] = (before + count, first, example, blamed)

    def rows(self, file: str, looked_at: int, sampled: bool = False) -> tuple[UnreadableRows, ...]:
        """What was counted, the commonest first."""
        found = sorted(self._found.items(), key=lambda kind: -kind[1][0])
        return tuple(
            UnreadableRows(file, kind, count, looked_at, row, example, setting, sampled)
            for kind, (count, row, example, setting) in found
        )


def count_null_texts(parquet: pq.ParquetFile, column: str, errors: ErrorCounts) -> bool:
    """Count the nulls of a Parquet file's text column by its schema and statistics; whether they tell them all."""
    import pyarrow as pa

    metadata = parquet.metadata
    if pa.types.is_null(parquet.schema_arrow.field(column).type):
        if metadata.num_rows:
            errors.add(0, f"the text in '{column}' is null", "corpus.text", metadata.num_rows)
        return True
    place = next((i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column), None)
    first, complete = 0, place is not None
    for number in range(metadata.num_row_groups if place is not None else 0):
        group = metadata.row_group(number)
        told = group.column(place).statistics
        if told is None or not told.has_null_count:
            complete = complete and not group.num_rows
        elif told.null_count:
            row = first if errors.by_setting else first + _first_null(parquet, number, column)
            errors.add(row, f"the text in '{column}' is null", "corpus.text", told.null_count)
        first += group.num_rows
    return complete


def _first_null(parquet: pq.ParquetFile, group: int, column: str) -> int:
    """The first row of a row group that has no value, which its statistics say there is."""
    row = 0
    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
        missing = batch.column(0).is_null().to_pylist()
        if True in missing:
            return row + missing.index(True)
        row += batch.num_rows
    return row


def no_row_can_be_read(found: Sequence[UnreadableRows], rows: int) -> str:
    """The sentence for a corpus of which a run could use nothing: the commonest reason, an example, what to check."""
    kinds: dict[str, list[UnreadableRows]] = {}
    for one in found:
        kinds.setdefault(one.kind, []).append(one)
    worst = max(kinds.values(), key=lambda same: sum(one.count for one in same))
    first, count = worst[0], sum(one.count for one in worst)
    many = counted(rows, "row") if count == rows else f"{count:,} of {counted(rows, 'row')}"
    return (
        f"no row of the corpus can be read ({many}: {first.kind}; the first: {first.file} row {first.row:,}, "
        f"{first.example}); check {first.setting}"
    )
