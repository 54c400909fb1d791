"""Keep the state of a run: units, workers, searches for documents at fault; lost units go back into its queue.

`RunState` owns them all, and each thing that happens (a worker is given a unit, a unit is committed, a worker is lost)
is one method of it, so that the accounts always agree. It starts nobody and decides nothing: who does what next is up
to `dispatcher`, what follows from a failure to `failure_policy`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from featurestore.checks.run_files import RunSnapshot
from ray_jobs.reporting.rate import JobSize, RateWindow
from ray_jobs.run.deadlines import UnitDurations
from ray_jobs.run.document_search import DocumentRange, DocumentSearches
from ray_jobs.run.failure_policy import (
    MAX_DEATHS,
    MAX_ERRORS,
    Action,
    Attempts,
    UnitFate,
    Where,
    WorkerFate,
    seconds_to_wait,
)
from ray_jobs.run.totals import RunTotals
from ray_jobs.run.unit_queue import UnitQueue
from ray_jobs.run.worker_table import UnitProgress, WorkerTable
from ray_jobs.workers.failures import Failure, Kind

if TYPE_CHECKING:
    from ray_jobs.planning.units import Unit
    from ray_jobs.workers.worker import Report

UNITS_IN_FLIGHT = 2  # of a worker: one under way, and one so that it never waits for the driver
LONGEST_START_WAIT = 8.0  # seconds between losing workers in a row and starting more; opening a model takes as long


class RunState:
    """The state of one run.

    Args:
        units: What to do, in the order to do it.
        job: What the run is measured against.

    Attributes:
        job: The same.
        totals: What has been done.
        queue: The units.
        workers: The workers.
        searches: The units of which documents are tried.
        worker_limit: A bound on the number of workers, once memory ran out.
        start_after: No worker is to be started before this time.
    """

    def __init__(self, units: Sequence[Unit], job: JobSize) -> None:
        self.job = job
        self.totals = RunTotals()
        self._given: set[int] = set()
        self.queue = UnitQueue(unit.index for unit in units)
        self.workers = WorkerTable()
        self.searches = DocumentSearches()
        self.worker_limit: int | None = None
        self.start_after = 0.0
        self._units = {unit.index: unit for unit in units}
        self._durations = UnitDurations()
        self._rate = RateWindow()
        self._deaths: Counter[int] = Counter()
        self._errors: Counter[int] = Counter()
        self._storage: Counter[int] = Counter()
        self._starts_lost = self._lost_in_a_row = 0

    # What there is.

    @property
    def open(self) -> int:
        """Units that are neither done nor given up; those that are searched count."""
        return self.queue.open + len(self.searches)

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything that a free worker could be given."""
        return bool(self.queue.waiting or self.searches)

    @property
    def has_plenty(self) -> bool:
        """Whether there are units enough for every worker to have a second one waiting."""
        return self.queue.waiting > len(self.workers.host)

    @property
    def given_up(self) -> dict[int, str]:
        """Unit -> why it will not be tried again."""
        failed = self.queue.failed
        return {unit: failed[unit] for unit in failed if unit not in self.searches} if failed else {}

    def unit(self, index: int) -> Unit:
        """A unit by its number."""
        return self._units[index]

    def snapshot(self, now: float, workers_wanted: int, unmet: str | None) -> RunSnapshot:
        """The figures of this moment; to be taken about every second, for the speed is measured from them."""
        under_way = self.workers.under_way(now)
        if self.workers.host or self.totals.tokens:  # until there are workers nothing can be measured
            self._rate.add(now, self.totals.tokens + sum(unit.tokens for unit in under_way))
        computed = {unit for unit, _ in self.workers.computing.values()}
        return RunSnapshot(
            units_done=len(self.queue.done),
            documents=self.totals.documents,
            tokens=self.totals.tokens,
            errors=self.totals.errors,
            waiting=self.queue.waiting + len(self.queue.handed_out - computed),
            workers=len(self.workers.host),
            workers_wanted=workers_wanted,
            tokens_per_second=self._rate.tokens_per_second,
            events=dict(self.totals.events),
            failed=self.given_up,
            under_way=under_way,
            unmet=unmet,
        )

    # Workers come and go.

    def add_worker(self) -> int:
        """A worker is being started; its serial number."""
        worker = self.workers.add()
        self.totals.workers = max(self.totals.workers, len(self.workers.started))
        return worker

    def worker_opened(self, worker: int, host: str, now: float) -> None:
        """A worker can work."""
        self.workers.host[worker] = host
        self._starts_lost = 0
        self._look_at(worker, now)

    def worker_answered(self, worker: int, progress: UnitProgress | None, now: float) -> None:
        """A worker said how far it is, or (None) could not."""
        self.workers.answered(worker, progress, now)
        self._look_at(worker, now)

    # Work is handed out.

    def blamed(self, unit: int) -> Mapping[int, str]:
        """Documents of a unit, counted from its first, that are at fault: what each did."""
        return self.searches.blamed(unit)

    def next_range(self, worker: int) -> DocumentRange | None:
        """Documents that a worker should try: none if nothing is searched, or if it still has a unit to do."""
        if not self.searches or self.queue.held_by(worker):
            return None
        return self.searches.next_range(set(self.workers.searching.values()))

    def give_range(self, worker: int, unit: int, now: float) -> None:
        """A worker tries some documents of a unit."""
        self.workers.searching[worker] = unit
        self._look_at(worker, now)

    def give_units(self, worker: int, now: float) -> list[int]:
        """Hand a worker as many units as it should have; those that it has not had before."""
        # a range goes only to a worker without units, so none gets a second unit while ranges wait
        searchable = self.searches and self.searches.next_range(set(self.workers.searching.values())) is not None
        most = UNITS_IN_FLIGHT if self.has_plenty and not searchable else 1
        given: list[int] = []
        while len(self.queue.held_by(worker)) < most:
            unit = self.queue.take(worker, now, self.workers.host[worker])
            if unit is None:
                break
            given.append(unit)
            self._hand_out(unit)
        self._look_at(worker, now)
        return given

    def give_again(self, worker: int, unit: int, now: float) -> None:
        """Hand a worker a unit that another one has, too."""
        self.totals.events["second run"] += 1
        self.queue.take_again(worker, unit)
        self._hand_out(unit)
        self._look_at(worker, now)

    def _hand_out(self, unit: int) -> None:
        if unit in self._given:
            self.totals.given_again.add(unit)
        self._given.add(unit)

    def worth_a_second_run(self, now: float) -> list[int]:
        """Units that one worker has and is late with, or that wait behind such a unit; the last is the latest."""
        found = []
        for worker, (head, _) in self.workers.computing.items():
            elapsed = self.workers.seconds_computing(worker, now)
            for unit in self.queue.held_by(worker):
                if unit not in self.queue.done and len(self.queue.holders(unit)) == 1:
                    late = self._durations.lateness(self._tokens(head), elapsed)
                    if unit != head or self._durations.is_overdue(self._tokens(unit), elapsed):
                        found.append((unit != head, late, unit))
        return [unit for _, _, unit in sorted(found)]

    def missed_deadlines(self, now: float) -> list[tuple[int, int, str]]:
        """Workers that have missed a deadline: worker, its unit, and why it is waited for no longer."""
        found = []
        for worker, (unit, _) in self.workers.computing.items():
            stalled = self.workers.seconds_stalled(worker, now)
            reason = self._durations.missed(self._tokens(unit), self.workers.seconds_computing(worker, now), stalled)
            if reason is not None:
                found.append((worker, unit, reason))
        return found

    # Answers come in.

    def committed(self, worker: int, unit: int, report: Report | None, now: float) -> bool:
        """A worker is through with a unit: it reports the part that it wrote, or (None) it was told to abandon it.

        Returns:
            Whether a part was written, and no other worker had written it before.
        """
        first = report is not None and self.queue.commit(worker, unit)
        if report is None:
            self.queue.release(worker, unit)
            if not self.queue.is_settled(unit):
                self.queue.put_first(unit)
        elif first:
            self.totals.add(report, self.workers.host[worker])
            self._durations.add(self._tokens(unit), report.seconds)
            self._lost_in_a_row = 0
        self._look_at(worker, now)
        return first

    def range_passed(self, worker: int, now: float) -> int | None:
        """The documents that a worker tried went well; returns as `apply` does."""
        unit = self.workers.searching.pop(worker)
        self._look_at(worker, now)
        return self._reopen_if_over(unit, self.searches.passed(unit))

    # Something failed.

    def where(self, worker: int, asked: Where, kind: Kind) -> Where:
        """Where a failure happened: whatever a lost worker was asked, it is what it was doing that was lost."""
        if worker not in self.workers.host:
            return Where.OPENING
        if kind not in (Kind.LOST, Kind.NODE, Kind.MEMORY):
            return asked
        if worker in self.workers.searching:
            return Where.RANGE
        return Where.UNIT if self.queue.held_by(worker) else Where.NOTHING

    def attempts(self, unit: int) -> Attempts:
        """What has failed before, of a unit (-1: of none) and of the workers."""
        return Attempts(
            deaths=self._deaths[unit],
            errors=self._errors[unit],
            storage=self._storage[unit],
            searched=self.searches.was_in_vain(unit),
            starts=self._starts_lost,
            alone=self.worker_limit == 1,
        )

    def apply(self, action: Action, failure: Failure, worker: int, unit: int, now: float) -> int | None:
        """Note what was decided about a failure.

        Args:
            action: What was decided.
            failure: The failure.
            worker: Whose it was.
            unit: What it was doing: a unit or a range of one; -1 if neither.
            now: The time.

        Returns:
            How many documents were found at fault if this ends a search; the unit is then next in line. Else None.
        """
        gone = action.worker is not WorkerFate.KEEP
        is_range = worker in self.workers.searching and self.workers.searching[worker] == unit
        host = self.workers.host.get(worker, "")
        others = self._worker_gone(action, worker, unit, now) if gone else ()
        found = None
        if is_range:
            self.workers.searching.pop(worker, None)
            if action.unit is UnitFate.RANGE_FAILS:
                found = self._reopen_if_over(unit, self.searches.failed(unit, None if gone else failure.reason))
        elif unit >= 0:
            self.queue.release(worker, unit)
            self._charge(action, failure.kind, unit)
            for other in reversed(others):  # which the worker had not begun
                self.queue.release(worker, other)
                self._given.discard(other)
                if not self.queue.is_settled(other):
                    self.queue.put_first(other)
            if not self.queue.is_settled(unit):
                self._place(action.unit, failure, unit, host, now)
        if not gone:
            self._look_at(worker, now)
        return found

    def _worker_gone(self, action: Action, worker: int, unit: int, now: float) -> tuple[int, ...]:
        """Forget a worker; the units that it had besides the one it was doing."""
        if action.worker is WorkerFate.DROP:
            there = len(self.workers.started)
            self.worker_limit = max(1, min(self.worker_limit or there, there) - 1)
        if worker not in self.workers.host and action.charged:
            self._starts_lost += 1
        self._lost_in_a_row += 1
        if self._lost_in_a_row > 1:  # one is an accident and replaced at once
            self.start_after = now + min(seconds_to_wait(self._lost_in_a_row - 1), LONGEST_START_WAIT)
        self.workers.remove(worker)
        return tuple(held for held in self.queue.held_by(worker) if held != unit)

    def _charge(self, action: Action, kind: Kind, unit: int) -> None:
        if not action.charged:
            return
        if action.worker is not WorkerFate.KEEP:
            self._deaths[unit] += 1
        elif kind is Kind.STORAGE:
            self._storage[unit] += 1
        elif not self.queue.is_settled(unit):  # what another worker may still do well is not tried "once more"
            self._errors[unit] += 1

    def _place(self, fate: UnitFate, failure: Failure, unit: int, host: str, now: float) -> None:
        """Put a unit where it was decided to go."""
        if fate is UnitFate.FIRST:
            self.queue.put_first(unit)
        elif fate is UnitFate.LAST:
            self.queue.put_last(unit)
        elif fate is UnitFate.LATER:
            self.queue.put_later(unit, now + seconds_to_wait(self._storage[unit]), host)
        else:
            died = failure.kind in (Kind.LOST, Kind.NODE, Kind.MEMORY)
            self.queue.failed[unit] = f"its worker died {MAX_DEATHS} times" if died else failure.reason
            if fate is UnitFate.SEARCH:
                self.totals.events["search"] += 1
                self.searches.begin(unit, self._units[unit].rows)

    def _reopen_if_over(self, unit: int, found: int | None) -> int | None:
        """When a search is over, let its unit be done next; the next death or error ends its last life."""
        if found is not None:
            del self.queue.failed[unit]
            self._deaths[unit], self._errors[unit] = MAX_DEATHS - 1, MAX_ERRORS - 1
            self.queue.put_first(unit)
        return found

    def _look_at(self, worker: int, now: float) -> None:
        if worker in self.workers.host:
            self.workers.update(worker, self.queue.held_by(worker), UNITS_IN_FLIGHT, now)

    def _tokens(self, unit: int) -> float:
        """Expected tokens of a unit."""
        return self._units[unit].rows * max(self.job.mean_tokens, 1.0)
