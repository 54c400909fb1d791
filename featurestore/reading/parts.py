"""Read the parts of an open store as one sequence of rows: which to open, and how their row groups are decoded.

A part is checked by its footer whenever rows are read from it. Parts and row groups without a wanted row are not read,
and what is read comes in batches that fit the processor's cache. What the columns mean is left to the callers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from featurestore.errors import StoreError
from featurestore.format.part import READ_ERRORS, open_part, part_path, part_problem, read_group, unreadable
from featurestore.format.part_file import PartFile
from featurestore.format.store_plan import StorePlan, open_root
from featurestore.storage.files import shown

# Entries that a part is believed to hold for each of its bytes: four times as many as the smallest real store has. Room
# for what a footer claims beyond that is made only when the entries are really there.
_ENTRIES_A_BYTE = 4

# Entries decoded at a time. What is done with them stays in the processor's cache, and the memory of one batch serves
# the next, where whole row groups would have to be zeroed by the system each time.
BATCH_ENTRIES = 1 << 20


class Parts:
    """The parts that are there.

    Attributes:
        units: Their units, in order.
        sizes: Unit -> bytes of its file.
    """

    def __init__(self, uri: str, plan: StorePlan, sizes: Mapping[int, int]) -> None:
        """`sizes` may name files that are no units of the plan; these are left out of `units`."""
        self.units: tuple[int, ...] = tuple(unit for unit in sizes if unit < len(plan.units))
        self.sizes = sizes
        self._uri = uri
        self._plan = plan
        self._fs, self._root = open_root(uri)
        self._rows = sum(plan.unit_rows(unit) for unit in self.units)

    def __len__(self) -> int:
        """Rows of all of them."""
        return self._rows

    def groups(
        self, columns: Sequence[str], rows: np.ndarray | None = None, cut: bool = False
    ) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Row groups as Arrow, in input order.

        Args:
            columns: Which columns of the parts.
            rows: bool [rows of all parts]; row groups without any of these are not read, parts without any not opened.
            cut: Whether row groups come in pieces, of about BATCH_ENTRIES entries of the SAE that has most of them.

        Yields:
            (unit, row of the store that is the first of these rows, the rows).

        Raises:
            StoreError: A part is damaged or another job's.
        """
        for unit, first, file in self._files(rows):
            for group in range(file.num_row_groups):
                n_rows = file.metadata.row_group(group).num_rows
                wanted = np.flatnonzero(rows[first : first + n_rows]) if rows is not None else [n_rows - 1]
                if n_rows and len(wanted):
                    before, stop = first, first + int(wanted[-1]) + 1
                    size = self._rows_a_batch(file, group) if cut else n_rows
                    for batch in self._decoded(unit, file, group, columns, size):
                        yield unit, before, batch
                        before += batch.num_rows
                        del batch  # a consumer that has let go of it gets its memory back before the next is read
                        if before >= stop:  # what lies behind the last wanted row need not be decoded
                            break
                first += n_rows

    def _rows_a_batch(self, file: PartFile, group: int) -> int:
        about = file.metadata.row_group(group)
        at = [file.schema_arrow.get_field_index(sae.indices) for sae in self._plan.schema.saes]
        entries = max((about.column(column).num_values for column in at), default=0)
        return max(1, min(about.num_rows, about.num_rows * BATCH_ENTRIES // max(entries, 1)))

    def _decoded(
        self, unit: int, file: PartFile, group: int, columns: Sequence[str], n_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """A row group, so many rows at a time."""
        try:
            if n_rows == file.metadata.row_group(group).num_rows:
                yield read_group(file, group, columns)
            else:
                yield from file.iter_batches(n_rows, group, columns)
        except READ_ERRORS as exc:
            raise self.unreadable(unit, exc) from exc

    def _files(self, rows: np.ndarray | None) -> Iterator[tuple[int, int, PartFile]]:
        """(unit, row of the store that is its first, its part, open) of every unit that has a selected row."""
        first = 0
        for unit in self.units:
            n_rows = self._plan.unit_rows(unit)
            if rows is None or rows[first : first + n_rows].any():
                with self._open(unit) as file:
                    yield unit, first, file
            first += n_rows

    @contextmanager
    def _open(self, unit: int) -> Iterator[PartFile]:
        """A part of this store, checked by its footer; what goes wrong while it is open is a StoreError."""
        try:
            with open_part(self._fs, part_path(self._root, unit)) as file:
                if problem := part_problem(file, self._plan, unit):
                    raise StoreError(f"{shown(self._uri)}: part {unit} {problem}; delete it and rerun extract")
                yield file
        except READ_ERRORS as exc:
            raise self.unreadable(unit, exc) from exc

    def entries(self, column: str, rows: np.ndarray | None) -> int:
        """About how many entries of a list column the selected rows have, as far as the parts' footers can be believed.

        All of them, if all rows are selected; else each row group's share, and a little more.
        """
        total = 0
        for unit, first, file in self._files(rows):
            at = file.schema_arrow.get_field_index(column)  # each of our columns is one column of Parquet's, too
            entries = 0.0
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                n_rows = about.num_rows
                share = 1.0 if rows is None else 1.05 * rows[first : first + n_rows].sum() / max(n_rows, 1)
                entries += min(share, 1.0) * about.column(at).num_values
                first += n_rows
            total += int(min(entries, _ENTRIES_A_BYTE * self.sizes[unit]))
        return total

    def unreadable(self, unit: int, exc: Exception) -> StoreError:
        """What to say when a part cannot be read."""
        return unreadable(self._uri, unit, exc)
