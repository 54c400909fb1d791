"""The store beside other formats for sparse features: bits a non-zero, and millions of them written and read a second.

    python -m benchmarks.store [--store URI --sae NAME] [--documents 500] [--repeats 5] [--layouts] [--json] [--record]

The features are real: Reuters R8 articles through Gemma 3 270M and the benchmark's 16k-wide SAE, extracted once and
kept in the cache (some minutes), or any store given with `--store`. Sizes are those of that store. Rates are taken on
its rows repeated up to `--entries` non-zeros, so that a run takes tenths of a second (formats that take seconds even so
get the rows once); pages are compressed one by one, so repetition makes nothing smaller or faster.

Everybody gets the same values (rounded to 8 significant bits, `ours, exact` excepted), runs on one core, writes files
and reads them back from the page cache into a scipy CSR matrix that is compared with the original; the formats take
turns, and medians are given. Ours writes by `write_part`: checks of every rule, rounding, encoding, sha256, fsync and
rename included; the others just write. Nothing else of ours is left out: ids, tokens, footer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report, store_layouts
from featurestore.errors import SparsemillError
from featurestore.format.rows import PartRows, SparseColumn

LAYER, WIDTH, MAX_TOKENS, DOCUMENTS = 9, 16_384, 1024, 500
POOLS = ("max", "sum", "count")
ENTRIES = 16_000_000
SLOW = ("scipy npz", "h5ad, gzip", "svmlight")
"""Formats that take twenty times as long or more: they get the rows without repetition."""


@dataclass(frozen=True)
class Row:
    """One format: bits a non-zero, and millions of non-zeros a second."""

    bits: float
    write: float
    read: float


@dataclass(frozen=True)
class Figures:
    """Everything that one command measured."""

    command: list[str]
    machine: dict[str, Any]
    features: dict[str, Any]
    columns: dict[str, float]
    formats: dict[str, Row]
    steps: dict[str, float]
    layouts: list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    args = _parser().parse_args(argv)
    described = machine.describe()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        figures = measure(args, described)
    except SparsemillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.record:
        print(report.record("store", asdict(figures), described), file=sys.stderr)
    print(json.dumps(asdict(figures)) if args.json else shown(figures))
    return 0


def measure(args: argparse.Namespace, described: dict[str, Any]) -> Figures:
    """All of it."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    uri = args.store or str(real_store(args.documents, args.width))
    rows, d_sae, name = read_rows(uri, args.sae)
    sparse = rows.sparse[name]
    nnz = len(sparse.indices)
    columns = column_bits(rows, d_sae, name)
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=args.work) as folder:
        formats = _compare(rows, d_sae, name, Path(folder), args.repeats, args.entries)
        steps = _steps(tiled(rows, args.entries), d_sae, name, Path(folder), args.repeats)
    return Figures(
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        machine=described,
        features={"documents": len(rows), "non_zeros": nnz, "a_document": nnz / len(rows), "d_sae": d_sae},
        columns=columns,
        formats=formats,
        steps=steps,
        layouts=store_layouts.measure(sparse) if args.layouts else [],
    )


def real_store(documents: int, width: int) -> Path:
    """R8 through the model and the benchmark's SAE, exact values; extracted where it is not in the cache."""
    from benchmarks.corpus import evenly_spaced, load_texts, write_jsonl
    from benchmarks.peers import Sae, Setup
    from benchmarks.peers.ours import job_mapping
    from benchmarks.weights import MODEL_NAME, model_directory, sae_directory
    from featurestore.format.store_plan import create_store
    from featurestore.storage.cache import cache_path
    from featurestore.writing.writer import finish_store
    from ray_jobs.planning.job_plan import make_plan
    from ray_jobs.spec import job_from_mapping
    from ray_jobs.workers.worker import Worker, WorkerTask

    path = cache_path("benchmarks") / f"store-r8-{documents}-{width}"
    if (path / "manifest.json").is_file():
        return path
    model = model_directory()
    sae = Sae(str(sae_directory(LAYER, width, model)), LAYER)
    setup = Setup(model=str(model), model_name=MODEL_NAME, saes=(sae,), max_tokens=MAX_TOKENS, threads=1)
    corpus = write_jsonl(path.with_suffix(".jsonl"), evenly_spaced(load_texts(), documents))
    plan = make_plan(job_from_mapping({**job_mapping(setup, corpus, path), "value_bits": 24}, corpus.parent))
    create_store(str(path), plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    finish_store(str(path), [worker.run(unit).record for unit in plan.units])
    return path


def read_rows(uri: str, sae: str | None) -> tuple[PartRows, int, str]:
    """One SAE's rows of a store, with max, sum and count where they are stored; its width; its name."""
    from featurestore import FeatureStore
    from featurestore.format.rows import concat_rows, sparse_from_batch

    store = FeatureStore.open(uri)
    columns = store.sae(sae)
    pools = tuple(pool for pool in POOLS if pool in columns.pools)
    pieces = []
    needed = ["doc_id", "n_tokens", columns.indices, *(columns.column(pool) for pool in pools)]
    for _, _, batch in store.groups(needed):
        n = batch.num_rows
        sparse = sparse_from_batch(columns, pools, batch)
        ids, n_tokens = batch.column("doc_id").to_pylist(), batch.column("n_tokens").to_numpy()
        pieces.append(PartRows(ids, {}, n_tokens, np.zeros(n, bool), [None] * n, {columns.name: sparse}, {}))
    return concat_rows(pieces), columns.d_sae, columns.name


def tiled(rows: PartRows, entries: int) -> PartRows:
    """The rows repeated until they hold about so many non-zeros; ids stay unique."""
    from featurestore.format.rows import concat_rows

    times = max(1, round(entries / max(1, sum(len(column.indices) for column in rows.sparse.values()))))
    if times == 1:
        return rows
    return concat_rows([replace(rows, doc_id=[f"{i}:{doc_id}" for doc_id in rows.doc_id]) for i in range(times)])


def with_pools(rows: PartRows, name: str, pools: Sequence[str]) -> PartRows:
    """The rows with only these poolings."""
    sparse = rows.sparse[name]
    values = {pool: sparse.values[pool] for pool in pools}
    return replace(rows, sparse={name: SparseColumn(sparse.indptr, sparse.indices, values)})


def column_bits(rows: PartRows, d_sae: int, name: str) -> dict[str, float]:
    """Bits a non-zero of each column of a part as it is written, everything that is not a feature in `rest`."""
    import pyarrow.parquet as pq
    from pyarrow import BufferReader

    from benchmarks.peers.store_formats import plan_of
    from featurestore.format.part import encode_part

    nnz = len(rows.sparse[name].indices)
    data = encode_part(plan_of(rows, d_sae, name), 0, rows)
    metadata, sizes = pq.ParquetFile(BufferReader(data)).metadata, dict[str, int]()
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            label = column.path_in_schema.partition(".")[0].rpartition("__")[2]
            if column.path_in_schema.startswith(f"{name}__"):
                sizes[label] = sizes.get(label, 0) + column.total_compressed_size
    bits = {label: size * 8 / nnz for label, size in sizes.items()}
    return {**bits, "rest": (data.size - sum(sizes.values())) * 8 / nnz}


def _compare(rows: PartRows, d_sae: int, name: str, folder: Path, repeats: int, entries: int) -> dict[str, Row]:
    """Every format: sizes from `rows`, rates from `rows` repeated."""
    from scipy.sparse import csr_matrix

    from benchmarks.peers import store_formats as formats
    from featurestore.format.schema import round_values

    one = with_pools(rows, name, ["max"])
    inputs = tiled(one, entries)

    def matrix(given: PartRows, exact: bool = False) -> csr_matrix:
        column = given.sparse[name]
        data = column.values["max"] if exact else round_values(column.values["max"], 8)
        return csr_matrix((data, column.indices.view(np.int32), column.indptr), shape=(len(given), d_sae))

    cases: dict[str, tuple[formats.Format, PartRows, bool]] = {
        "ours": (formats.Ours(d_sae, name, 8), inputs, True),
        "ours, exact float32": (formats.Ours(d_sae, name, 24), inputs, True),
        **{label: (peer, one if label in SLOW else inputs, False) for label, peer in formats.PEERS.items()},
    }
    write: dict[str, list[float]] = {label: [] for label in cases}
    read: dict[str, list[float]] = {label: [] for label in cases}
    sizes: dict[str, float] = {}
    for number in range(repeats):
        for label, (form, given, is_ours) in cases.items():
            exact = label.endswith("float32")
            X = matrix(given, exact)
            if number == 0:
                small = one if is_ours else matrix(one)
                form.write(small, folder / "size")
                sizes[label] = _size(folder / "size") * 8 / len(one.sparse[name].indices)
                _remove(folder / "size")
            what = given if is_ours else X
            write[label].append(X.nnz / _seconds(lambda f=form, w=what: f.write(w, folder / "x")) / 1e6)
            found: list[Any] = []
            read[label].append(X.nnz / _seconds(lambda f=form, x=found: x.append(f.read(folder / "x"))) / 1e6)
            if number == 0:
                found[0].resize(X.shape)  # plain arrays do not say how wide they are
                if (found[0] != X).nnz:
                    raise AssertionError(f"{label} did not read back what it wrote")
            _remove(folder / "x")
            print(f"  round {number + 1}: {label:<24} {write[label][-1]:8.1f} {read[label][-1]:8.1f}", file=sys.stderr)
    return {
        label: Row(sizes[label], statistics.median(write[label]), statistics.median(read[label])) for label in cases
    }


def _steps(rows: PartRows, d_sae: int, name: str, folder: Path, repeats: int) -> dict[str, float]:
    """Where our writing goes: ns a non-zero of each step with one pooling; and all of it with three."""
    import hashlib

    from benchmarks.peers.store_formats import plan_of
    from featurestore.format.part import encode_part
    from featurestore.format.rules import problems
    from featurestore.format.schema import round_values
    from featurestore.format.store_plan import create_store
    from featurestore.storage.files import atomic_write, filesystem
    from featurestore.writing.writer import write_part

    one = with_pools(rows, name, ["max"])
    plan, nnz = plan_of(one, d_sae, name), len(one.sparse[name].indices)
    data = encode_part(plan, 0, one)
    fs, path = filesystem(folder / "file")
    whole = plan_of(rows, d_sae, name)
    create_store(str(folder / "steps"), whole)
    steps: dict[str, Callable[[], Any]] = {
        "check every rule": lambda: list(problems(plan.schema, one)),
        "round": lambda: round_values(one.sparse[name].values["max"], 8),
        "round and encode": lambda: encode_part(plan, 0, one),
        "sha256": lambda: hashlib.sha256(data).digest(),
        "file, fsync, rename": lambda: atomic_write(fs, path, data),
        "all, three poolings": lambda: write_part(str(folder / "steps"), whole, 0, rows),
    }
    return {
        label: statistics.median(_seconds(step) for _ in range(repeats)) / nnz * 1e9 for label, step in steps.items()
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def shown(figures: Figures) -> str:
    """The page for people."""
    features = figures.features
    lines = [
        f"{figures.machine['cpu']}, one core",
        f"{features['documents']:,} documents, {features['non_zeros']:,} non-zeros, "
        f"{features['a_document']:,.0f} a document of {features['d_sae']:,}",
        "",
        "bits a non-zero: " + ", ".join(f"{name} {bits:.2f}" for name, bits in figures.columns.items()),
        "",
    ]
    table = [("", "bits a non-zero", "M/s written", "M/s read")]
    table += [(name, f"{row.bits:.2f}", f"{row.write:.1f}", f"{row.read:.1f}") for name, row in figures.formats.items()]
    lines += [report.aligned(table), "", "ns a non-zero of a part with one pooling:"]
    lines += [f"  {name:<22}{value:8.2f}" for name, value in figures.steps.items()]
    if figures.layouts:
        table = [("", "bits a non-zero", "M/s written", "M/s read")]
        for layout in figures.layouts:
            numbers = (f"{layout['bits']:.2f}", f"{layout['write']:.0f}", f"{layout['read']:.0f}")
            table.append((f"{layout['column']:<8}{layout['layout']}", *numbers))
        lines += ["", report.aligned(table)]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", help="a store to measure on, instead of R8 at 16k; best one with value_bits 24")
    parser.add_argument("--sae", help="which SAE of it")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help=f"of R8 (default: {DOCUMENTS})")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the benchmark's SAE (default: {WIDTH})")
    parser.add_argument("--entries", type=int, default=ENTRIES, help=f"non-zeros for the rates (default: {ENTRIES})")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--layouts", action="store_true", help="measure every layout of every column too")
    parser.add_argument("--work", type=Path, help="where files go for as long as they last")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/store-<machine>-<date>.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
