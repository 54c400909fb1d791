"""Commit the part files of a store, each whole or not at all, and at the end its manifest.

A part file is the commit of its unit: it is encoded in memory, hashed, and then appears under its final name whole or
not at all. The same rows give the same bytes, so doing a unit twice is harmless, and parts may be written in any order
by anyone. Which units to run, where and when is left to the caller; `store.json`, which comes first, to
`format.store_plan`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from featurestore.errors import StoreError
from featurestore.format.part import (
    READ_ERRORS,
    encode_part,
    open_part,
    part_path,
    part_problem,
    read_footer,
    unit_of,
)
from featurestore.format.rows import PartRows as PartRows
from featurestore.format.rows import SparseColumn as SparseColumn
from featurestore.format.rules import problems
from featurestore.format.store_plan import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_JSON,
    PARTS,
    STORE_JSON,
    json_lines,
    open_root,
)
from featurestore.format.store_plan import StorePlan as StorePlan
from featurestore.format.store_plan import create_store as create_store
from featurestore.format.store_plan import read_plan as read_plan
from featurestore.storage.files import atomic_write, is_local, list_files, read_json, sha256_file, shown


@dataclass(frozen=True)
class PartRecord:
    """One committed part.

    Attributes:
        unit: Its unit.
        rows: Documents.
        errors: Documents with an error.
        tokens: Tokens pooled.
        bytes: Size of the file.
        sha256: Hex hash of the file.
    """

    unit: int
    rows: int
    errors: int
    tokens: int
    bytes: int
    sha256: str


def write_part(uri: str, plan: StorePlan, unit: int, rows: PartRows) -> PartRecord:
    """Check, round, encode and commit one unit.

    Args:
        uri: The store.
        plan: The store's plan.
        unit: Which unit these rows are.
        rows: Its documents, in input order.

    Returns:
        The record of the part, with the hash of the bytes written.

    Raises:
        StoreError: The rows break a rule of the format, or are not as many as the unit has; nothing is written.
        OSError: Storage refused.
    """
    where, expected = f"unit {unit} of {shown(uri)}", plan.unit_rows(unit)
    if len(rows) != expected:
        raise StoreError(f"{where} has {expected} documents, but {len(rows)} rows were given")
    if (problem := next(problems(plan.schema, rows), None)) is not None:
        raise StoreError(f"{where}: {problem}")
    if len(set(rows.doc_id)) != len(rows):
        raise StoreError(f"{where}: a doc_id occurs twice; ids must be unique")
    try:
        data = encode_part(plan, unit, rows)
    except (UnicodeEncodeError, pa.ArrowException, OverflowError) as exc:
        raise StoreError(f"{where}: an id or kept value cannot be stored ({exc})") from exc
    fs, root = open_root(uri)
    atomic_write(fs, part_path(root, unit), data)
    return PartRecord(unit, len(rows), rows.n_errors, rows.total_tokens, data.size, hashlib.sha256(data).hexdigest())


def committed_units(uri: str) -> dict[int, int]:
    """Unit -> bytes of every part there, from one listing, in unit order; empty where there is no store.

    A directory or an empty file is no part, whatever its name: nothing was committed there.
    """
    fs, root = open_root(uri)
    found = {unit_of(name): size for name, size in list_files(fs, f"{root}/{PARTS}").items() if size}
    return dict(sorted((unit, size) for unit, size in found.items() if unit is not None))


def read_manifest(uri: str, plan: StorePlan) -> dict[str, Any] | None:
    """What `manifest.json` says; None if it is not there, so the store is not finished.

    Raises:
        StoreError: It is damaged, or another job's.
    """
    fs, root = open_root(uri)
    where = f"{shown(uri)}/{MANIFEST_JSON}"
    try:
        manifest = read_json(fs, f"{root}/{MANIFEST_JSON}")
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise StoreError(f"{where} is damaged ({exc}); delete it and rerun extract") from exc
    if not isinstance(manifest, dict) or manifest.get("fingerprint") != plan.fingerprint:
        raise StoreError(f"{where} belongs to another job; delete it and rerun extract")
    return manifest


def read_record(uri: str, unit: int, plan: StorePlan | None = None) -> PartRecord:
    """The record of a part that is there: its footer, and the hash of its bytes (the whole file is read).

    Args:
        uri: The store.
        unit: Which part.
        plan: If given, the part must belong to it.

    Raises:
        StoreError: The part is missing, damaged, or another job's.
    """
    fs, root = open_root(uri)
    path = part_path(root, unit)
    try:
        with open_part(fs, path) as file:
            footer = read_footer(file)
            problem = part_problem(file, plan, unit) if plan is not None else None
        size, digest = fs.get_file_info(path).size, sha256_file(fs, path)
    except READ_ERRORS as exc:
        raise StoreError(f"{shown(uri)}: part {unit} cannot be read ({exc}); delete it and rerun extract") from exc
    if problem is not None:
        raise StoreError(f"{shown(uri)}: part {unit} {problem}; delete it and rerun extract")
    return PartRecord(unit, int(footer["rows"]), int(footer["errors"]), int(footer["tokens"]), size, digest)


def finish_store(uri: str, records: Sequence[PartRecord]) -> None:
    """Write `manifest.json`, which declares the store complete, and remove what killed writers left behind.

    Args:
        uri: The store.
        records: One for each unit, in any order.

    Raises:
        StoreError: A unit has no record or two, or its record has another number of rows than the plan.
    """
    fs, root = open_root(uri)
    plan = read_plan(uri)
    ordered = sorted(records, key=lambda record: record.unit)
    if [record.unit for record in ordered] != list(range(len(plan.units))):
        raise StoreError(f"{shown(uri)}: {len(ordered)} records for {len(plan.units)} units; rerun extract")
    for record in ordered:
        if record.rows != plan.unit_rows(record.unit):
            raise StoreError(f"{shown(uri)}: part {record.unit} has {record.rows} rows; delete it and rerun extract")
    manifest: dict[str, Any] = {
        "format": f"{FORMAT}.manifest",
        "format_version": FORMAT_VERSION,
        "fingerprint": plan.fingerprint,
        "store_sha256": sha256_file(fs, f"{root}/{STORE_JSON}"),
        "rows": plan.rows,
        "errors": sum(record.errors for record in ordered),
        "tokens": sum(record.tokens for record in ordered),
        "bytes": sum(record.bytes for record in ordered),
        "parts": [asdict(record) for record in ordered],
    }
    if is_local(fs):
        for info in fs.get_file_info(pafs.FileSelector(f"{root}/{PARTS}", allow_not_found=True)):
            if info.base_name.startswith(".part-") and info.base_name.endswith(".tmp"):
                fs.delete_file(info.path)
    atomic_write(fs, f"{root}/{MANIFEST_JSON}", json_lines(manifest))
