"""Write and read `store.json`, and compute the fingerprint: the hash of all that decides the values of a store.

A `StorePlan` names the columns, the units and everything that decided a value; its fingerprint is the hash of those.
Every part carries it, and a job with another one is refused with what differs. Writing parts is left to `writing`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs

from featurestore.base.did_you_mean import did_you_mean_file
from featurestore.base.differences import differences, listed
from featurestore.errors import MismatchError, StoreError
from featurestore.format.schema import StoreSchema
from featurestore.storage.files import atomic_write, is_local, list_files, parse_json, reached, read_bytes, shown
from featurestore.storage.user_outputs import refuse_in_store

FORMAT = "sparsemill.store"
FORMAT_VERSION = 1
STORE_JSON = "store.json"
MANIFEST_JSON = "manifest.json"
PARTS = "parts"


@dataclass(frozen=True)
class StorePlan:
    """A store before its first part.

    Attributes:
        schema: The columns.
        identity: Everything outside the schema that decides a value (bundle hash, token policy, corpus, ...), as JSON.
        spec: The job as the user wrote it; recorded, not compared.
        units: Global document rows [start, stop) of each unit: contiguous, from 0 to `rows`, none empty.
        rows: Documents in the corpus.
        extra: Versions, host, time; recorded, not compared.
    """

    schema: StoreSchema
    identity: Mapping[str, Any]
    spec: Mapping[str, Any]
    units: list[tuple[int, int]]
    rows: int
    extra: Mapping[str, Any]

    def __post_init__(self) -> None:
        expected = 0
        for unit, (start, stop) in enumerate(self.units):
            if start != expected or stop <= start:
                raise StoreError(f"unit {unit} is [{start}, {stop}); it must start at {expected} and not be empty")
            expected = stop
        if expected != self.rows:
            raise StoreError(f"the units cover {expected} rows and the corpus has {self.rows}; they must be equal")

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical JSON (sorted keys, no spaces, ASCII) of version, schema, identity and units."""
        return hashlib.sha256(canonical_json(self._decisive())).hexdigest()

    def unit_rows(self, unit: int) -> int:
        """Documents in one unit; StoreError if the plan has no such unit."""
        if not 0 <= unit < len(self.units):
            raise StoreError(f"there is no unit {unit}; the store has units 0 to {len(self.units) - 1}")
        start, stop = self.units[unit]
        return stop - start

    @property
    def unit_size(self) -> int:
        """Documents in the largest unit, which is what `units.documents` sets."""
        return max((stop - start for start, stop in self.units), default=0)

    def to_bytes(self) -> bytes:
        """The bytes of `store.json`: one top-level key a line."""
        document = {"format": FORMAT, "fingerprint": self.fingerprint, **self._decisive()}
        document |= {"rows": self.rows, "spec": self.spec, "extra": self.extra}
        return json_lines(document)

    @classmethod
    def from_bytes(cls, data: bytes, where: str, check: bool = True) -> StorePlan:
        """Read `store.json`.

        Args:
            data: Its bytes.
            where: The store, for messages.
            check: Whether to refuse a file whose fingerprint is no longer that of its contents.

        Raises:
            StoreError: Not a `store.json`, of a later format version, or edited.
        """
        try:
            document = parse_json(data)
            if document["format"] != FORMAT:
                raise ValueError(f"its format is {document['format']!r}")
            if (version := document["format_version"]) == FORMAT_VERSION:
                units = [(int(start), int(stop)) for start, stop in document["units"]]
                schema = StoreSchema.from_json(document["schema"])
                plan = cls(schema, document["identity"], document["spec"], units, document["rows"], document["extra"])
                recorded, _ = document["fingerprint"], plan.fingerprint
        except (ValueError, KeyError, TypeError, AttributeError, StoreError) as exc:
            problem = f"lacks {exc}" if isinstance(exc, KeyError) else str(exc)
            raise StoreError(
                f"{where}/{STORE_JSON} is damaged or not a store's ({problem}); restore it or choose another store"
            ) from exc
        if version != FORMAT_VERSION:
            raise StoreError(f"{where} has store format version {version}; this sparsemill reads only {FORMAT_VERSION}")
        if check and recorded != plan.fingerprint:
            raise StoreError(
                f"{where}/{STORE_JSON} was edited: its contents no longer give its fingerprint {recorded}; restore it"
            )
        return plan

    def _decisive(self) -> dict[str, object]:
        return {
            "format_version": FORMAT_VERSION,
            "schema": self.schema.to_json(),
            "identity": self.identity,
            "units": self.units,
        }


def create_store(uri: str, plan: StorePlan) -> None:
    """Write `store.json`, unless a store with the same fingerprint is there already.

    Args:
        uri: Directory or URL prefix of the store; made if missing.
        plan: What the store will hold.

    Raises:
        MismatchError: Another job's store is there; the message says which settings differ.
        StoreError: Something that is no store is there.
    """
    fs, root = open_root(uri)
    info = fs.get_file_info(f"{root}/{STORE_JSON}")
    if info.type == pafs.FileType.File:
        there = StorePlan.from_bytes(read_bytes(fs, info.path), shown(uri))
        if there.fingerprint != plan.fingerprint:
            raise MismatchError(
                f"{shown(uri)} was written by another job: {_changes(there, plan)}; "
                "choose another store or restore these settings"
            )
        return
    check_place(uri)
    try:
        atomic_write(fs, f"{root}/{STORE_JSON}", plan.to_bytes())
    except OSError as exc:
        reason = exc.strerror or exc
        raise StoreError(f"{shown(uri)} cannot be written ({reason}); choose another directory for the store") from exc


def check_place(uri: str) -> None:
    """Refuse a place where no store can be made, before anything is spent; nothing is written.

    Raises:
        StoreError: It is a file, or a directory with other things in it, or below a file or in another store.
    """
    fs, root = open_root(uri)
    kind = fs.get_file_info(root).type
    if kind == pafs.FileType.File:
        raise StoreError(f"{shown(uri)} is a file; give the path of a directory for the store")
    refuse_in_store(uri)
    if kind == pafs.FileType.Directory and list_files(fs, root):
        raise StoreError(f"{shown(uri)} is not empty and no feature store; choose an empty or new directory")
    if is_local(fs) and any(parent.is_file() for parent in Path(root).parents):
        raise StoreError(f"{shown(uri)} lies below a file; give the path of a directory for the store")


def read_plan(uri: str, check: bool = True) -> StorePlan:
    """The plan of the store at `uri`; StoreError if there is none (`check`: see `StorePlan.from_bytes`)."""
    fs, root = open_root(uri)
    try:
        data = read_bytes(fs, f"{root}/{STORE_JSON}")
    except (FileNotFoundError, NotADirectoryError):
        near = _near(root) if is_local(fs) else ""
        begun = "" if near else ", or wait until a job that was just submitted has planned it"
        raise StoreError(
            f"{shown(uri)} is not a feature store: no {STORE_JSON} there; give the directory that 'extract' wrote"
            f"{near or begun}"
        ) from None
    except OSError as exc:
        raise StoreError(f"{shown(uri)} cannot be read ({exc}); check the path and your access to it") from exc
    return StorePlan.from_bytes(data, shown(uri), check)


def is_store(uri: str) -> bool:
    """Whether there is a store at `uri`, complete or not."""
    fs, root = open_root(uri)
    return bool(fs.get_file_info(f"{root}/{STORE_JSON}").type == pafs.FileType.File)


def _near(root: str) -> str:
    """What was probably meant by a local place that is no store."""
    place = Path(root)
    if not place.exists():
        return did_you_mean_file(root)
    if (Path(f"{root}.parts") / STORE_JSON).is_file():
        return f"; did you mean '{place.name}.parts', from which this table was made?"
    inside = next((parent for parent in place.parents[:2] if (parent / STORE_JSON).is_file()), None)
    if inside is not None:
        return f"; did you mean '{inside.name}', in which it lies?"
    return ", which the study.yaml of this study names" if (place / "results.json").is_file() else ""


def open_root(uri: str) -> tuple[pafs.FileSystem, str]:
    """File system and root path of a store; StoreError where its storage does not answer."""
    fs, root = reached(uri)
    return fs, root or "/"


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, ASCII: the same value always gives the same bytes. NaN is refused with ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def json_lines(document: Mapping[str, object]) -> bytes:
    """A JSON object with one top-level key a line, so that it can be read and compared by eye and by `diff`."""
    body = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in document.items())
    return f"{{\n{body}\n}}\n".encode()


def _changes(old: StorePlan, new: StorePlan) -> str:
    """What differs: settings first, and what follows from them only if no setting does."""
    changes = differences(old.identity, new.identity) or differences(old.schema.to_json(), new.schema.to_json())
    return listed(changes or [f"units of {old.unit_size:,} -> {new.unit_size:,} documents"])
