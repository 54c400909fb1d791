"""Check the rules that every row obeys (FORMAT.md, section 4); they are stated here once.

The writer refuses a row that breaks one, `verify` finds it on disk, `compact` does not carry it on. Each problem is one
phrase that names row and column; checks run over whole columns, because the writer makes them on every row it writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from featurestore.base.poolings import is_count_pool
from featurestore.format.rows import PartRows, SparseColumn
from featurestore.format.schema import SaeColumns, StoreSchema, round_values


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
