"""Merge the small parts of a store into large ones: the same rows in larger units, as a store of its own.

A unit is sized for retry, a part wants to be large (hundreds of megabytes) where millions of files would be slow to
list and read. The new store's units are runs of the old ones; its identity records the fingerprint and units of the
store that it was made from, which `verify` proves (`format.compacted_from`), and a job can never resume into it by
mistake. Parts are streamed, a row group at a time; a part that is there already is kept, so the same command goes on
where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from featurestore.checks.verify import verify_store
from featurestore.errors import StoreError
from featurestore.format.compacted_from import compacted_plan
from featurestore.format.part import encode_chunks, open_part, part_path, part_problem, read_group
from featurestore.format.rows import PartRows, from_batch
from featurestore.format.rules import problems
from featurestore.format.store_plan import StorePlan, create_store, open_root
from featurestore.reader import FeatureStore
from featurestore.storage.files import atomic_write, shown
from featurestore.writing.writer import PartRecord, committed_units, finish_store, read_record

# Large enough that a billion documents are thousands of files and not millions, small enough to hold in memory once.
PART_BYTES = 256 << 20


def compact_store(source: str, target: str, part_bytes: int = PART_BYTES) -> StorePlan:
    """Write the rows of `source` to `target` in parts of about `part_bytes`.

    Args:
        source: A complete store; it is verified first, and never changed.
        target: An empty or new place, or where the same command stopped.
        part_bytes: Size that parts grow to, in bytes on disk; a single larger one stays as it is.

    Returns:
        The plan of the new store.

    Raises:
        StoreError: The source is incomplete or damaged, or the target is another store.
    """
    store = FeatureStore.open(source)
    if open_root(target)[1] == open_root(source)[1]:
        raise StoreError(f"{shown(target)} is the store that is read, which stays as it is; give the new one a place")
    report = verify_store(source)
    if not report.ok:
        raise StoreError(f"{shown(source)}: {report.problems[0]}; a damaged store is not compacted, so mend it first")
    runs = list(_runs(committed_units(source), part_bytes))
    plan = compacted_plan(store.plan, runs)
    create_store(target, plan)
    there = committed_units(target)
    records = [
        read_record(target, unit, plan) if unit in there else _write(store, target, plan, unit, run)
        for unit, run in enumerate(runs)
    ]
    finish_store(target, records)
    return plan


def _runs(sizes: dict[int, int], part_bytes: int) -> Iterator[range]:
    """Runs of neighbouring units that together stay within `part_bytes`, or single larger ones."""
    start = total = 0
    for unit, size in sizes.items():
        if unit > start and total + size > part_bytes:
            yield range(start, unit)
            start, total = unit, 0
        total += size
    if sizes:
        yield range(start, len(sizes))


def _write(store: FeatureStore, target: str, plan: StorePlan, unit: int, run: range) -> PartRecord:
    counted = {"rows": 0, "errors": 0, "tokens": 0}

    def chunks() -> Iterator[PartRows]:
        for old in run:
            with open_part(source_fs, part_path(source_root, old)) as file:
                problem = part_problem(file, store.plan, old)
                for group in range(file.num_row_groups):
                    rows = from_batch(plan.schema, read_group(file, group))
                    problem = problem or next(problems(plan.schema, rows), None)
                    if problem is not None:
                        raise StoreError(f"{shown(store.uri)}: part {old}, row group {group}, {problem}; mend it first")
                    counted["rows"] += len(rows)
                    counted["errors"] += rows.n_errors
                    counted["tokens"] += rows.total_tokens
                    yield rows

    source_fs, source_root = open_root(store.uri)
    data = encode_chunks(plan, unit, chunks())
    if counted["rows"] != plan.unit_rows(unit):
        raise StoreError(f"{shown(store.uri)}: its parts {run.start} to {run.stop - 1} changed while they were read")
    fs, root = open_root(target)
    atomic_write(fs, part_path(root, unit), data)
    return PartRecord(unit, **counted, bytes=data.size, sha256=hashlib.sha256(data).hexdigest())
