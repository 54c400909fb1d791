"""Count what a run has done so far, and where it was done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ray_jobs.planning.measured import Place

if TYPE_CHECKING:
    from featurestore.writing.writer import PartRecord
    from ray_jobs.workers.worker import Report


@dataclass
class RunTotals:
    """What a run has done so far.

    Attributes:
        records: Of the parts it committed.
        documents: In them.
        tokens: In them.
        errors: Documents of them that have an error.
        work_seconds: That workers were busy with them.
        by_place: Where -> tokens, and seconds that workers there were busy.
        workers: Workers at the most.
        given_again: Units that were handed out more than once. A worker that was given up, or was slower, may have
            written its part after the one that reported it.
        events: How often what happened: failures by kind, and "second run", "search", "deadline".
    """

    records: list[PartRecord] = field(default_factory=list)
    documents: int = 0
    tokens: int = 0
    errors: int = 0
    work_seconds: float = 0.0
    by_place: dict[Place, tuple[int, float]] = field(default_factory=dict)
    workers: int = 0
    given_again: set[int] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report, host: str) -> None:
        """A unit was done by a worker on this host."""
        self.records.append(report.record)
        self.documents += report.record.rows
        self.tokens += report.record.tokens
        self.errors += report.record.errors
        self.work_seconds += report.seconds
        place = Place(host, report.hardware)
        tokens, seconds = self.by_place.get(place, (0, 0.0))
        self.by_place[place] = (tokens + report.record.tokens, seconds + report.seconds)
