"""Open a store for reading: `FeatureStore`, and which module answers each of its methods.

Rows come in input order, everywhere. What a selection is stands in `reading.selection`, how it becomes a matrix in
`matrices`, what is known of documents in `metadata` and by their ids in `documents`, how row groups are read in
`parts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StoreError
from featurestore.format.provenance import encoders
from featurestore.format.schema import SaeColumns, StoreSchema
from featurestore.format.store_plan import MANIFEST_JSON, StorePlan, canonical_json, read_plan
from featurestore.reading.documents import IdReport, match_table, row_mask, row_positions
from featurestore.reading.matrices import Matrix as Matrix
from featurestore.reading.matrices import read_batches, read_dense, read_matrix, read_rows
from featurestore.reading.metadata import metadata_frame
from featurestore.reading.parts import Parts
from featurestore.reading.selection import Selection
from featurestore.storage.files import shown
from featurestore.writing.writer import committed_units, read_manifest

if TYPE_CHECKING:
    import polars as pl

    from featurestore.checks.verify import VerifyReport
    from featurestore.reading.completeness import StoreStatus
    from featurestore.reading.statistics import FeatureStatistics


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
    def open(cls, uri: str | PathLike[str], partial: bool = False) -> FeatureStore:
        """Open a store.

        Args:
            uri: Its directory or URL.
            partial: Whether to accept one that is still being written; it then consists of the parts that are there.

        Raises:
            StoreError: There is no store, it was edited, or it is incomplete and `partial` is false.
        """
        uri = str(uri)
        plan = read_plan(uri)
        store = cls(uri, plan, committed_units(uri), read_manifest(uri, plan))
        if not store.complete and not partial:
            done, total = len(store.units), len(plan.units)
            missing = f"{done} of {total} units are there" + (f" but no {MANIFEST_JSON}" if done == total else "")
            raise StoreError(f"{shown(uri)} is incomplete: {missing}; rerun extract to finish it")
        return store

    def __repr__(self) -> str:
        from featurestore.reading.glance import one_line

        return one_line(self.uri, len(self), self.complete, self.schema)

    def _repr_html_(self) -> str:
        """As a notebook shows it: its schema and first documents."""
        from featurestore.reading.glance import page

        return page(self.uri, len(self), self.complete, self.schema, self.documents())

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

    @property
    def encoders(self) -> dict[str, str | None]:
        """SAE -> sha256 of its encoder, by which it is the same under any name; None where an earlier version wrote."""
        return encoders(self.plan)

    def __len__(self) -> int:
        """Documents in the parts that are there; all documents of the corpus if the store is complete."""
        return len(self._parts)

    @property
    def metadata_columns(self) -> list[str]:
        """Names of the columns of a part that are neither features nor dense vectors."""
        return self.schema.metadata_columns

    def documents(self) -> pl.LazyFrame:
        """The documents' metadata in input order.

        Returns:
            A polars LazyFrame [rows] of doc_id, the kept columns, n_tokens, truncated and error, and the columns of
            tables that were joined. Nothing is read before it is collected, and then only the columns that count;
            a damaged part is a StoreError then.
        """
        frame = metadata_frame(self._parts, self.schema)
        return (
            frame if self._joined is None else frame.join(self._joined.lazy(), "doc_id", "left", maintain_order="left")
        )

    def join(self, table: Any, id: str = "doc_id") -> tuple[FeatureStore, IdReport]:
        """The same store with the columns of another table beside its documents', e.g. labels; nothing is written.

        They can be used wherever columns of `documents()` can: to select rows, and as classes of `statistics`.

        Args:
            table: At most one row for each document, in any order: of polars, pandas or pyarrow, or the path or URL of
                a file or files, in any format that a corpus can have.
            id: The column of `table` that holds the documents' ids: texts, whole numbers of any type, UUIDs. They
                compare as `featurestore.tables.same_value` says ("001" is not 1, but 1.0 is).

        Returns:
            The store, and which documents have no row in the table (their values are null) and which ids of the table
            are no documents of the store (they are left out).

        Raises:
            StoreError: A table that cannot be read, no such column, an id that stands twice, a column that the store
                has already, or no common id.
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

    def positions(self, doc_id: Iterable[object]) -> np.ndarray:
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
        dtype: DTypeLike = np.float32,
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
        return read_matrix(self._parts, self._selection(sae, pool, binarize, rows, features, dtype))

    def batches(
        self,
        sae: str | None = None,
        pool: str = "max",
        binarize: float | None = None,
        *,
        rows: pl.Expr | np.ndarray | None = None,
        features: Sequence[int] | np.ndarray | None = None,
        dtype: DTypeLike = np.float32,
    ) -> Iterator[Matrix]:
        """The rows of `matrix`, some at a time, in bounded memory; arguments and errors as there.

        A batch has at most about a million stored entries and is of one row group. Batches of all SAEs and poolings of
        a store with the same `rows` have the same documents, so that several can be read in step.
        """
        return read_batches(self._parts, self._selection(sae, pool, binarize, rows, features, dtype))

    def take(
        self,
        doc_id: Iterable[object],
        sae: str | None = None,
        pool: str = "max",
        binarize: float | None = None,
        *,
        features: Sequence[int] | np.ndarray | None = None,
        dtype: DTypeLike = np.float32,
    ) -> Matrix:
        """The rows of certain documents, in the order asked for (an id may come twice).

        Only their row groups are read, each once; memory is that of the ids of the store, the result (twice where the
        order asked for is not that of the store) and one batch.

        Args:
            doc_id: K ids, in a list, an array or a column of a table; numbers stand for their text, as in `join`.
            sae, pool, binarize, features, dtype: As for `matrix`.

        Raises:
            StoreError: As `matrix`; or an id is not in the store.
        """
        selection = self._selection(sae, pool, binarize, None, features, dtype)
        return read_rows(self._parts, selection, self.positions(doc_id))

    def _selection(
        self,
        sae: str | None,
        pool: str,
        binarize: float | None,
        rows: pl.Expr | np.ndarray | None,
        features: Sequence[int] | np.ndarray | None,
        dtype: DTypeLike,
    ) -> Selection:
        selection = Selection.of(self.sae(sae), pool, binarize, dtype, features, None)
        return selection if rows is None else replace(selection, rows=row_mask(self, rows))

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
            hint = did_you_mean(name, self.dense_names)
            raise StoreError(f"no dense column '{name}' in {shown(self.uri)}; it holds: {there}{hint}")
        return read_dense(self._parts, column, None if rows is None else row_mask(self, rows))

    def groups(
        self, columns: Sequence[str], rows: np.ndarray | None = None, cut: bool = False
    ) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Row groups as Arrow, in input order; see `featurestore.reading.parts.Parts.groups`."""
        return self._parts.groups(columns, rows, cut)

    def status(self) -> StoreStatus:
        """How far the store is; from the manifest, or from every part's footer while it is being written."""
        from featurestore.reading.completeness import store_status

        return store_status(self, self._manifest)

    def statistics(
        self,
        sae: str | None = None,
        pool: str = "max",
        *,
        rows: pl.Expr | np.ndarray | None = None,
        labels: str | np.ndarray | None = None,
    ) -> FeatureStatistics:
        """Statistics of every feature in one pass; see `featurestore.reading.statistics.feature_statistics`."""
        from featurestore.reading.statistics import feature_statistics

        return feature_statistics(self, sae, pool, rows=rows, labels=labels)

    def part_bytes(self, unit: int) -> int:
        """Size of the part of a unit that is there."""
        return self._parts.sizes[unit]

    def verify(self, quick: bool = False) -> VerifyReport:
        """Recheck every promise of FORMAT.md; see `featurestore.checks.verify.verify_store`."""
        from featurestore.checks.verify import verify_store

        return verify_store(self.uri, quick)

    def sae(self, name: str | None = None) -> SaeColumns:
        """The columns of one SAE, or of the only one; StoreError listing the names there are if that is unclear."""
        saes = self.schema.saes
        if name is None and not saes:
            raise StoreError(f"{shown(self.uri)} holds no features of an SAE")
        if name is None and len(saes) > 1:
            there = ", ".join(sae.name for sae in saes)
            raise StoreError(f"say which SAE of {shown(self.uri)}; it holds: {there}")
        return saes[0] if name is None else self.schema.sae(name)
