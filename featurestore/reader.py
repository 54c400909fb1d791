"""Reading a store: metadata as a polars LazyFrame, features as scipy CSR, one row group in memory at a time.

Rows always come in input order. Indices and row pointers are accumulated in int64, so no number of non-zeros is too
large; scipy narrows them to int32 where they fit. `mean` and binarised features are derived here, from what is stored.
What the features are good for is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from featurestore.errors import StoreError
from featurestore.files import is_local, read_json, shown
from featurestore.part import READ_ERRORS, open_part, part_path, part_problem, read_footer, read_group
from featurestore.plan import MANIFEST_JSON, StorePlan, open_root, read_plan
from featurestore.rows import dense_to_numpy, sparse_from_batch
from featurestore.schema import SaeColumns, StoreSchema
from featurestore.writer import committed_units

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_matrix

    from featurestore.verify import VerifyReport

MEAN = "mean"  # derived: sum / n_tokens


class Matrix(NamedTuple):
    """Features of N documents.

    Attributes:
        X: scipy.sparse.csr_matrix float32 [N, d_sae], canonical (sorted, no explicit zeros), writable.
        doc_id: object array of N strings, parallel to the rows.
    """

    X: csr_matrix
    doc_id: np.ndarray


@dataclass(frozen=True)
class StoreStatus:
    """How far a store is: units done of all, and totals over those done."""

    units_done: int
    units: int
    rows_done: int
    rows: int
    errors: int
    tokens: int
    bytes: int
    complete: bool


class FeatureStore:
    """A store open for reading; make one with `FeatureStore.open`.

    Attributes:
        uri: Where it is.
        plan: What `store.json` says.
        units: The units whose part is there, in order.
        complete: Whether all of them are, and the manifest too.
    """

    def __init__(self, uri: str, plan: StorePlan, parts: Mapping[int, int], manifest: Mapping[str, Any] | None) -> None:
        """Use `open`; `parts` is unit -> bytes, `manifest` is None while the store is being written."""
        self.uri = uri
        self.plan = plan
        self.units: tuple[int, ...] = tuple(unit for unit in parts if unit < len(plan.units))
        self.complete = manifest is not None and len(self.units) == len(plan.units)
        self._parts = parts
        self._manifest = manifest
        self._fs, self._root = open_root(uri)

    @classmethod
    def open(cls, uri: str, partial: bool = False) -> FeatureStore:
        """Open a store.

        Args:
            uri: Its directory or URL.
            partial: Whether to accept one that is still being written; it then consists of the parts that are there.

        Raises:
            StoreError: There is no store, it was edited, or it is incomplete and `partial` is false.
        """
        uri = str(uri)
        plan = read_plan(uri)
        fs, root = open_root(uri)
        try:
            manifest = read_json(fs, f"{root}/{MANIFEST_JSON}")
            if not isinstance(manifest, dict) or manifest.get("fingerprint") != plan.fingerprint:
                raise StoreError(f"{shown(uri)}/{MANIFEST_JSON} belongs to another job; delete it and rerun extract")
        except FileNotFoundError:
            manifest = None
        except ValueError as exc:
            raise StoreError(f"{shown(uri)}/{MANIFEST_JSON} is damaged ({exc}); delete it and rerun extract") from exc
        store = cls(uri, plan, committed_units(uri), manifest)
        if not store.complete and not partial:
            done, total = len(store.units), len(plan.units)
            missing = f"{done} of {total} units are there" + (f" but no {MANIFEST_JSON}" if done == total else "")
            raise StoreError(f"{shown(uri)} is incomplete: {missing}; rerun extract to finish it")
        return store

    @property
    def schema(self) -> StoreSchema:
        """Which columns the store has."""
        return self.plan.schema

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decided a value."""
        return self.plan.fingerprint

    @property
    def dense_names(self) -> tuple[str, ...]:
        """Names that `dense` takes."""
        return tuple(dense.name for dense in self.schema.dense)

    @cached_property
    def _rows(self) -> int:
        return sum(self.plan.unit_rows(unit) for unit in self.units)

    def __len__(self) -> int:
        """Documents in the parts that are there; all documents of the corpus if the store is complete."""
        return self._rows

    def documents(self) -> pl.LazyFrame:
        """The documents' metadata in input order.

        Returns:
            A polars LazyFrame [rows] of doc_id, the kept columns, n_tokens, truncated and error. On a local disk
            nothing is read before it is collected; from other file systems these columns are read at once.
        """
        import polars as pl

        columns = ["doc_id", *(name for name, _ in self.schema.keep), "n_tokens", "truncated", "error"]
        if is_local(self._fs) and self.units:
            paths = [part_path(self._root, unit) for unit in self.units]
            return pl.scan_parquet(paths, glob=False).select(columns)
        schema = pa.schema([self.schema.arrow_schema().field(name) for name in columns])
        batches = [batch.select(columns) for _, _, batch in self.groups(columns)]
        frame = pl.from_arrow(pa.Table.from_batches(batches, schema=schema))
        return frame.to_frame().lazy() if isinstance(frame, pl.Series) else frame.lazy()

    def matrix(self, sae: str | None = None, pool: str = "max", binarize: float | None = None) -> Matrix:
        """One SAE's features of every document.

        Args:
            sae: Which SAE; may be left out if the store has only one.
            pool: A stored pooling, or "mean" (sum / n_tokens).
            binarize: If given, a threshold t >= 0: the value is 1.0 where the pooled value is > t, else 0.

        Returns:
            A `Matrix` of all rows in input order. Peak memory is about the result and one row group being decoded.

        Raises:
            StoreError: No such SAE or pooling (the message lists those there are), or a part is damaged.
        """
        columns = self.sae(sae)
        pieces = list(self.batches(columns.name, pool, binarize))
        indptr = np.zeros(len(self) + 1, dtype=np.int64)
        nnz = sum(piece.X.nnz for piece in pieces)
        indices, data = np.empty(nnz, dtype=index_dtype(columns.d_sae)), np.empty(nnz, dtype=np.float32)
        doc_id = np.empty(len(self), dtype=object)
        row = entry = 0
        pieces.reverse()
        while pieces:  # pieces are freed as the result's untouched pages fill up, so the two never add up
            X, ids = pieces.pop()
            indptr[row + 1 : row + 1 + len(ids)] = X.indptr[1:].astype(np.int64) + entry
            indices[entry : entry + X.nnz], data[entry : entry + X.nnz] = X.indices, X.data
            doc_id[row : row + len(ids)] = ids
            row, entry = row + len(ids), entry + X.nnz
        return Matrix(_csr(data, indices, indptr, columns.d_sae), doc_id)

    def batches(self, sae: str | None = None, pool: str = "max", binarize: float | None = None) -> Iterator[Matrix]:
        """The rows of `matrix`, a row group at a time, in bounded memory; arguments and errors as there."""
        columns = self.sae(sae)
        stored = self._stored_pool(columns, pool)
        if binarize is not None and not binarize >= 0:
            raise StoreError(f"binarize must be a threshold >= 0, not {binarize}")
        return self._batches(columns, pool, stored, binarize)

    def _batches(self, sae: SaeColumns, pool: str, stored: str, binarize: float | None) -> Iterator[Matrix]:
        for unit, _, batch in self.groups(["doc_id", "n_tokens", sae.indices, sae.column(stored)]):
            try:
                sparse = sparse_from_batch(sae, (stored,), batch)
            except ValueError as exc:
                raise self._unreadable(unit, exc) from exc
            indptr, indices = sparse.indptr, column_indices(sparse.indices, sae.d_sae)
            values = sparse.values[stored].astype(np.float32)
            if pool == MEAN:
                values /= np.repeat(batch.column("n_tokens").to_numpy(), np.diff(indptr)).astype(np.float32)
            wanted = values > (0.0 if binarize is None else binarize)
            if binarize is not None:
                values = np.ones_like(values)
            if not wanted.all():
                indptr = np.concatenate([[0], np.cumsum(wanted)])[indptr]
                values, indices = values[wanted], indices[wanted]
            ids = batch.column("doc_id").to_numpy(zero_copy_only=False)
            yield Matrix(_csr(values, indices.copy(), indptr, sae.d_sae), ids)

    def dense(self, name: str) -> np.ndarray:
        """One dense column.

        Args:
            name: One of `dense_names`, e.g. "resid_post_9__hidden_mean".

        Returns:
            float32 [rows, dim] in input order; a row is NaN where the document has no counted token or an error.

        Raises:
            StoreError: No such column (the message lists those there are), or a part is damaged.
        """
        column = next((dense for dense in self.schema.dense if dense.name == name), None)
        if column is None:
            there = ", ".join(self.dense_names) or "none"
            raise StoreError(f"no dense column '{name}' in {shown(self.uri)}; it holds: {there}")
        matrix = np.empty((len(self), column.dim), dtype=np.float32)
        row = 0
        for _, _, batch in self.groups([name]):
            matrix[row : row + batch.num_rows] = dense_to_numpy(column, batch.column(name))
            row += batch.num_rows
        return matrix

    def groups(self, columns: Sequence[str]) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """(unit, row group, its rows as Arrow) of every part, in input order; StoreError if a part is damaged."""
        for unit in self.units:
            try:
                with open_part(self._fs, part_path(self._root, unit)) as file:
                    if problem := part_problem(file, self.plan, unit):
                        raise StoreError(f"{shown(self.uri)}: part {unit} {problem}; delete it and rerun extract")
                    for group in range(file.num_row_groups):
                        yield unit, group, read_group(file, group, columns)
            except READ_ERRORS as exc:
                raise self._unreadable(unit, exc) from exc

    def status(self) -> StoreStatus:
        """How far the store is; from the manifest, or from every part's footer while it is being written."""
        errors = tokens = 0
        if self.complete and self._manifest is not None:
            errors, tokens = int(self._manifest["errors"]), int(self._manifest["tokens"])
        else:
            for unit in self.units:
                try:
                    with open_part(self._fs, part_path(self._root, unit)) as file:
                        footer = read_footer(file)
                except READ_ERRORS as exc:
                    raise self._unreadable(unit, exc) from exc
                errors, tokens = errors + int(footer["errors"]), tokens + int(footer["tokens"])
        size = sum(self._parts[unit] for unit in self.units)
        done, rows = len(self.units), self.plan.rows
        return StoreStatus(done, len(self.plan.units), len(self), rows, errors, tokens, size, self.complete)

    def verify(self, quick: bool = False) -> VerifyReport:
        """Recheck every promise of FORMAT.md; see `featurestore.verify.verify_store`."""
        from featurestore.verify import verify_store

        return verify_store(self.uri, quick)

    def sae(self, name: str | None = None) -> SaeColumns:
        """The columns of one SAE, or of the only one; StoreError listing the names there are if that is unclear."""
        saes = self.schema.saes
        if name is None and len(saes) == 1:
            return saes[0]
        if name is None:
            there = ", ".join(sae.name for sae in saes) or "none"
            raise StoreError(f"say which SAE of {shown(self.uri)}; it holds: {there}")
        return self.schema.sae(name)

    def _unreadable(self, unit: int, exc: Exception) -> StoreError:
        hint = "if verify finds it damaged, delete it and rerun extract"
        return StoreError(f"{shown(self.uri)}: part {unit} cannot be read ({exc}); {hint}")

    def _stored_pool(self, sae: SaeColumns, pool: str) -> str:
        stored = "sum" if pool == MEAN else pool
        if stored not in sae.pools:
            there = ", ".join([*sae.pools, *([MEAN] if "sum" in sae.pools else [])])
            raise StoreError(f"no pooling '{pool}' of SAE '{sae.name}' in {shown(self.uri)}; it holds: {there}")
        return stored


def index_dtype(d_sae: int) -> type[np.signedinteger[Any]]:
    """Of a matrix's column indices: scipy's are signed, so the widest SAEs need 64 bits."""
    return np.int32 if d_sae <= 2**31 else np.int64


def column_indices(indices: np.ndarray, d_sae: int) -> np.ndarray:
    """uint32 features as scipy takes them; a view where 32 bits will do."""
    return indices.view(np.int32) if index_dtype(d_sae) is np.int32 else indices.astype(np.int64)


def _csr(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, d_sae: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    X = csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, d_sae))
    X.has_canonical_format = True  # rows are stored sorted and without duplicates, so scipy need not look
    return X
