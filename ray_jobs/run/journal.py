"""Write down, in the store, what the manifest will say of each part, so that a resumed run does not read parts again.

The hash of a part is known to the worker that wrote it. The driver writes the records down in the store as they come, a
thousand to a file: resuming half a million parts takes some hundred small reads, where reading the parts would take
terabytes. It is a memory and not a state: a part without a record (its driver was killed within seconds of it) is read
and hashed, and a record whose part is not there, or has another size, is ignored. How a line is parsed is in
`featurestore.checks.run_files`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from featurestore.base.json_text import json_text
from featurestore.checks.run_files import JOURNAL, journal_notes, part_record
from featurestore.format.store_plan import MANIFEST_JSON, open_root
from featurestore.storage.files import atomic_write, read_json
from featurestore.storage.steady_environment import steady_environment
from featurestore.writing.writer import PartRecord, read_record

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan
    from ray_jobs.workers.worker import Report

FILE_RECORDS = 1000  # some 250 kB, rewritten until it is full
FLUSH_SECONDS = 15.0  # what a killed driver's successor has to read again: the parts of so long
READ_AT_ONCE = 8  # a record that is not written down is a part read whole: storage answers several at a time


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

    def add(self, report: Report, host: str) -> None:
        """Take down a report; it is in storage some seconds later."""
        line = {**asdict(report.record), "seconds": round(report.seconds, 3), "host": host}
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
        self._writer.submit(self._write, path, _one_a_line(self._lines))

    def _write(self, path: str, data: bytes) -> None:
        with steady_environment(), contextlib.suppress(OSError):
            atomic_write(self._fs, path, data)


def _one_a_line(lines: list[dict[str, Any]]) -> bytes:
    """A JSON list with one unit a line, for people and for what collects logs."""
    return ("[\n" + ",\n".join(json_text(line, ascii=True) for line in lines) + "\n]\n").encode()


def records_of_parts(uri: str, store: StorePlan, sizes: Mapping[int, int]) -> list[PartRecord]:
    """The records of parts that are there: what is written down, and only where nothing is, the part itself.

    Args:
        uri: The store.
        store: Its plan.
        sizes: Unit -> bytes of the parts.

    Raises:
        StoreError: A part cannot be read.
    """
    known = earlier_records(uri, sizes)
    return [*known.values(), *read_records(uri, store, [unit for unit in sizes if unit not in known])]


def read_records(
    uri: str,
    store: StorePlan,
    units: Sequence[int],
    trying: Callable[[Callable[[], PartRecord]], PartRecord] = lambda read: read(),
) -> list[PartRecord]:
    """The records of parts as they are in storage, which are read whole, several at a time.

    Args:
        uri: The store.
        store: Its plan.
        units: Which parts.
        trying: Calls what reads one, again and again if need be.

    Raises:
        StoreError: A part cannot be read.
    """
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return list(pool.map(lambda unit: trying(lambda: read_record(uri, unit, store)), units))


def earlier_records(uri: str, sizes: Mapping[int, int]) -> dict[int, PartRecord]:
    """Unit -> record of the parts of which something is written down.

    Args:
        uri: The store.
        sizes: Unit -> bytes of the parts that are there.

    Returns:
        What the manifest or the journal says of parts of just this size; nothing about a part on which they disagree.
    """
    found: dict[int, PartRecord] = {}
    unclear: set[int] = set()
    names = [entry.name for entry in fields(PartRecord)]
    journal = (PartRecord(**{name: getattr(note, name) for name in names}) for note in journal_notes(uri, sizes))
    for record in (*_manifest_records(uri), *journal):
        if not record.sha256 or sizes.get(record.unit) != record.bytes:
            continue
        if found.setdefault(record.unit, record) != record:
            unclear.add(record.unit)
    return {unit: record for unit, record in found.items() if unit not in unclear}


def _manifest_records(uri: str) -> list[PartRecord]:
    """What the manifest says; nothing if it is not there or not what it should be: the parts are read then."""
    fs, root = open_root(uri)
    try:
        lines = read_json(fs, f"{root}/{MANIFEST_JSON}")["parts"]
        return [record for line in lines if (record := part_record(line)) is not None]
    except (OSError, ValueError, KeyError, TypeError):
        return []
