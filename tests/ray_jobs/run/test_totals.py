"""What a run has done is counted by place too: a rate is one of a machine."""

from __future__ import annotations

from featurestore.writing.writer import PartRecord
from ray_jobs.planning.measured import Place
from ray_jobs.run.totals import RunTotals
from ray_jobs.workers.worker import Report


def test_tokens_and_seconds_are_counted_where_they_were_spent() -> None:
    totals = RunTotals()
    for unit, (host, hardware) in enumerate([("here", "CPU"), ("node-1", "L4"), ("here", "CPU"), ("node-1", "H100")]):
        totals.add(Report(PartRecord(unit, 4, 0, 100, 1000, ""), 2.0, hardware=hardware), host)
    assert totals.by_place == {
        Place("here", "CPU"): (200, 4.0),
        Place("node-1", "L4"): (100, 2.0),
        Place("node-1", "H100"): (100, 2.0),
    }
    assert (totals.tokens, totals.work_seconds) == (400, 8.0)
