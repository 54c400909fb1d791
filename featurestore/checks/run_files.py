"""Read and write what runs leave in a store for people: a record of each run, and a line for each unit.

Two directories whose names start with ".", which readers of features ignore and which no value depends on. `.runs/` has
one small JSON object for each run, rewritten every few seconds while it lives. `.journal/` has JSON lists with one
object, and one line, for each unit: what the manifest will say of its part, how long it took, where, and what errors
its documents had. Both may be missing, late or damaged, and are read accordingly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from featurestore.base.json_text import json_text
from featurestore.format.store_plan import open_root
from featurestore.storage.files import list_files, parse_json, read_bytes
from featurestore.writing.writer import PartRecord

if TYPE_CHECKING:
    from pyarrow import fs as pafs

RUNS = ".runs"
JOURNAL = ".journal"
BEAT_SECONDS = 10.0  # one small write, beside a unit a minute from each worker
HEARD_SECONDS = 12.0  # a beat, and two seconds to write it: a run that is not heard of for longer may have been killed
SILENT_SECONDS = 60.0  # six beats missed: a run that is not heard of for so long has ended without saying so

_AT_ONCE = 8  # small files read at a time: object stores answer several as fast as one
_MAX_BYTES = 64 << 20  # of one of these files; a longer one is not ours

State = Literal["running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class UnderWay:
    """A unit that a worker has: for how long, and how far it has come."""

    unit: int
    host: str
    seconds: float
    documents: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """The figures of a run at a moment.

    Attributes:
        units_done: Units that it has committed; so for the next three.
        documents: Their documents.
        tokens: Their tokens.
        errors: Their documents with an error.
        waiting: Units that nobody has started.
        workers: Workers that can work.
        workers_wanted: Workers that it would have if there were room.
        tokens_per_second: Of all workers, over the last minute.
        events: What happened how often: failures by kind, second runs, searches.
        failed: Units that were given up, and why.
        under_way: What workers have.
        unmet: What it waits for because no node has it.
    """

    units_done: int = 0
    documents: int = 0
    tokens: int = 0
    errors: int = 0
    waiting: int = 0
    workers: int = 0
    workers_wanted: int = 0
    tokens_per_second: float | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    under_way: Sequence[UnderWay] = ()
    unmet: str | None = None


@dataclass(frozen=True)
class RunRecord(RunSnapshot):
    """How a run stands, or stood when it was last heard of: its figures, and who it is.

    Attributes:
        run: Its name: when it began, and some random digits.
        state: `running` until it says otherwise; a killed one says so for ever.
        host: Where its driver runs, with `pid`.
        pid: Its process there.
        started_at: UTC, ISO 8601.
        updated_at: UTC, ISO 8601; when this was written, by the driver's clock.
        reason: Why it failed.
        submission: Ray's name of the job that it is, where it was submitted to a cluster.
        log: The file on `host` that takes what it says, where it is one.
    """

    run: str
    state: State
    host: str
    pid: int
    started_at: str
    updated_at: str
    reason: str | None = None
    submission: str | None = None
    log: str | None = None

    def to_bytes(self) -> bytes:
        """As its file holds it."""
        return json_text(asdict(self), ascii=True).encode()

    @property
    def seconds_silent(self) -> float:
        """Since it was last heard of, by this machine's clock."""
        return max((datetime.now(UTC) - datetime.fromisoformat(self.updated_at)).total_seconds(), 0.0)

    @property
    def is_alive(self) -> bool:
        """Whether it says that it runs, and said so a moment ago."""
        return self.state == "running" and self.seconds_silent < HEARD_SECONDS

    @property
    def is_missed(self) -> bool:
        """Whether it should have been heard of again by now, and may be yet."""
        return self.state == "running" and HEARD_SECONDS <= self.seconds_silent < SILENT_SECONDS


@dataclass(frozen=True)
class UnitNote(PartRecord):
    """What the journal says of a unit: the record of its part, and how that came about.

    Attributes:
        seconds: From the first byte read to the part in its place.
        host: Where.
        kinds: Kind of error -> how many documents, and one of them as [id, sentence].
    """

    seconds: float
    host: str
    kinds: Mapping[str, tuple[int, str, str]] | None = None


def read_runs(uri: str) -> list[RunRecord]:
    """All runs of a store of which something is known, the latest last."""
    fs, root = open_root(uri)
    found = [_run_record(document) for document in _documents(fs, f"{root}/{RUNS}")]
    return sorted((run for run in found if run is not None), key=lambda run: run.started_at)


def journal_notes(uri: str, sizes: Mapping[int, int]) -> Iterator[UnitNote]:
    """All notes of the journal about parts that are there; of a unit that was done again, all that agree in the size.

    Args:
        uri: The store.
        sizes: Unit -> bytes of its part; a note about a part of another size is void.
    """
    fs, root = open_root(uri)
    for document in _documents(fs, f"{root}/{JOURNAL}"):
        for line in document if isinstance(document, list) else ():
            note = _unit_note(line)
            if note is not None and sizes.get(note.unit) == note.bytes:
                yield note


def read_notes(uri: str, sizes: Mapping[int, int]) -> dict[int, UnitNote]:
    """Unit -> the last of its notes; arguments as for `journal_notes`."""
    return {note.unit: note for note in journal_notes(uri, sizes)}


def _documents(fs: pafs.FileSystem, directory: str) -> Iterator[Any]:
    """The JSON of every file in a directory that holds any."""
    try:
        names = sorted(name for name, size in list_files(fs, directory).items() if size <= _MAX_BYTES)
    except OSError:
        return

    def read(name: str) -> Any:
        try:
            return parse_json(read_bytes(fs, f"{directory}/{name}"))
        except (OSError, ValueError):
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from (document for document in pool.map(read, names) if document is not None)


def _run_record(document: Any) -> RunRecord | None:
    try:
        known = {entry.name: document[entry.name] for entry in fields(RunRecord) if entry.name in document}
        known |= {
            "pid": int(known["pid"]),
            "events": {str(kind): int(n) for kind, n in known.get("events", {}).items()},
            "failed": {int(unit): str(reason) for unit, reason in known.get("failed", {}).items()},
            "under_way": tuple(
                UnderWay(int(u["unit"]), str(u["host"]), float(u["seconds"]), int(u["documents"]), int(u["tokens"]))
                for u in known.get("under_way", ())
            ),
        }
        for name in ("units_done", "documents", "tokens", "errors", "waiting", "workers", "workers_wanted"):
            known[name] = int(known.get(name, 0))
        for name in ("run", "state", "host", "started_at", "updated_at"):
            known[name] = str(known[name])
        rate = known.get("tokens_per_second")
        known["tokens_per_second"] = None if rate is None else float(rate)
        for name in ("unmet", "submission", "log"):
            known[name] = None if known.get(name) is None else str(known[name])
        record = RunRecord(**known)
        _ = record.seconds_silent
        return record
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def part_record(line: Any) -> PartRecord | None:
    """The record of a part as a manifest or a journal holds it (its hash "" if it has none); None if it is none."""
    try:
        numbers = {name: int(line[name]) for name in ("unit", "rows", "errors", "tokens", "bytes")}
        return PartRecord(**numbers, sha256=str(line.get("sha256", "")))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _unit_note(line: Any) -> UnitNote | None:
    if (record := part_record(line)) is None:
        return None
    try:
        kinds = line.get("kinds")
        return UnitNote(
            **vars(record),
            seconds=float(line["seconds"]),
            host=str(line["host"]),
            kinds=None
            if kinds is None
            else {str(kind): (int(n), str(doc_id), str(text)) for kind, (n, doc_id, text) in kinds.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
