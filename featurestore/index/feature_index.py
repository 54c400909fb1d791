"""Build and read the index of a store: the documents in which each feature is strongest, and its statistics.

One pass over one pooling keeps, for every feature, its K strongest documents; after that, to look up one of a million
features reads one small row group of one small Parquet file. It holds row numbers, not ids or texts, so it is a few
dozen megabytes beside a store of gigabytes (FORMAT.md knows nothing of it).

The index lies in this machine's cache, not in the store: whoever reads a store does not write to it. Its name is a hash
of the manifest (which has the sha256 of every part) and of the sizes of the parts, so a store that changed finds no
index and one is built anew. It is still not believed blindly: structure and bounds are checked when it is read, and
`lookup` compares the strongest document's value with the part itself. An incomplete store still changes and gets none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from featurestore.format.part import READ_ERRORS
from featurestore.reader import FeatureStore
from featurestore.reading.statistics import Accumulator
from featurestore.storage.cache import cache_path
from featurestore.storage.files import atomic_write

_VERSION = 1
_KEPT = 100  # documents a feature: pages of a terminal, and at 16k features 20 MB
_LEAST_KEPT = 10  # the default of `show --top`, for the widest SAEs too
_ENTRIES = 1 << 24  # bounds K where an SAE is wide: 16 documents each of a million features, 200 MB while it is built
_GROUP = 1024  # features a row group: read in milliseconds, and few enough row groups for a million features
_PENDING = 1 << 22  # candidates that wait to be sorted in: 16 bytes each

_SCHEMA = pa.schema(
    [
        pa.field("document_frequency", pa.int64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("second_moment", pa.float64(), nullable=False),
        pa.field("maximum", pa.float32(), nullable=False),
        pa.field("row", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False),
        pa.field("value", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
    ]
)


@dataclass(frozen=True)
class FeatureEntry:
    """What the index knows of one feature.

    Attributes:
        document_frequency: Documents in which it fires.
        mean: Over all documents of the store.
        second_moment: Mean of the squares over all documents.
        maximum: Largest pooled value, 0 if it never fires.
        row: int64 [k], the rows of its strongest documents, strongest first, ties in input order.
        value: float32 [k], their pooled values.
    """

    document_frequency: int
    mean: float
    second_moment: float
    maximum: float
    row: np.ndarray
    value: np.ndarray


class Strongest:
    """The K largest values of each of F features among the rows seen so far, with their rows."""

    def __init__(self, n_features: int, k: int) -> None:
        """Nothing seen yet."""
        self._k = k
        self._threshold = np.zeros(n_features, dtype=np.float32)  # only values above it can still enter
        self._n_features = n_features
        self._feature, self._row = np.empty(0, np.int64), np.empty(0, np.int64)
        self._value = np.empty(0, np.float32)
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, first: int) -> None:
        """Count in CSR rows with positive values; `first` is the number of the first row, rows come in order."""
        at = np.flatnonzero(data > self._threshold[indices])
        row = np.searchsorted(indptr, at, side="right") - 1 + first
        self._pending.append((indices[at].astype(np.int64), row, data[at]))
        if sum(len(feature) for feature, _, _ in self._pending) >= _PENDING:
            self._merge()

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 [F + 1] offsets, int64 rows, float32 values: by feature, largest first, ties in row order."""
        self._merge()
        counts = np.bincount(self._feature, minlength=self._n_features)
        return np.concatenate([[0], np.cumsum(counts)]), self._row, self._value

    def _merge(self) -> None:
        """Sort what waits in, keep K of each feature, and raise the thresholds."""
        pending, self._pending = [(self._feature, self._row, self._value), *self._pending], []
        feature, row, value = (np.concatenate(column) for column in zip(*pending, strict=True))
        # Positive floats sort as their bits do. A stable sort leaves ties in row order: older entries stand first.
        key = feature.astype(np.uint64) << np.uint64(32) | (np.uint64(0xFFFFFFFF) - value.view(np.uint32))
        order = np.argsort(key, kind="stable")
        feature = feature[order]
        begin = np.flatnonzero(np.concatenate([[True], feature[1:] != feature[:-1]])) if len(feature) else order
        size = np.diff(np.append(begin, len(feature)))
        kept = np.arange(len(feature)) - np.repeat(begin, size) < self._k
        self._feature, order = feature[kept], order[kept]
        self._row, self._value = row[order], value[order]
        full = size >= self._k
        last = np.cumsum(np.minimum(size, self._k)) - 1
        self._threshold[feature[begin[full]]] = self._value[last[full]]


def documents_kept(d_sae: int) -> int:
    """K: how many documents of each feature the index of an SAE of this width holds."""
    return max(_LEAST_KEPT, min(_KEPT, _ENTRIES // d_sae))


def index_path(store: FeatureStore, sae: str, pool: str) -> Path:
    """Where the index of one pooling of one SAE of a complete store lies, whether it is there or not."""
    return cache_path("index") / f"{store.contents_key()[:32]}-{sae}-{pool}.parquet"


def build_index(store: FeatureStore, sae: str, pool: str) -> pa.Table:
    """Read the whole store and make its index; one row for each feature, one batch of the store in memory."""
    d_sae = store.sae(sae).d_sae
    statistics, strongest = Accumulator(d_sae), Strongest(d_sae, documents_kept(d_sae))
    first = 0
    for X, _ in store.batches(sae, pool):
        statistics.add(X)
        strongest.add(X.indptr, X.indices, X.data, first)
        first += X.shape[0]
    found = statistics.result()
    offsets, row, value = strongest.result()
    lists = [
        pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(column), _SCHEMA.field(name).type)
        for name, column in (("row", row), ("value", value))
    ]
    columns = [found.document_frequency, found.mean, found.second_moment, found.maximum]
    return pa.Table.from_arrays([*map(pa.array, columns), *lists], schema=_SCHEMA)


def keep_index(store: FeatureStore, sae: str, pool: str, index: pa.Table) -> Path:
    """Write an index where `read_entry` finds it; OSError if the cache cannot be written."""
    sink = pa.BufferOutputStream()
    metadata = {"sparsemill.index_version": str(_VERSION), "sparsemill.contents": store.contents_key()}
    with pq.ParquetWriter(
        sink, _SCHEMA.with_metadata(metadata), compression="zstd", use_dictionary=False, write_page_checksum=True
    ) as writer:
        writer.write_table(index, row_group_size=_GROUP)
    path = index_path(store, sae, pool)
    atomic_write(pafs.LocalFileSystem(), str(path), sink.getvalue())
    return path


def read_entry(store: FeatureStore, sae: str, pool: str, feature: int) -> FeatureEntry | None:
    """One feature from the index on disk; None if there is no index, or one that cannot be of this store."""
    path = index_path(store, sae, pool)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata.metadata or {}
            d_sae = store.sae(sae).d_sae
            right = (
                metadata.get(b"sparsemill.index_version") == str(_VERSION).encode()
                and metadata.get(b"sparsemill.contents") == store.contents_key().encode()
                and file.schema_arrow.equals(_SCHEMA)
                and file.metadata.num_rows == d_sae
                and file.metadata.num_row_groups == -(-d_sae // _GROUP)
            )
            if not right:
                return None
            group = file.read_row_group(feature // _GROUP)
            if group.num_rows <= feature % _GROUP:
                return None
            return entry_of(group, feature % _GROUP, len(store))
    except READ_ERRORS:
        return None


def entry_of(index: pa.Table, at: int, n_documents: int) -> FeatureEntry | None:
    """One row of an index; None if it makes no sense for a store of this many documents."""
    values = index.slice(at, 1).to_pylist()[0]
    row, value = np.array(values.pop("row"), np.int64), np.array(values.pop("value"), np.float32)
    entry = FeatureEntry(**values, row=row, value=value)
    sound = all(_sound(entry, n_documents))
    return entry if sound else None


def _sound(entry: FeatureEntry, n_documents: int) -> Iterator[bool]:
    row, value = entry.row, entry.value
    yield len(row) == len(value) <= entry.document_frequency <= n_documents
    yield not len(row) or bool(row.min() >= 0 and row.max() < n_documents and len(np.unique(row)) == len(row))
    yield bool(np.isfinite(value).all() and (value > 0).all() and (np.diff(value) <= 0).all())
    yield entry.maximum == (value[0] if len(value) else 0)
