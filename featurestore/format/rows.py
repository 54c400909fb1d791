"""Hold the rows of one unit in memory, and convert them to and from Arrow.

`PartRows` is what an extractor hands over. Which rules they must obey stands in `rules`; text and models are unknown
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.base.poolings import is_count_pool
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema, round_values


@dataclass(frozen=True)
class SparseColumn:
    """One SAE's features of N documents, in CSR order.

    Attributes:
        indptr: int64 [N + 1]; document i owns entries indptr[i]:indptr[i + 1].
        indices: uint32 [nnz], strictly increasing within a document.
        values: pooling -> [nnz], float32 for max, sum and last, uint32 for count and top{N}.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: Mapping[str, np.ndarray]

    def rows(self, start: int, stop: int) -> SparseColumn:
        """Documents start:stop as views, with indptr starting at 0."""
        lo, hi = int(self.indptr[start]), int(self.indptr[stop])
        values = {pool: array[lo:hi] for pool, array in self.values.items()}
        return SparseColumn(self.indptr[start : stop + 1] - lo, self.indices[lo:hi], values)


@dataclass(frozen=True)
class PartRows:
    """N documents, in input order.

    Attributes:
        doc_id: N unique strings.
        keep: Column name -> N values (None where null).
        n_tokens: uint32 [N], tokens pooled.
        truncated: bool [N], whether some content token was not pooled.
        error: N sentences, None where the document went well. Such a row has n_tokens 0 and no features.
        sparse: SAE name -> its features.
        dense: Column name -> float32 [N, dim]; rows without a counted token are stored as null whatever they hold.
    """

    doc_id: list[str]
    keep: Mapping[str, list[Any]]
    n_tokens: np.ndarray
    truncated: np.ndarray
    error: list[str | None]
    sparse: Mapping[str, SparseColumn]
    dense: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.doc_id)

    def slice(self, start: int, stop: int) -> PartRows:
        """Documents start:stop, as views where there are arrays."""
        return PartRows(
            doc_id=self.doc_id[start:stop],
            keep={name: column[start:stop] for name, column in self.keep.items()},
            n_tokens=self.n_tokens[start:stop],
            truncated=self.truncated[start:stop],
            error=self.error[start:stop],
            sparse={name: column.rows(start, stop) for name, column in self.sparse.items()},
            dense={name: matrix[start:stop] for name, matrix in self.dense.items()},
        )

    @property
    def n_errors(self) -> int:
        """Documents with an error."""
        return sum(text is not None for text in self.error)

    @property
    def total_tokens(self) -> int:
        """Tokens pooled over all documents."""
        return int(self.n_tokens.sum(dtype=np.int64))


def concat_rows(pieces: Sequence[PartRows]) -> PartRows:
    """The documents of all pieces (at least one, all of one schema), one after the other."""
    first = pieces[0]
    return PartRows(
        doc_id=[doc_id for piece in pieces for doc_id in piece.doc_id],
        keep={name: [value for piece in pieces for value in piece.keep[name]] for name in first.keep},
        n_tokens=np.concatenate([piece.n_tokens for piece in pieces]),
        truncated=np.concatenate([piece.truncated for piece in pieces]),
        error=[error for piece in pieces for error in piece.error],
        sparse={name: _concat_sparse([piece.sparse[name] for piece in pieces]) for name in first.sparse},
        dense={name: np.concatenate([piece.dense[name] for piece in pieces]) for name in first.dense},
    )


def _concat_sparse(pieces: Sequence[SparseColumn]) -> SparseColumn:
    per_row = np.concatenate([np.diff(piece.indptr) for piece in pieces])
    return SparseColumn(
        np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
        np.concatenate([piece.indices for piece in pieces]),
        {pool: np.concatenate([piece.values[pool] for piece in pieces]) for pool in pieces[0].values},
    )


def to_table(schema: StoreSchema, rows: PartRows, start: int, stop: int) -> pa.Table:
    """Rows start:stop as an Arrow table in the schema's column order, values rounded.

    Raises:
        UnicodeEncodeError: An id or kept text holds a lone surrogate; an error's text is repaired instead.
        pa.ArrowException: A kept value does not fit its column's type.
    """
    arrow = schema.arrow_schema()
    errors = [_printable(text) for text in rows.error[start:stop]]
    columns = [pa.array(rows.doc_id[start:stop], pa.string())]
    columns += [pa.array(rows.keep[name][start:stop], arrow.field(name).type) for name, _ in schema.keep]
    columns += [
        pa.array(np.ascontiguousarray(rows.n_tokens[start:stop], dtype=np.uint32)),
        pa.array(np.ascontiguousarray(rows.truncated[start:stop], dtype=bool)),
        pa.array(errors, pa.string()),
    ]
    for sae in schema.saes:
        sparse = rows.sparse[sae.name].rows(start, stop)
        offsets = pa.array(sparse.indptr.astype(np.int32))
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(sparse.indices), arrow.field(sae.indices).type))
        for pool in sae.pools:
            values = sparse.values[pool]
            values = values if is_count_pool(pool) else round_values(values, schema.value_bits)
            columns.append(pa.ListArray.from_arrays(offsets, pa.array(values), arrow.field(sae.column(pool)).type))
    empty = rows.n_tokens[start:stop] == 0
    columns += [_dense_to_arrow(dense, rows.dense[dense.name][start:stop], empty) for dense in schema.dense]
    return pa.Table.from_arrays(columns, schema=arrow)


def from_batch(schema: StoreSchema, batch: pa.RecordBatch) -> PartRows:
    """The inverse of `to_table`, for one record batch of a part; dense nulls become NaN."""
    return PartRows(
        doc_id=batch.column("doc_id").to_pylist(),
        keep={name: batch.column(name).to_pylist() for name, _ in schema.keep},
        n_tokens=batch.column("n_tokens").to_numpy(),
        truncated=batch.column("truncated").to_numpy(zero_copy_only=False),
        error=batch.column("error").to_pylist(),
        sparse={sae.name: sparse_from_batch(sae, sae.pools, batch) for sae in schema.saes},
        dense={dense.name: dense_to_numpy(dense, batch.column(dense.name)) for dense in schema.dense},
    )


def sparse_from_batch(sae: SaeColumns, pools: tuple[str, ...], batch: pa.RecordBatch) -> SparseColumn:
    """One SAE's columns of a record batch as CSR; indices and values are views of Arrow's memory.

    Raises:
        ValueError: A pooling's lists are not as long as the lists of indices.
    """
    indices = batch.column(sae.indices)
    indptr = indices.offsets.to_numpy().astype(np.int64)
    values = {}
    for pool in pools:
        column = batch.column(sae.column(pool))
        check_parallel(sae, pool, indices, column)
        values[pool] = column.flatten().to_numpy()
    return SparseColumn(indptr - indptr[0], indices.flatten().to_numpy(), values)


def check_parallel(sae: SaeColumns, pool: str, indices: pa.ListArray, values: pa.ListArray) -> None:
    """ValueError naming the first row that has not as many values as indices."""
    wrong = np.diff(values.offsets.to_numpy()) != np.diff(indices.offsets.to_numpy())
    if wrong.any():
        raise ValueError(f"row {wrong.argmax()}: '{sae.column(pool)}' is not as long as '{sae.indices}'")


def dense_to_numpy(dense: DenseColumn, column: pa.FixedSizeListArray) -> np.ndarray:
    """float32 [N, dim] of one dense column, NaN where it is null."""
    matrix = column.values.slice(column.offset * dense.dim, len(column) * dense.dim).to_numpy(zero_copy_only=False)
    matrix = matrix.reshape(len(column), dense.dim).astype(np.float32, copy=True)
    matrix[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return matrix


def _dense_to_arrow(dense: DenseColumn, matrix: np.ndarray, empty: np.ndarray) -> pa.Array:
    flat = np.where(empty[:, None], np.float32(0), matrix).reshape(-1)  # what lies under a null must not vary
    item = pa.field("element", pa.float32(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=pa.list_(item, dense.dim), mask=pa.array(empty))


def _printable(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
