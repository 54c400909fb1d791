"""The physical layout of a part, chosen by measurement: columns of a real store in every encoding that could serve.

Called by `benchmarks.store --layouts`. One column at a time is written by pyarrow into memory and read back, on one
core, best of some rounds; the bits are those of the whole file, list lengths and page headers included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.base.poolings import is_count_pool
from featurestore.format.rows import SparseColumn
from featurestore.format.schema import round_values

ROUNDS = 3
OURS = {"compression": "zstd", "compression_level": 1, "use_dictionary": False, "write_statistics": False}
VALUE_BITS = (24, 12, 10, 8, 7, 6)


def measure(sparse: SparseColumn) -> list[dict[str, Any]]:
    """One record a layout: column, what, bits a non-zero, M non-zeros/s written and read.

    Args:
        sparse: A whole store's features, values unrounded.
    """
    return [
        {"column": column, "layout": name, **_one(sparse.indptr, values, encoding, options)}
        for column, name, values, encoding, options in _layouts(sparse.indices, sparse.values)
    ]


def _layouts(
    indices: np.ndarray, pools: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str, np.ndarray, str | None, dict[str, Any]]]:
    delta, split = "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
    for level in (1, 3, 9):
        yield "indices", f"delta-packed, zstd {level}", indices, delta, {"compression_level": level}
    yield "indices", "delta-packed, not compressed", indices, delta, {"compression": "none", "compression_level": None}
    for size in (64 << 10, 4 << 20):
        yield "indices", f"delta-packed, zstd 1, pages of {size >> 10} KiB", indices, delta, {"data_page_size": size}
    yield "indices", "delta-packed, zstd 1, version 2 pages", indices, delta, {"data_page_version": "2.0"}
    yield "indices", "delta-packed, zstd 1, checksums", indices, delta, {"write_page_checksum": True}
    indexed = {"write_page_index": True, "write_statistics": True}
    yield "indices", "delta-packed, zstd 1, statistics and page index", indices, delta, indexed
    for group in (2_000_000, 500_000):
        yield "indices", f"delta-packed, zstd 1, row groups of {group:,} non-zeros", indices, delta, {"group": group}
    yield "indices", "byte-stream-split, zstd 1", indices, split, {}
    yield "indices", "plain, zstd 1", indices, "PLAIN", {}
    yield "indices", "dictionary, zstd 1", indices, None, {"use_dictionary": True}
    for pool, exact in pools.items():
        bits = (None,) if is_count_pool(pool) else VALUE_BITS
        for kept in bits:
            values = exact if kept is None else round_values(exact, kept)
            what = "" if kept is None else f"{kept} bits, "
            yield pool, f"{what}byte-stream-split, zstd 1", values, split, {}
            if kept in (None, 8):
                for level in (3, 9):
                    yield pool, f"{what}byte-stream-split, zstd {level}", values, split, {"compression_level": level}
                yield pool, f"{what}plain, zstd 1", values, "PLAIN", {}
                yield pool, f"{what}dictionary, zstd 1", values, None, {"use_dictionary": True}
            if kept is None:
                yield pool, "delta-packed, zstd 1", values, delta, {}


def _one(indptr: np.ndarray, values: np.ndarray, encoding: str | None, options: dict[str, Any]) -> dict[str, float]:
    item = pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False)
    lists = pa.ListArray.from_arrays(pa.array(indptr.astype(np.int32)), pa.array(values), pa.list_(item))
    table = pa.table([lists], schema=pa.schema([pa.field("x", pa.list_(item), nullable=False)]))
    rest = {**OURS, **options}
    group = rest.pop("group", len(values))
    rows = max(1, round(group * table.num_rows / max(1, len(values))))
    if encoding:
        rest["column_encoding"] = {"x.list.element": encoding}
    write, read = [], []
    for _ in range(ROUNDS):
        sink = pa.BufferOutputStream()
        start = time.perf_counter()
        pq.write_table(table, sink, version="2.6", row_group_size=rows, **rest)
        write.append(time.perf_counter() - start)
        data = sink.getvalue()
        start = time.perf_counter()
        pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        read.append(time.perf_counter() - start)
    n = len(values)
    return {"bits": data.size * 8 / n, "write": n / min(write) / 1e6, "read": n / min(read) / 1e6}
