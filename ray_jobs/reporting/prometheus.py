"""Export numbers to Prometheus through Ray's own metrics: every node exports those of its processes.

Workers count what they do (documents, tokens, bytes, errors, units, seconds of each phase, and how long their device
had nothing to do); the driver shows the queue, the workers and what had to be done again. A process that Ray does not
run (a test, a calibration) counts the same and exports nothing. What a unit took goes into its report too.

"Idle" is the time in which a worker's device was given nothing: between two units (reading, waiting for a unit,
writing) and within one (waiting for tokens, cutting windows, putting rows together). What a GPU wastes inside of a
batch is for a profiler; whether it is busy at all Ray says itself (`ray_node_gpus_utilization`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore.base.number_words import error_kind

if TYPE_CHECKING:
    from featurestore.checks.run_files import RunRecord
    from featurestore.writing.writer import PartRecord

SECONDS_BOUNDARIES = [1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600]  # units are meant to take one to three minutes
KINDS_KEPT = 20  # of one unit's errors in its report; a unit with more has one, "other"
SENTENCE_KEPT = 300  # characters of an example
OTHER = "other"

COUNTERS = {
    "documents": "documents stored, those with an error included",
    "tokens": "tokens pooled",
    "bytes": "bytes of parts written",
    "errors": "documents stored with an error",
    "units": "parts committed",
}


@dataclass(frozen=True)
class UnitDetail:
    """What a unit's report says beside its record; goes into the journal.

    Attributes:
        finished_at: Seconds since 1970, by the worker's clock.
        phases: Seconds of `read`, `compute` (a batch was under way) and `write`, and of `idle`: within the unit, and
            before it since the last one was computed (not of a worker's first unit).
        kinds: Kind of error -> documents, and one of them as id and sentence.
    """

    finished_at: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, tuple[int, str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the journal; nothing of a detail that was not measured."""
        if not self.finished_at:
            return {}
        phases = {f"{name}_seconds": round(seconds, 3) for name, seconds in self.phases.items()}
        return {
            "finished_at": round(self.finished_at, 3),
            **phases,
            "kinds": {k: list(v) for k, v in self.kinds.items()},
        }


class UnitMeter:
    """The clock of one worker.

    Args:
        store: The store as it may be shown; a label of every metric.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._phases: dict[str, float] = {}
        self._started = time.perf_counter()
        self._computed: float | None = None  # when the last computing ended
        self._metrics: dict[str, Any] | None = None

    def begin(self) -> None:
        """A unit begins."""
        self._phases = {}
        self._started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase of the unit: `read`, `compute` or `write`."""
        started = time.perf_counter()
        if name == "compute" and self._computed is not None:
            self._add("idle", started - self._computed)
        try:
            yield
        finally:
            ended = time.perf_counter()
            self._add(name, ended - started)
            if name == "compute":
                self._computed = ended

    def was_idle(self, seconds: float) -> None:
        """So much of the last `compute` the device had nothing to do."""
        self._add("compute", -seconds)
        self._add("idle", seconds)

    def end(self, record: PartRecord, doc_id: Sequence[str], errors: Sequence[str | None]) -> UnitDetail:
        """A unit is committed: count it."""
        self._count(record, time.perf_counter() - self._started)
        return UnitDetail(time.time(), dict(self._phases), _kinds(doc_id, errors) if record.errors else {})

    def _add(self, phase: str, seconds: float) -> None:
        self._phases[phase] = self._phases.get(phase, 0.0) + seconds

    def _count(self, record: PartRecord, seconds: float) -> None:
        if self._metrics is None:
            self._metrics = _worker_metrics(self._store) if _under_ray() else {}
        if not self._metrics:
            return
        counts = {"documents": record.rows, "tokens": record.tokens, "bytes": record.bytes, "errors": record.errors}
        for name, n in {**counts, "units": 1}.items():
            if n:
                self._metrics[name].inc(n)
        for name, spent in self._phases.items():
            if spent > 0:
                self._metrics["phase"].inc(spent, tags={"phase": name})
        self._metrics["unit_seconds"].observe(seconds)


class RunMeter:
    """The driver's numbers.

    Args:
        store: The store as it may be shown.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._metrics: dict[str, Any] | None = None
        self._events: dict[str, int] = {}

    def show(self, record: RunRecord) -> None:
        """Export how the run stands; nothing where there is no Ray."""
        if self._metrics is None:
            if not _under_ray():
                return
            self._metrics = _driver_metrics(self._store)
        under_way = len({under.unit for under in record.under_way})
        states = {"waiting": record.waiting, "under_way": under_way, "done": record.units_done}
        for state, n in {**states, "failed": len(record.failed)}.items():
            self._metrics["queue"].set(n, tags={"state": state})
        for state, n in {"ready": record.workers, "wanted": record.workers_wanted}.items():
            self._metrics["workers"].set(n, tags={"state": state})
        for kind, n in record.events.items():
            if n > self._events.get(kind, 0):
                self._metrics["retries"].inc(n - self._events.get(kind, 0), tags={"kind": kind})
        self._events = dict(record.events)


def _kinds(doc_id: Sequence[str], errors: Sequence[str | None]) -> dict[str, tuple[int, str, str]]:
    found: dict[str, tuple[int, str, str]] = {}
    for name, sentence in zip(doc_id, errors, strict=True):
        if sentence is not None:
            kind = error_kind(sentence)
            if kind not in found and len(found) >= KINDS_KEPT:
                kind = OTHER
            n, *example = found.get(kind, (0, name, sentence[:SENTENCE_KEPT]))
            found[kind] = (n + 1, example[0], example[1])
    return found


def _under_ray() -> bool:
    import sys

    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _worker_metrics(store: str) -> dict[str, Any]:
    from ray.util.metrics import Counter, Histogram

    made: dict[str, Any] = {
        name: Counter(f"sparsemill_{name}", description=text, tag_keys=("store",)) for name, text in COUNTERS.items()
    }
    made["phase"] = Counter(
        "sparsemill_phase_seconds",
        description="seconds of workers by phase: read, compute, write; idle is the device's, between and within units",
        tag_keys=("store", "phase"),
    )
    made["unit_seconds"] = Histogram(
        "sparsemill_unit_seconds",
        description="seconds of a unit, from its first byte read to its part in place",
        boundaries=SECONDS_BOUNDARIES,
        tag_keys=("store",),
    )
    return _labelled(made, store)


def _driver_metrics(store: str) -> dict[str, Any]:
    from ray.util.metrics import Counter, Gauge

    made = {
        "queue": Gauge("sparsemill_run_units", description="units of the run by state", tag_keys=("store", "state")),
        "workers": Gauge(
            "sparsemill_workers", description="workers that can work, and wanted", tag_keys=("store", "state")
        ),
        "retries": Counter(
            "sparsemill_retries", description="what had to be done again, by kind", tag_keys=("store", "kind")
        ),
    }
    return _labelled(made, store)


def _labelled(made: dict[str, Any], store: str) -> dict[str, Any]:
    for metric in made.values():
        metric.set_default_tags({"store": store})
    return made
