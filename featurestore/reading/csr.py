"""Convert Arrow's list columns to scipy CSR: views where Arrow's memory can be handed on, else one copy.

A list column of a row group *is* a CSR matrix, so the work is to check it (indices in bounds and rising, or scipy
would read beyond its arrays), to leave out what was not asked for, and to join row groups with 64-bit row pointers.
Checks run over blocks that stay in the processor's cache: memory traffic is what decoding is short of already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from featurestore.base.poolings import MEAN
from featurestore.format.rows import check_parallel
from featurestore.reading.selection import Selection, runs

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_BLOCK = 1 << 15  # entries checked at a time: 128 kB of indices and as much of values stay in a core's L2 cache


class Rows(NamedTuple):
    """CSR arrays of some rows.

    Attributes:
        indptr: int64 or int32 [rows + 1], from 0.
        indices: int32 [nnz], int64 where d_sae needs it.
        data: [nnz].
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


def rows_of_batch(selection: Selection, batch: pa.RecordBatch, keep: np.ndarray | None) -> Rows:
    """The selected part of one row group.

    Args:
        selection: What to take.
        batch: The row group: the SAE's indices and the stored pooling, n_tokens if the pooling is "mean".
        keep: bool [rows of the batch], the rows to take; None for all of them.

    Returns:
        Its rows. Arrays may be views of the batch's memory, which is then theirs alone and may be written to.

    Raises:
        ValueError: Lists are not parallel, or indices are out of bounds or not rising: the part is damaged.
    """
    sae = selection.sae
    lists, pooled = batch.column(sae.indices), batch.column(sae.column(selection.stored))
    indptr, indices = _offsets(lists), lists.flatten().to_numpy()
    check_parallel(sae, selection.stored, lists, pooled)
    _check(indptr, indices, sae.d_sae, sae.indices)
    indices, data = column_indices(_writable(lists.flatten()), sae.d_sae), _writable(pooled.flatten())
    n_tokens = batch.column("n_tokens").to_numpy() if selection.pool == MEAN else None
    if keep is not None:
        indptr, indices, data = _some_rows(keep, Rows(indptr, indices, data))
        n_tokens = None if n_tokens is None else n_tokens[keep]
    if selection.features is not None:
        column = selection.columns(indices)
        at = np.flatnonzero(column)
        indptr, indices, data = np.searchsorted(at, indptr), column[at] - np.int32(1), data[at]
    rows = _values(selection, Rows(indptr, indices, data), n_tokens)
    return rows if selection.keeps_order else _sorted(rows, selection.n_columns)


def index_dtype(d_sae: int) -> type[np.signedinteger[Any]]:
    """Of a matrix's column indices: scipy's are signed, so the widest SAEs need 64 bits."""
    return np.int32 if d_sae <= 2**31 else np.int64


def column_indices(indices: np.ndarray, d_sae: int) -> np.ndarray:
    """uint32 features as scipy takes them; a view where 32 bits will do."""
    return indices.view(np.int32) if index_dtype(d_sae) is np.int32 else indices.astype(np.int64)


def to_csr(rows: Rows, n_columns: int) -> csr_matrix:
    """scipy's matrix over these arrays: int32 indices and pointers where they fit, else int64."""
    from scipy.sparse import csr_matrix

    X = csr_matrix((rows.data, rows.indices, rows.indptr), shape=(len(rows.indptr) - 1, n_columns))
    X.has_canonical_format = True  # rows are checked to be sorted and without duplicates, so scipy need not look
    return X


class Assembler:
    """Joins the rows of one row group after the other into one matrix.

    Where the number of entries is known beforehand they are written straight into the result. Otherwise, or where that
    number turns out too small, pieces are kept and joined at the end; each is freed as the result fills up, so that the
    two never add up.
    """

    def __init__(self, n_rows: int, n_columns: int, dtype: np.dtype, expected: int = 0) -> None:
        """Room for `expected` entries in `n_rows` rows; pages that are not written to cost nothing."""
        kind = index_dtype(n_columns)
        self._indptr = np.zeros(n_rows + 1, dtype=np.int64)
        self._indices, self._data = np.empty(expected, dtype=kind), np.empty(expected, dtype=dtype)
        self._later: list[tuple[np.ndarray, np.ndarray]] = []
        self._row = self._nnz = self._placed = 0

    def add(self, rows: Rows) -> None:
        """Append rows."""
        n, nnz = len(rows.indptr) - 1, len(rows.indices)
        self._indptr[self._row + 1 : self._row + 1 + n] = shifted(rows.indptr[1:], self._nnz)
        if not self._later and self._nnz + nnz <= len(self._indices):
            place = slice(self._nnz, self._nnz + nnz)
            self._indices[place], self._data[place] = rows.indices, rows.data
            self._placed += nnz
        else:
            self._later.append((_compact(rows.indices), _compact(rows.data)))
        self._row, self._nnz = self._row + n, self._nnz + nnz

    def result(self) -> Rows:
        """All rows; the assembler is of no use afterwards."""
        if self._later:
            pieces = [(self._indices[: self._placed], self._data[: self._placed]), *self._later][::-1]
            self._later.clear()
            self._indices, self._data = (np.empty(self._nnz, old.dtype) for old in (self._indices, self._data))
            entry = 0
            while pieces:
                indices, data = pieces.pop()
                self._indices[entry : entry + len(indices)], self._data[entry : entry + len(data)] = indices, data
                entry += len(indices)
        return Rows(self._indptr, self._indices[: self._nnz], self._data[: self._nnz])


def shifted(indptr: np.ndarray, before: int) -> np.ndarray:
    """Row pointers behind `before` earlier entries, in int64 whatever they were: sums pass 2**31 where parts do not."""
    return np.add(indptr, before, dtype=np.int64)


def _compact(array: np.ndarray) -> np.ndarray:
    """An array of its own: a view would keep the memory of a whole row group alive."""
    return array if array.base is None else array.copy()


def _offsets(lists: pa.ListArray) -> np.ndarray:
    """int32 [rows + 1] from 0."""
    offsets = lists.offsets.to_numpy()
    return offsets if offsets[0] == 0 else offsets - offsets[0]


def _check(indptr: np.ndarray, indices: np.ndarray, d_sae: int, name: str) -> None:
    """ValueError unless indices are below d_sae and rise within each row."""
    falls = 0
    for start in range(0, len(indices), _BLOCK):
        block = indices[start : start + _BLOCK + 1]
        if int(block.max()) >= d_sae:
            raise ValueError(f"'{name}' holds {int(block.max())}, but d_sae is {d_sae}")
        falls += int(np.count_nonzero(block[1:] <= block[:-1]))
    starts = indptr[1:-1]
    starts = np.unique(starts[(starts > 0) & (starts < len(indices))])
    if falls != np.count_nonzero(indices[starts] <= indices[starts - 1]):  # only a new row may start lower
        raise ValueError(f"'{name}' is not strictly increasing in some row")


def _writable(values: pa.Array) -> np.ndarray:
    """The values without a copy if Arrow lets us write to them (they were decoded for us alone), else copied."""
    view = values.to_numpy()
    memory = values.buffers()[1]
    if memory is None or not memory.is_mutable:
        return view.copy()
    return np.frombuffer(memory, view.dtype, len(view), values.offset * view.itemsize)


def _some_rows(keep: np.ndarray, rows: Rows) -> Rows:
    """Only the rows where `keep`; copied run by run, for neighbouring rows lie side by side."""
    indptr = np.zeros(int(keep.sum()) + 1, dtype=np.int64)
    np.cumsum(np.diff(rows.indptr)[keep], out=indptr[1:])
    spans = [slice(rows.indptr[start], rows.indptr[stop]) for start, stop in runs(keep)]
    indices = np.concatenate([rows.indices[:0], *(rows.indices[span] for span in spans)])
    return Rows(indptr, indices, np.concatenate([rows.data[:0], *(rows.data[span] for span in spans)]))


def _values(selection: Selection, rows: Rows, n_tokens: np.ndarray | None) -> Rows:
    """Derive the mean, binarise, leave out zeros and give values their dtype."""
    indptr, indices, data = rows
    if n_tokens is not None:
        data = data / np.repeat(n_tokens, np.diff(indptr)).astype(np.float32)
    # float32 values are compared with the float32 nearest to the threshold, as numpy compares an array and a number
    threshold = data.dtype.type(selection.binarize or 0) if data.dtype == np.float32 else selection.binarize or 0
    if not all(block.min() > threshold for block in _blocks(data)):
        at = np.flatnonzero(data > threshold)
        indptr, indices, data = np.searchsorted(at, indptr), indices[at], data[at]
    if selection.binarize is not None:
        return Rows(indptr, indices, np.ones(len(data), dtype=selection.dtype))
    return Rows(indptr, indices, data.astype(selection.dtype, copy=False))


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), _BLOCK):
        yield array[start : start + _BLOCK]


def _sorted(rows: Rows, n_columns: int) -> Rows:
    X = to_csr(rows, n_columns)
    X.has_sorted_indices = False
    X.sort_indices()
    return Rows(X.indptr, X.indices, X.data)
