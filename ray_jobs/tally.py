"""What a run has done so far, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.writer import PartRecord
    from ray_jobs.worker import Report


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        records: Of the parts it committed.
        documents: In them.
        tokens: In them.
        errors: Documents of them that have an error.
        work_seconds: That workers were busy with them.
        workers: Workers at the most.
        events: How often what happened: by `Kind` of failure, and "second run", "search", "deadline".
    """

    records: list[PartRecord] = field(default_factory=list)
    documents: int = 0
    tokens: int = 0
    errors: int = 0
    work_seconds: float = 0.0
    workers: int = 0
    events: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        """A unit is done."""
        self.records.append(report.record)
        self.documents += report.record.rows
        self.tokens += report.record.tokens
        self.errors += report.record.errors
        self.work_seconds += report.seconds
