"""Say how a store stands, live and afterwards, from the store alone: what is there, what runs, what went wrong.

A unit is done when its part is there; everything else is what runs left written down, and is only said of them. Nothing
here needs Ray or asks the machines that work. Reading takes a listing, the run records and the journal; parts are
opened only where the journal says nothing of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.base.number_words import error_kind
from featurestore.checks.run_files import RunRecord, UnitNote, read_notes, read_runs
from featurestore.format.part import READ_ERRORS, open_part, part_path, read_footer, read_group, unreadable
from featurestore.format.store_plan import open_root
from featurestore.reader import FeatureStore
from featurestore.reading.completeness import StoreStatus, footers

if TYPE_CHECKING:
    from pyarrow import fs as pafs

SLOWEST, EXAMPLES = 5, 3  # of units and of documents of one kind of error: what a person looks at


@dataclass(frozen=True)
class ErrorKind:
    """Errors of one kind: how many documents, and some of them as (id, sentence)."""

    kind: str
    documents: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunStatus(StoreStatus):
    """How far a store is, and what is known of the runs that got it there.

    Attributes:
        units_running: Units that a worker has, as a live run says.
        units_failed: Units without a part that the last run gave up.
        run: The last run, if one is known.
        running: Whether it runs now, as far as it was heard of a moment ago.
        missed: Whether it should have been heard of again, and has not been for less than a minute.
        seconds_silent: Since it was last heard of, where it has not said that it ended.
        runs: How many runs are known.
        tokens_per_second: Of the live run.
        seconds_left: Of the live run, at that rate.
        worker_seconds: Seconds that workers were busy with units that the journal knows.
        worker_tokens: Tokens in those.
        slowest: The units that took longest.
        error_kinds: Errors by kind, the most frequent first.
    """

    units_running: int
    units_failed: int
    run: RunRecord | None
    running: bool
    missed: bool
    seconds_silent: float | None
    runs: int
    tokens_per_second: float | None
    seconds_left: float | None
    worker_seconds: float
    worker_tokens: int
    slowest: tuple[UnitNote, ...]
    error_kinds: tuple[ErrorKind, ...]


def run_status(uri: str) -> RunStatus:
    """Find out how the store at `uri` stands.

    Raises:
        StoreError: There is no store, or a part cannot be read.
    """
    store = FeatureStore.open(uri, partial=True)
    sizes = {unit: store.part_bytes(unit) for unit in store.units}
    notes = read_notes(uri, sizes)
    runs = read_runs(uri)
    last = runs[-1] if runs else None
    running = last is not None and last.is_alive and not store.complete
    unknown = [unit for unit in store.units if unit not in notes]
    errors, tokens = sum(note.errors for note in notes.values()), sum(note.tokens for note in notes.values())
    for unit_errors, unit_tokens in footers(uri, unknown):
        errors, tokens = errors + unit_errors, tokens + unit_tokens
    rows_done = len(store)
    rate = last.tokens_per_second if running and last is not None else None
    return RunStatus(
        units_done=len(store.units),
        units_running=len({under.unit for under in last.under_way} - sizes.keys()) if running and last else 0,
        units_failed=len(last.failed.keys() - sizes.keys()) if last else 0,
        units=len(store.plan.units),
        rows_done=rows_done,
        rows=store.plan.rows,
        errors=errors,
        tokens=tokens,
        bytes=sum(sizes.values()),
        complete=store.complete,
        run=last,
        running=running,
        missed=last is not None and last.is_missed and not store.complete,
        seconds_silent=last.seconds_silent if last is not None and last.state == "running" else None,
        runs=len(runs),
        tokens_per_second=rate,
        seconds_left=_seconds_left(store, last, rows_done, tokens, rate) if last is not None else None,
        worker_seconds=sum(note.seconds for note in notes.values()),
        worker_tokens=sum(note.tokens for note in notes.values()),
        slowest=tuple(sorted(notes.values(), key=lambda note: -note.seconds)[:SLOWEST]),
        error_kinds=_error_kinds(uri, store, notes) if errors else (),
    )


def _seconds_left(
    store: FeatureStore, last: RunRecord, rows_done: int, tokens: int, rate: float | None
) -> float | None:
    """Time for the documents that are missing, less what is under way, at the mean length of those that are done."""
    if not rate:
        return None
    sample = store.plan.extra.get("sample")
    try:
        mean = float(sample["mean_tokens"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        mean = tokens / max(rows_done, 1)
    left = (store.plan.rows - rows_done) * mean - sum(under.tokens for under in last.under_way)
    return max(left, 0.0) / rate


def _error_kinds(uri: str, store: FeatureStore, notes: dict[int, UnitNote]) -> tuple[ErrorKind, ...]:
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str]]] = {}
    fs, root = open_root(uri)
    for unit in store.units:
        note = notes.get(unit)
        if note is not None and (note.kinds is not None or not note.errors):
            found = [(kind, n, doc_id, text) for kind, (n, doc_id, text) in (note.kinds or {}).items()]
        else:
            try:
                found = [(error_kind(text), 1, doc_id, text) for doc_id, text in _errors_of(fs, root, unit)]
            except READ_ERRORS as exc:
                raise unreadable(uri, unit, exc) from exc
        for kind, n, doc_id, text in found:
            counts[kind] += n
            if len(examples.setdefault(kind, [])) < EXAMPLES:
                examples[kind].append((doc_id, text))
    return tuple(ErrorKind(kind, n, tuple(examples[kind])) for kind, n in counts.most_common())


def _errors_of(fs: pafs.FileSystem, root: str, unit: int) -> list[tuple[str, str]]:
    """(id, sentence) of the documents of a part that have an error."""
    found = []
    with open_part(fs, part_path(root, unit)) as file:
        if not int(read_footer(file)["errors"]):
            return []
        for group in range(file.num_row_groups):
            batch = read_group(file, group, ["doc_id", "error"])
            found += [(i, e) for i, e in zip(*(batch.column(c).to_pylist() for c in range(2)), strict=True) if e]
    return found
