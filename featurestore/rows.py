"""The rows of one unit in memory, the rules that every row obeys, and their way to and from Arrow.

`PartRows` is what an extractor hands over. `problems` states the rules once, for the writer that refuses a bad row
and for `verify` that finds one on disk. Text and models are unknown here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.schema import DenseColumn, SaeColumns, StoreSchema, is_count_pool, round_values


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


def problems(schema: StoreSchema, rows: PartRows) -> Iterator[str]:
    """Every rule of the format that these rows break, each as a phrase naming the row (from 0) and column."""
    shape = list(_shape_problems(schema, rows))
    if shape:  # the checks below index with what is wrong here
        yield from shape
        return
    failed = np.array([text is not None for text in rows.error], dtype=bool)
    no_tokens = rows.n_tokens == 0
    if (i := _first(failed & ~no_tokens)) is not None:
        yield f"row {i}: has an error and yet n_tokens {int(rows.n_tokens[i])}"
    for sae in schema.saes:
        for row, what in _sparse_problems(sae, rows.sparse[sae.name], rows.n_tokens):
            yield f"row {row}: {what}"
    for dense in schema.dense:
        finite = np.isfinite(rows.dense[dense.name]).all(axis=1)
        if (i := _first(~finite & ~no_tokens)) is not None:
            yield f"row {i}: '{dense.name}' holds a value that is not finite"


def _shape_problems(schema: StoreSchema, rows: PartRows) -> Iterator[str]:
    n = len(rows)
    columns: dict[str, Any] = dict(rows.keep)
    columns |= {"n_tokens": rows.n_tokens, "truncated": rows.truncated, "error": rows.error}
    expected = {"n_tokens", "truncated", "error"} | {name for name, _ in schema.keep}
    yield from _name_problems("kept columns", set(columns), expected)
    for name, column in columns.items():
        if len(column) != n:
            yield f"'{name}' has {len(column)} rows and doc_id has {n}"
    if (i := next((i for i, doc_id in enumerate(rows.doc_id) if not isinstance(doc_id, str)), None)) is not None:
        yield f"row {i}: doc_id is no text"
    yield from _name_problems("SAEs", set(rows.sparse), {sae.name for sae in schema.saes})
    for sae in schema.saes:
        column = rows.sparse.get(sae.name)
        if column is None:
            continue
        nnz = len(column.indices)
        yield from _name_problems(f"poolings of '{sae.name}'", set(column.values), set(sae.pools))
        if column.indptr.shape != (n + 1,) or column.indptr.dtype != np.int64:
            yield f"'{sae.name}' needs an int64 indptr of length {n + 1}"
        elif column.indptr[0] != 0 or column.indptr[-1] != nnz or (np.diff(column.indptr) < 0).any():
            yield f"'{sae.name}' has an indptr that does not run from 0 up to its {nnz} indices"
        if column.indices.dtype != np.uint32:
            yield f"'{sae.name}' has {column.indices.dtype} indices; they must be uint32"
        for pool, values in column.values.items():
            kind = np.uint32 if is_count_pool(pool) else np.float32
            if values.shape != (nnz,) or values.dtype != kind:
                yield f"'{sae.column(pool)}' must be {np.dtype(kind)} parallel to its {nnz} indices"
    yield from _name_problems("dense columns", set(rows.dense), {dense.name for dense in schema.dense})
    for dense in schema.dense:
        matrix = rows.dense.get(dense.name)
        if matrix is not None and (matrix.shape != (n, dense.dim) or matrix.dtype != np.float32):
            yield f"'{dense.name}' must be float32 [{n}, {dense.dim}]"


def _name_problems(what: str, given: set[str], expected: set[str]) -> Iterator[str]:
    if given != expected:
        yield f"{what} are {sorted(given)}, the schema says {sorted(expected)}"


def _sparse_problems(sae: SaeColumns, column: SparseColumn, n_tokens: np.ndarray) -> Iterator[tuple[int, str]]:
    """(row, what is wrong) for the first offence of each rule."""
    indptr, indices = column.indptr, column.indices
    per_row = np.diff(indptr)
    filled = np.flatnonzero(per_row)
    if (i := _first((per_row > 0) & (n_tokens == 0))) is not None:
        yield i, f"has no tokens and yet {int(per_row[i])} features in '{sae.indices}'"
    falls = indices[1:] <= indices[:-1]
    falls[indptr[filled[1:]] - 1] = False  # a new document may start lower
    if (entry := _first(falls)) is not None:
        yield _row_of(indptr, entry + 1), f"'{sae.indices}' is not strictly increasing"
    if len(indices) and indices.max() >= sae.d_sae:
        entry = int(np.argmax(indices >= sae.d_sae))
        yield _row_of(indptr, entry), f"'{sae.indices}' holds {int(indices[entry])}, but d_sae is {sae.d_sae}"
    zero_everywhere = True  # until a pooling without any 0 is met
    for pool in sae.pools:
        values, name = column.values[pool], sae.column(pool)
        smallest = values.min(initial=1)  # NaN if there is one
        zero_everywhere &= not smallest > 0
        if is_count_pool(pool):
            most = np.maximum.reduceat(values, indptr[filled]) if len(filled) else values
            if (k := _first(most > n_tokens[filled])) is not None:
                yield int(filled[k]), f"'{name}' counts {int(most[k])} tokens, more than n_tokens"
        elif not (smallest >= 0 and values.max(initial=0) < np.inf):
            if (entry := _first(~np.isfinite(values))) is not None:
                yield _row_of(indptr, entry), f"'{name}' holds {values[entry]}, which is not finite"
            elif (entry := _first(values < 0)) is not None:
                yield _row_of(indptr, entry), f"'{name}' holds {values[entry]}, but activations are not negative"
        if pool in {"max", "sum", "count"} and not smallest > 0 and (entry := _first(values == 0)) is not None:
            yield _row_of(indptr, entry), f"'{name}' is 0 for a feature that is listed"
    if zero_everywhere:
        nonzero = np.zeros(len(indices), dtype=bool)
        for values in column.values.values():
            nonzero |= values != 0
        if (entry := _first(~nonzero)) is not None:
            yield _row_of(indptr, entry), f"'{sae.indices}' lists {int(indices[entry])}, which is 0 in every pooling"


def _first(mask: np.ndarray) -> int | None:
    """Position of the first True, None if there is none."""
    return int(mask.argmax()) if mask.any() else None


def _row_of(indptr: np.ndarray, entry: int) -> int:
    return int(np.searchsorted(indptr, entry, side="right")) - 1


def rounding_problems(schema: StoreSchema, rows: PartRows) -> Iterator[str]:
    """Columns whose stored values carry more than `value_bits` significant bits."""
    for sae in schema.saes:
        for pool, values in rows.sparse[sae.name].values.items():
            if is_count_pool(pool):
                continue
            off = round_values(values, schema.value_bits) != values
            if (entry := _first(off & np.isfinite(values))) is not None:
                row = _row_of(rows.sparse[sae.name].indptr, entry)
                yield f"row {row}: '{sae.column(pool)}' has more than {schema.value_bits} significant bits"


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
        if not np.array_equal(np.diff(column.offsets.to_numpy()), np.diff(indptr)):
            row = _first(np.diff(column.offsets.to_numpy()) != np.diff(indptr))
            raise ValueError(f"row {row}: '{sae.column(pool)}' is not as long as '{sae.indices}'")
        values[pool] = column.flatten().to_numpy()
    return SparseColumn(indptr - indptr[0], indices.flatten().to_numpy(), values)


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
