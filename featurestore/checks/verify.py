"""Recheck every promise of FORMAT.md on what is really on disk.

A report, not an exception: each problem is one phrase that names the file and, inside a part, row group and row, so
that a damaged store can be repaired part by part (delete the part, rerun extract). What a run that is writing has not
written yet is no problem. Memory stays at one row group plus eight bytes a document, for the uniqueness of ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs as pafs

from featurestore.base.hostile_text import visible
from featurestore.checks.holder import writer_of
from featurestore.errors import StoreError
from featurestore.format.compacted_from import origin_problem
from featurestore.format.part import READ_ERRORS, open_part, part_name, part_path, part_problem, read_footer, read_group
from featurestore.format.part_file import PartFile
from featurestore.format.rows import from_batch
from featurestore.format.rules import problems, rounding_problems
from featurestore.format.store_plan import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_JSON,
    PARTS,
    STORE_JSON,
    StorePlan,
    open_root,
    read_plan,
)
from featurestore.storage.files import list_files, read_json, sha256_file

_SHOWN_DUPLICATES = 5


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        problems: One phrase each; empty if every promise holds, as far as the store is written.
        missing: Those of the problems that are no damage: parts and a manifest that no run has written yet.
        finished: Whether there is a manifest.
        writer: The run that is writing, in words, where the store is not finished; then nothing is missing.
        quick: Whether hashes and rows were left unread.
        units: Parts that there will be.
        parts: Parts that were there.
        rows: Documents in them.
        errors: Those of them with an error.
        tokens: Tokens pooled.
        bytes: Size of the parts.
    """

    problems: tuple[str, ...]
    missing: tuple[str, ...]
    finished: bool
    writer: str | None
    quick: bool
    units: int
    parts: int
    rows: int
    errors: int
    tokens: int
    bytes: int

    @property
    def ok(self) -> bool:
        """Whether every promise holds, as far as the store is written."""
        return not self.problems


@dataclass(frozen=True)
class _Part:
    """What one part turned out to hold; `hashes` are those of its ids."""

    problems: list[str]
    rows: int = 0
    errors: int = 0
    tokens: int = 0
    bytes: int = 0
    hashes: np.ndarray | None = None


def verify_store(uri: str, quick: bool = False) -> VerifyReport:
    """Recheck a store.

    Args:
        uri: The store; one that a run is writing is checked as far as it is there.
        quick: Check names, sizes, footers, schema and manifest only; read neither hashes nor rows.

    Returns:
        The report.

    Raises:
        StoreError: There is no store at `uri`, or its `store.json` cannot be read at all.
    """
    fs, root = open_root(uri)
    found: list[str] = []
    try:
        plan = read_plan(uri)
    except StoreError:
        plan = read_plan(uri, check=False)  # still unreadable: that is for the caller to hear
        found.append(f"{STORE_JSON}: its contents do not give the fingerprint it records; it was edited")
    if (problem := origin_problem(plan)) is not None:
        found.append(f"{STORE_JSON}: {problem}")
    writer = writer_of(fs, root)  # before anything is listed: what it commits from now on can only add to that
    finished = fs.get_file_info(f"{root}/{MANIFEST_JSON}").type != pafs.FileType.NotFound
    manifest = _manifest(fs, root, plan, found) if finished else None
    missing = [] if finished else [f"{MANIFEST_JSON}: is missing, so the store is not finished; rerun extract"]
    listed = {record["unit"]: record for record in manifest["parts"]} if manifest else {}

    names = {part_name(unit) for unit in range(len(plan.units))}
    there = list_files(fs, f"{root}/{PARTS}")
    found += [f"{PARTS}/{visible(name)}: belongs to no unit of this store" for name in sorted(there.keys() - names)]
    parts = []
    for unit in range(len(plan.units)):
        if part_name(unit) in there:
            part = _check_part(fs, root, plan, unit, listed.get(unit), quick)
            found += [f"{PARTS}/{part_name(unit)}{problem}" for problem in part.problems]
            parts.append((unit, part))
        else:  # of a finished store that nobody mends it is damage
            damage = finished and writer is None
            (found if damage else missing).append(f"{PARTS}/{part_name(unit)}: is missing; rerun extract")
    if not quick:
        found += _duplicates(fs, root, parts)
    return VerifyReport(
        problems=(*(missing if writer is None else ()), *found),
        missing=tuple(missing) if writer is None else (),
        finished=finished,
        writer=writer if missing else None,
        quick=quick,
        units=len(plan.units),
        parts=len(parts),
        rows=sum(part.rows for _, part in parts),
        errors=sum(part.errors for _, part in parts),
        tokens=sum(part.tokens for _, part in parts),
        bytes=sum(part.bytes for _, part in parts),
    )


def _manifest(fs: pafs.FileSystem, root: str, plan: StorePlan, found: list[str]) -> dict[str, Any] | None:
    """The manifest if it can be used; its own problems are added to `found`."""
    try:
        manifest = read_json(fs, f"{root}/{MANIFEST_JSON}")
        units = [_whole(record["unit"]) for record in manifest["parts"]]
        totals = {
            key: sum(_whole(record[key]) for record in manifest["parts"])
            for key in ("rows", "errors", "tokens", "bytes")
        }
        wrong = [key for key, total in totals.items() if manifest[key] != total]
        found += [f"{MANIFEST_JSON}: '{key}' is not the sum over its parts" for key in wrong]
        if not all(isinstance(record["sha256"], str) for record in manifest["parts"]):
            raise ValueError("a part's sha256 is no text")
        kind, fingerprint, store_sha256 = manifest["format"], manifest["fingerprint"], manifest["store_sha256"]
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        found.append(f"{MANIFEST_JSON}: is damaged ({type(exc).__name__}: {exc})")
        return None
    if version != FORMAT_VERSION:
        found.append(f"{MANIFEST_JSON}: has format version {version!r}, not {FORMAT_VERSION}")
    if kind != f"{FORMAT}.manifest" or fingerprint != plan.fingerprint:
        found.append(f"{MANIFEST_JSON}: belongs to another job than {STORE_JSON}")
    if store_sha256 != sha256_file(fs, f"{root}/{STORE_JSON}"):
        found.append(f"{STORE_JSON}: is not the file that {MANIFEST_JSON} recorded; it was edited")
    if units != list(range(len(plan.units))):
        found.append(f"{MANIFEST_JSON}: does not list each of the {len(plan.units)} units once")
    return dict(manifest)


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _check_part(
    fs: pafs.FileSystem, root: str, plan: StorePlan, unit: int, listed: Mapping[str, Any] | None, quick: bool
) -> _Part:
    """Every problem of one part; each starts with what follows the file's name (": ..." or ", row group ...")."""
    path, found = part_path(root, unit), list[str]()
    size = fs.get_file_info(path).size or 0
    if listed is not None and listed["bytes"] != size:
        found.append(f": has {size} bytes and {MANIFEST_JSON} says {listed['bytes']}")
    try:
        if listed is not None and listed["bytes"] == size and not quick and sha256_file(fs, path) != listed["sha256"]:
            found.append(f": its sha256 is not the one in {MANIFEST_JSON}")
        with open_part(fs, path) as file:
            if problem := part_problem(file, plan, unit):
                return _Part([*found, f": {problem}"], bytes=size)
            footer = read_footer(file)
            if listed is not None:
                differ = [key for key in ("rows", "errors", "tokens") if listed[key] != int(footer[key])]
                found += [f": its footer and {MANIFEST_JSON} differ in '{key}'" for key in differ]
            if quick:
                counts = (int(footer["rows"]), int(footer["errors"]), int(footer["tokens"]))
                return _Part(found, *counts, bytes=size)
            part = _check_rows(file, plan, found, size)
            for key, counted in (("errors", part.errors), ("tokens", part.tokens)):
                if not part.problems and int(footer[key]) != counted:
                    part.problems.append(f": its footer says {footer[key]} {key} and its rows hold {counted}")
            return part
    except READ_ERRORS as exc:
        return _Part([*found, f": cannot be read as a part ({exc})"], bytes=size)


def _check_rows(file: PartFile, plan: StorePlan, found: list[str], size: int) -> _Part:
    groups = [_check_group(file, plan, group) for group in range(file.num_row_groups)]
    hashes = [group.hashes for group in groups if group.hashes is not None]
    return _Part(
        problems=[*found, *(problem for group in groups for problem in group.problems)],
        rows=sum(group.rows for group in groups),
        errors=sum(group.errors for group in groups),
        tokens=sum(group.tokens for group in groups),
        bytes=size,
        hashes=np.concatenate(hashes) if hashes else None,
    )


def _check_group(file: PartFile, plan: StorePlan, group: int) -> _Part:
    """One row group, which is let go before the next one is read."""
    import polars as pl

    try:
        batch = read_group(file, group)
        rows = from_batch(plan.schema, batch)
    except READ_ERRORS as exc:
        return _Part([f", row group {group}: cannot be read ({exc})"])
    found = [
        *problems(plan.schema, rows),
        *rounding_problems(plan.schema, rows),
        *_null_problems(plan, batch),
        *_statistics_problems(file, group, batch),
    ]
    hashes = pl.Series("id", rows.doc_id, dtype=pl.String).hash().to_numpy()
    where = [f", row group {group}, {problem}" for problem in found]
    return _Part(where, len(rows), rows.n_errors, rows.total_tokens, hashes=hashes)


def _null_problems(plan: StorePlan, batch: pa.RecordBatch) -> Iterator[str]:
    no_tokens = batch.column("n_tokens").to_numpy() == 0
    for dense in plan.schema.dense:
        is_null = batch.column(dense.name).is_null().to_numpy(zero_copy_only=False)
        if (wrong := np.flatnonzero(is_null != no_tokens)).size:
            yield f"row {wrong[0]}: '{dense.name}' must be null exactly where n_tokens is 0"


def _statistics_problems(file: PartFile, group: int, batch: pa.RecordBatch) -> Iterator[str]:
    """Statistics that exclude a value which is there: a reader that skips by them would lose rows."""
    metadata = file.metadata.row_group(group)
    for number in range(metadata.num_columns):
        column = metadata.column(number)
        statistics = column.statistics
        if statistics is None or column.path_in_schema not in batch.schema.names:
            continue
        values = batch.column(column.path_in_schema)
        found = pc.min_max(values).as_py()
        if statistics.has_null_count and statistics.null_count != values.null_count:
            yield f"'{column.path_in_schema}' has {values.null_count} nulls and its statistics say otherwise"
        if not statistics.has_min_max or found["min"] is None:
            continue
        low, high = statistics.min, statistics.max
        if type(low) is not type(found["min"]) or not (low <= found["min"] and found["max"] <= high):
            yield f"'{column.path_in_schema}' holds {found['min']!r} to {found['max']!r}, beyond its statistics"


def _duplicates(fs: pafs.FileSystem, root: str, parts: list[tuple[int, _Part]]) -> Iterator[str]:
    """Ids that occur more than once: found by hash, confirmed by text."""
    import polars as pl

    hashed = [(unit, part.hashes) for unit, part in parts if part.hashes is not None]
    if not hashed:
        return
    ordered = np.sort(np.concatenate([hashes for _, hashes in hashed]))
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    places: dict[str, list[str]] = {}
    for unit, hashes in hashed:
        if not np.isin(hashes, repeated).any():
            continue
        with open_part(fs, part_path(root, unit)) as file:
            groups = [read_group(file, group, ["doc_id"]).column("doc_id") for group in range(file.num_row_groups)]
        ids = pl.Series("id", [doc_id for group in groups for doc_id in group.to_pylist()], dtype=pl.String)
        for row in np.flatnonzero(np.isin(ids.hash().to_numpy(), repeated)):
            places.setdefault(ids[int(row)], []).append(f"{part_name(unit)} row {row}")
    doubles = [(doc_id, where) for doc_id, where in places.items() if len(where) > 1]
    for doc_id, where in doubles[:_SHOWN_DUPLICATES]:
        yield f"doc_id {doc_id!r}: occurs {len(where)} times, in {' and '.join(where[:2])}"
    if len(doubles) > _SHOWN_DUPLICATES:
        yield f"doc_id: {len(doubles) - _SHOWN_DUPLICATES} more ids occur more than once"
