"""Reading a store: metadata as a polars LazyFrame, features as scipy CSR, a part of a row group in memory at a time.

Rows come in input order. Row groups without a selected document are not read at all, and what is left out of a row
group is left out before anything is joined, so memory is that of the result and one batch. What a selection is
stands in `selection`, how row groups are read in `parts`, how Arrow becomes CSR in `csr`, what is done by document id
in `documents`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from featurestore.csr import Assembler, Rows, rows_of_batch, to_csr
from featurestore.documents import IdReport, match_table, row_mask, row_positions, stored_documents
from featurestore.errors import StoreError
from featurestore.files import read_json, shown
from featurestore.parts import Parts
from featurestore.plan import MANIFEST_JSON, StorePlan, canonical_json, open_root, read_plan
from featurestore.rows import dense_to_numpy
from featurestore.schema import SaeColumns, StoreSchema
from featurestore.selection import MEAN, Selection
from featurestore.writer import committed_units

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_matrix

    from featurestore.statistics import FeatureStatistics
    from featurestore.verify import VerifyReport


class Matrix(NamedTuple):
    """Features of N documents.

    Attributes:
        X: scipy.sparse.csr_matrix [N, features], canonical (sorted, no explicit zeros), writable. Its indices are
            int32 while there are fewer than 2**31 non-zeros; beyond, scipy needs int64 for pointers and indices.
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
        self._parts = Parts(uri, plan, parts)
        self.units = self._parts.units
        self.complete = manifest is not None and len(self.units) == len(plan.units)
        self._joined: pl.DataFrame | None = None
        self._manifest = manifest

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

    def contents_key(self) -> str:
        """Hex sha256 over the manifest (which has every part's) and the sizes of the parts that are there.

        Raises:
            StoreError: The store is incomplete: its contents are not settled.
        """
        if not self.complete:
            raise StoreError(f"{shown(self.uri)} is incomplete, so its contents are not settled; rerun extract")
        return hashlib.sha256(canonical_json([self._manifest, sorted(self._parts.sizes.items())])).hexdigest()

    @property
    def dense_names(self) -> tuple[str, ...]:
        """Names that `dense` takes."""
        return tuple(dense.name for dense in self.schema.dense)

    def __len__(self) -> int:
        """Documents in the parts that are there; all documents of the corpus if the store is complete."""
        return len(self._parts)

    @property
    def metadata_columns(self) -> list[str]:
        """Names of the columns of a part that are neither features nor dense vectors."""
        return ["doc_id", *(name for name, _ in self.schema.keep), "n_tokens", "truncated", "error"]

    def documents(self) -> pl.LazyFrame:
        """The documents' metadata in input order.

        Returns:
            A polars LazyFrame [rows] of doc_id, the kept columns, n_tokens, truncated and error, and the columns of
            tables that were joined. On a local disk nothing is read before it is collected; from other file systems
            these columns are read at once.
        """
        frame = stored_documents(self, self._parts.local_paths())
        return (
            frame if self._joined is None else frame.join(self._joined.lazy(), "doc_id", "left", maintain_order="left")
        )

    def join(self, table: pl.DataFrame | pl.LazyFrame, id: str = "doc_id") -> tuple[FeatureStore, IdReport]:
        """The same store with the columns of another table beside its documents', e.g. labels; nothing is written.

        They can be used wherever columns of `documents()` can: to select rows, and as classes of `statistics`.

        Args:
            table: At most one row for each document, in any order.
            id: The column of `table` that holds the documents' ids.

        Returns:
            The store, and which documents have no row in the table (their values are null) and which ids of the table
            are no documents of the store (they are left out).

        Raises:
            StoreError: No such column, an id that stands twice, a column that the store has already, or no common id.
        """
        matched, report = match_table(self, table, id)
        joined = copy(self)
        if self._joined is not None:
            matched = self._joined.join(matched, "doc_id", "full", coalesce=True)
        joined._joined = matched
        return joined, report

    def mask(self, rows: pl.Expr | np.ndarray) -> np.ndarray:
        """bool [len(store)] of a row selection as `matrix` takes it; StoreError if it cannot be applied."""
        return row_mask(self, rows)

    def positions(self, doc_id: Iterable[str]) -> np.ndarray:
        """int64 [K], the row of each id in `documents()`; StoreError naming the first id that is not there."""
        return row_positions(self, doc_id)

    def matrix(
        self,
        sae: str | None = None,
        pool: str = "max",
        binarize: float | None = None,
        *,
        rows: pl.Expr | np.ndarray | None = None,
        features: Sequence[int] | np.ndarray | None = None,
        dtype: Any = np.float32,
    ) -> Matrix:
        """One SAE's features of the documents.

        Args:
            sae: Which SAE; may be left out if the store has only one.
            pool: A stored pooling, or "mean" (sum / n_tokens).
            binarize: If given, a threshold t >= 0: the value is 1 where the pooled value is > t, else 0.
            rows: Which documents: a polars expression over `documents()`, e.g. `pl.col("lang") == "de"` (null is no),
                or bool [len(store)]. All of them if left out.
            features: Which features, K of them; column k of the result is features[k]. All of them if left out.
            dtype: float32 or float64; with `binarize` also bool, int8, uint8, int32 or int64. Counts above 2**24 are
                exact only in float64.

        Returns:
            A `Matrix` [selected documents, d_sae or K] in input order. Peak memory is about the result and one batch
            being decoded.

        Raises:
            StoreError: No such SAE or pooling (the message lists those there are), a selection that makes no sense, or
                a part is damaged.
        """
        selection = self._selection(sae, pool, binarize, rows, features, dtype)
        n_rows = len(self) if selection.rows is None else int(selection.rows.sum())
        # how many entries some of the features have is known only when they have been read
        expected = self._parts.entries(selection.sae.indices, selection.rows) if selection.features is None else 0
        assembler = Assembler(n_rows, selection.n_columns, selection.dtype, expected)
        doc_id = np.empty(n_rows, dtype=object)
        row = 0
        for piece, ids in self._pieces(selection):
            assembler.add(piece)
            doc_id[row : row + len(ids)] = ids
            row += len(ids)
        return Matrix(to_csr(assembler.result(), selection.n_columns), doc_id)

    def batches(
        self,
        sae: str | None = None,
        pool: str = "max",
        binarize: float | None = None,
        *,
        rows: pl.Expr | np.ndarray | None = None,
        features: Sequence[int] | np.ndarray | None = None,
        dtype: Any = np.float32,
    ) -> Iterator[Matrix]:
        """The rows of `matrix`, some at a time, in bounded memory; arguments and errors as there.

        A batch has at most about a million stored entries and is of one row group. Batches of all SAEs and poolings of
        a store with the same `rows` have the same documents, so that several can be read in step.
        """
        selection = self._selection(sae, pool, binarize, rows, features, dtype)
        return (Matrix(to_csr(piece, selection.n_columns), ids) for piece, ids in self._pieces(selection))

    def take(
        self,
        doc_id: Iterable[str],
        sae: str | None = None,
        pool: str = "max",
        binarize: float | None = None,
        *,
        features: Sequence[int] | np.ndarray | None = None,
        dtype: Any = np.float32,
    ) -> Matrix:
        """The rows of certain documents, in the order asked for (an id may come twice); reads only their row groups.

        Args:
            doc_id: K ids.
            sae, pool, binarize, features, dtype: As for `matrix`.

        Raises:
            StoreError: As `matrix`; or an id is not in the store.
        """
        position = self.positions(doc_id)
        mask = np.zeros(len(self), dtype=bool)
        mask[position] = True
        X, ids = self.matrix(sae, pool, binarize, rows=mask, features=features, dtype=dtype)
        order = np.searchsorted(np.flatnonzero(mask), position)
        return Matrix(X[order], ids[order])

    def _selection(
        self,
        sae: str | None,
        pool: str,
        binarize: float | None,
        rows: pl.Expr | np.ndarray | None,
        features: Sequence[int] | np.ndarray | None,
        dtype: Any,
    ) -> Selection:
        selection = Selection.of(self.sae(sae), pool, binarize, dtype, features, None)
        return selection if rows is None else replace(selection, rows=row_mask(self, rows))

    def _pieces(self, selection: Selection) -> Iterator[tuple[Rows, np.ndarray]]:
        sae = selection.sae
        columns = ["doc_id", sae.indices, sae.column(selection.stored)]
        columns += ["n_tokens"] if selection.pool == MEAN else []
        for unit, first, batch in self.groups(columns, selection.rows, cut=True):
            keep = None if selection.rows is None else selection.rows[first : first + batch.num_rows]
            if keep is not None and not keep.any():
                continue
            try:
                piece = rows_of_batch(selection, batch, None if keep is None or keep.all() else keep)
            except ValueError as exc:
                raise self._parts.unreadable(unit, exc) from exc
            ids = batch.column("doc_id").to_numpy(zero_copy_only=False)
            del batch  # its memory goes before the next one is read
            yield piece, ids if keep is None else ids[keep]

    def dense(self, name: str, rows: pl.Expr | np.ndarray | None = None) -> np.ndarray:
        """One dense column.

        Args:
            name: One of `dense_names`, e.g. "resid_post_9__hidden_mean".
            rows: Which documents, as for `matrix`.

        Returns:
            float32 [selected documents, dim] in input order; a row is NaN where the document has no counted token or an
            error.

        Raises:
            StoreError: No such column (the message lists those there are), or a part is damaged.
        """
        column = next((dense for dense in self.schema.dense if dense.name == name), None)
        if column is None:
            there = ", ".join(self.dense_names) or "none"
            raise StoreError(f"no dense column '{name}' in {shown(self.uri)}; it holds: {there}")
        mask = None if rows is None else row_mask(self, rows)
        matrix = np.empty((len(self) if mask is None else int(mask.sum()), column.dim), dtype=np.float32)
        row = 0
        for _, first, batch in self.groups([name], mask):
            part = dense_to_numpy(column, batch.column(name))
            part = part if mask is None else part[mask[first : first + len(part)]]
            matrix[row : row + len(part)] = part
            row += len(part)
        return matrix

    def groups(
        self, columns: Sequence[str], rows: np.ndarray | None = None, cut: bool = False
    ) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Row groups as Arrow, in input order; see `featurestore.parts.Parts.groups`."""
        return self._parts.groups(columns, rows, cut)

    def status(self) -> StoreStatus:
        """How far the store is; from the manifest, or from every part's footer while it is being written."""
        errors = tokens = 0
        if self.complete and self._manifest is not None:
            errors, tokens = int(self._manifest["errors"]), int(self._manifest["tokens"])
        else:
            for footer in self._parts.footers():
                errors, tokens = errors + int(footer["errors"]), tokens + int(footer["tokens"])
        size = sum(self._parts.sizes[unit] for unit in self.units)
        done, rows = len(self.units), self.plan.rows
        return StoreStatus(done, len(self.plan.units), len(self), rows, errors, tokens, size, self.complete)

    def statistics(
        self,
        sae: str | None = None,
        pool: str = "max",
        *,
        rows: pl.Expr | np.ndarray | None = None,
        labels: str | np.ndarray | None = None,
    ) -> FeatureStatistics:
        """Statistics of every feature in one pass; see `featurestore.statistics.feature_statistics`."""
        from featurestore.statistics import feature_statistics

        return feature_statistics(self, sae, pool, rows=rows, labels=labels)

    def part_bytes(self, unit: int) -> int:
        """Size of the part of a unit that is there."""
        return self._parts.sizes[unit]

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
