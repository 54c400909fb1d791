"""What a manifest will say of the parts that are there, so that resuming a run does not read them again.

The hash of a part is known to the worker that wrote it. The driver writes the records down in the store as they come, a
thousand to a file: resuming half a million parts takes some hundred small reads, where reading the parts would take
terabytes. It is a memory and not a state: a part without a record (its driver was killed within seconds of it) is read
and hashed, and a record whose part is not there, or has another size, is ignored.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from featurestore.base.json_text import json_text
from featurestore.checks.run_files import JOURNAL
from featurestore.format.store_plan import MANIFEST_JSON, open_root
from featurestore.storage.files import atomic_write, list_files, read_bytes
from featurestore.writing.writer import PartRecord

if TYPE_CHECKING:
    from ray_jobs.run.worker import Report

FILE_RECORDS = 1000  # some 250 kB, rewritten until it is full
FLUSH_SECONDS = 15.0  # what a killed driver's successor has to read again: the parts of so long


class Journal:
    """The journal of one run.

    Args:
        uri: The store.
    """

    def __init__(self, uri: str) -> None:
        self._fs, root = open_root(uri)
        self._directory = f"{root}/{JOURNAL}"
        self._run = secrets.token_hex(4)  # two runs never write one file
        self._full = 0
        self._lines: list[dict[str, Any]] = []
        self._unwritten = False
        self._next = time.monotonic() + FLUSH_SECONDS
        self._writer = ThreadPoolExecutor(1, "journal")  # storage that is slow must not hold up the run
        self._writing: Future[None] | None = None

    def add(self, report: Report, place: str) -> None:
        """Take down a report; it is in storage some seconds later."""
        line = {**asdict(report.record), "seconds": round(report.seconds, 3), "host": place}
        self._lines.append({**line, **report.detail.to_json()})
        self._unwritten = True
        full = len(self._lines) >= FILE_RECORDS
        if full or time.monotonic() >= self._next:
            self._flush()
        if full:
            self._full, self._lines = self._full + 1, []

    def close(self) -> None:
        """Write what is left; storage that refuses costs the successor some reading."""
        if self._unwritten:
            self._flush()
        self._writer.shutdown()

    def _flush(self) -> None:
        self._next = time.monotonic() + FLUSH_SECONDS
        self._unwritten = False
        path = f"{self._directory}/{self._run}-{self._full:05d}.json"
        self._writing = self._writer.submit(self._write, path, _one_a_line(self._lines))

    def _write(self, path: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            atomic_write(self._fs, path, data)


def _one_a_line(lines: list[dict[str, Any]]) -> bytes:
    """A JSON list with one unit a line, for people and for what collects logs."""
    return ("[\n" + ",\n".join(json_text(line, ascii=True) for line in lines) + "\n]\n").encode()


def earlier_records(uri: str, sizes: Mapping[int, int]) -> dict[int, PartRecord]:
    """Unit -> record of the parts of which something is written down.

    Args:
        uri: The store.
        sizes: Unit -> bytes of the parts that are there.

    Returns:
        What the manifest or the journal says of parts of just this size; nothing about a part on which they disagree.
    """
    fs, root = open_root(uri)
    found: dict[int, PartRecord] = {}
    unclear: set[int] = set()
    lines = _lines(fs, f"{root}/{MANIFEST_JSON}")
    directory = f"{root}/{JOURNAL}"
    for name in sorted(_names(fs, directory)):
        lines += _lines(fs, f"{directory}/{name}")
    for line in lines:
        try:
            record = PartRecord(**{key: line[key] for key in ("unit", "rows", "errors", "tokens", "bytes", "sha256")})
        except (KeyError, TypeError):
            continue
        if sizes.get(record.unit) == record.bytes and found.setdefault(record.unit, record) != record:
            unclear.add(record.unit)
    return {unit: record for unit, record in found.items() if unit not in unclear}


def _names(fs: Any, directory: str) -> list[str]:
    try:
        return list(list_files(fs, directory))
    except OSError:
        return []


def _lines(fs: Any, path: str) -> list[dict[str, Any]]:
    """The records in a file; none if it is not there or not what it should be: the parts are read then."""
    try:
        document = json.loads(read_bytes(fs, path))
        lines = document["parts"] if isinstance(document, dict) else document
        return [line for line in lines if isinstance(line, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
