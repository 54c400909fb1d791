"""Read what a `Selection` asks for from the parts of a store: features as scipy CSR, dense columns as numpy.

Row groups without a selected document are not read at all, and what is left out of a row group is left out before
anything is joined, so memory is that of the result and one batch. How row groups are read is left to `parts`, how Arrow
becomes CSR to `csr`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from featurestore.base.poolings import MEAN
from featurestore.format.rows import dense_to_numpy
from featurestore.format.schema import DenseColumn
from featurestore.reading.csr import Assembler, Rows, rows_of_batch, to_csr
from featurestore.reading.parts import Parts
from featurestore.reading.selection import Selection

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Matrix(NamedTuple):
    """Features of N documents.

    Attributes:
        X: scipy.sparse.csr_matrix [N, features], canonical (sorted, no explicit zeros), writable. Its indices are
            int32 while there are fewer than 2**31 non-zeros; beyond, scipy needs int64 for pointers and indices.
        doc_id: object array of N strings, parallel to the rows.
    """

    X: csr_matrix
    doc_id: np.ndarray


def read_matrix(parts: Parts, selection: Selection) -> Matrix:
    """All selected rows, in input order; see `FeatureStore.matrix`."""
    n_rows = len(parts) if selection.rows is None else int(selection.rows.sum())
    # how many entries some of the features have is known only when they have been read
    expected = parts.entries(selection.sae.indices, selection.rows) if selection.features is None else 0
    assembler = Assembler(n_rows, selection.n_columns, selection.dtype, expected)
    doc_id = np.empty(n_rows, dtype=object)
    row = 0
    for piece, ids in _pieces(parts, selection):
        assembler.add(piece)
        doc_id[row : row + len(ids)] = ids
        row += len(ids)
    pa.default_memory_pool().release_unused()  # Arrow keeps what row groups took, up to half a matrix
    return Matrix(to_csr(assembler.result(), selection.n_columns), doc_id)


def read_batches(parts: Parts, selection: Selection) -> Iterator[Matrix]:
    """The rows of `read_matrix`, some at a time; see `FeatureStore.batches`."""
    return (Matrix(to_csr(piece, selection.n_columns), ids) for piece, ids in _pieces(parts, selection))


def read_rows(parts: Parts, selection: Selection, position: np.ndarray) -> Matrix:
    """Certain rows in any order, also more than once; each row group that holds some of them is read once.

    Args:
        parts: Where they lie.
        selection: Everything but the rows.
        position: int64 [K], rows of the store.

    Returns:
        A `Matrix` [K, ...]. Where `position` does not rise, the result is in memory twice for a moment.
    """
    mask = np.zeros(len(parts), dtype=bool)
    mask[position] = True
    found = read_matrix(parts, replace(selection, rows=mask))
    if (np.diff(position) > 0).all():
        return found
    order = np.searchsorted(np.flatnonzero(mask), position)
    return Matrix(found.X[order], found.doc_id[order])


def read_dense(parts: Parts, column: DenseColumn, rows: np.ndarray | None) -> np.ndarray:
    """float32 [selected rows, dim] of one dense column; see `FeatureStore.dense`."""
    matrix = np.empty((len(parts) if rows is None else int(rows.sum()), column.dim), dtype=np.float32)
    row = 0
    for _, first, batch in parts.groups([column.name], rows):
        part = dense_to_numpy(column, batch.column(column.name))
        part = part if rows is None else part[rows[first : first + len(part)]]
        matrix[row : row + len(part)] = part
        row += len(part)
    return matrix


def _pieces(parts: Parts, selection: Selection) -> Iterator[tuple[Rows, np.ndarray]]:
    """(rows, their ids) of a batch at a time."""
    sae = selection.sae
    columns = ["doc_id", sae.indices, sae.column(selection.stored)]
    columns += ["n_tokens"] if selection.pool == MEAN else []
    for unit, first, batch in parts.groups(columns, selection.rows, cut=True):
        keep = None if selection.rows is None else selection.rows[first : first + batch.num_rows]
        if keep is not None and not keep.any():
            continue
        try:
            piece = rows_of_batch(selection, batch, None if keep is None or keep.all() else keep)
        except ValueError as exc:
            raise parts.unreadable(unit, exc) from exc
        ids = batch.column("doc_id").to_numpy(zero_copy_only=False)
        del batch  # its memory goes before the next one is read
        yield piece, ids if keep is None else ids[keep]
