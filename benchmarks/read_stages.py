"""Where the time of reading goes: nanoseconds a non-zero for each stage between a part on disk and a CSR matrix.

    python -m benchmarks.read_stages STORE [--json] [--record]

One column pair of the first part is written again without what a stage undoes (no zstd, no encoding, no lists), in
memory; the differences in reading are the stages. Seconds are of the processor, one core, the best of seven.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine, report
from featurestore import FeatureStore
from featurestore.format.part import part_path, read_group
from featurestore.reading.csr import Assembler, rows_of_batch
from featurestore.reading.selection import Selection

_REPEATS = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    described = machine.describe()
    stages = measure(args.store)
    figures = {"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "machine": described, "ns_per_non_zero": stages}
    if args.record:
        print(report.record("read-stages", figures, described), file=sys.stderr)
    lines = [("stage", "ns a non-zero"), *((name, f"{value:.2f}") for name, value in stages.items())]
    print(json.dumps(figures, indent=1, default=report.plain) if args.json else report.aligned(lines))
    return 0


def measure(root: str) -> dict[str, float]:
    """Stage -> nanoseconds a non-zero."""
    store = FeatureStore.open(root)
    sae = store.schema.saes[0]
    pool = sae.pools[0]
    columns = ["doc_id", sae.indices, sae.column(pool)]
    with pq.ParquetFile(part_path(root, 0)) as file:
        batches = [read_group(file, group, columns) for group in range(file.num_row_groups)]
    tables = {
        "indices": pa.Table.from_batches(batches).select([sae.indices]),
        "values": pa.Table.from_batches(batches).select([sae.column(pool)]),
    }
    nnz = sum(len(batch.column(sae.indices).flatten()) for batch in batches)

    def read(which: str, flat: bool, encoding: str, codec: str, checksum: bool = True) -> float:
        """ns a non-zero of reading one column written in a certain way."""
        table = tables[which]
        if flat:
            table = pa.table({"element": pa.chunked_array([c.flatten() for c in table.column(0).chunks])})
        name = "element" if flat else f"{table.column_names[0]}.list.element"
        sink = pa.BufferOutputStream()
        pq.write_table(
            table, sink, row_group_size=-(-table.num_rows // len(batches)), compression=codec, use_dictionary=False,
            column_encoding={name: encoding}, write_statistics=False, write_page_checksum=True,
        )  # fmt: skip
        data = sink.getvalue()

        def once() -> None:
            with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=checksum) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group, use_threads=False)

        return _ns(once, nnz)

    stages: dict[str, float] = {}
    for which, encoding in (("indices", "DELTA_BINARY_PACKED"), ("values", "BYTE_STREAM_SPLIT")):
        plain, encoded = read(which, True, "PLAIN", "none", False), read(which, True, encoding, "none", False)
        packed, lists = read(which, True, encoding, "zstd", False), read(which, False, encoding, "zstd", False)
        checked = read(which, False, encoding, "zstd")
        stages |= {
            f"{which}: pages into Arrow": plain,
            f"{which}: {encoding}": encoded - plain,
            f"{which}: zstd": packed - encoded,
            f"{which}: list levels": lists - packed,
            f"{which}: page checksums": checked - lists,
        }
    selection = Selection.of(sae, pool, None, np.float32, None, None)
    rows = [rows_of_batch(selection, batch, None) for batch in batches]
    stages["checks of indices and zeros"] = _ns(
        lambda: [rows_of_batch(selection, batch, None) for batch in batches], nnz
    )

    def join() -> None:
        assembler = Assembler(sum(batch.num_rows for batch in batches), sae.d_sae, selection.dtype, nnz)
        for piece in rows:
            assembler.add(piece)
        assembler.result()

    stages["one copy into the matrix"] = _ns(join, nnz)
    stages["sum"] = sum(stages.values())
    stages["the whole, through FeatureStore.matrix"] = _ns(
        lambda: store.matrix(sae.name, pool), _nnz(store, sae.name, pool)
    )
    return stages


def _nnz(store: FeatureStore, sae: str, pool: str) -> int:
    return int(store.matrix(sae, pool).X.nnz)


def _ns(once: Callable[[], object], nnz: int) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        begun = time.process_time()
        once()
        best = min(best, time.process_time() - begun)
    return best / nnz * 1e9


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.read_stages", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("store", help="a local store; its first SAE and pooling are read")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/read-stages-*.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
