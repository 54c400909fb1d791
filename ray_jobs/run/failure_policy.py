"""What follows from a failure.

A lost worker is replaced and its units are next in line; storage that did not answer is tried later and elsewhere; when
a host runs out of memory fewer workers go on; a unit that fails again and again is searched for the documents at fault;
a job that cannot work stops at once. Which kind a failure is has been decided before (`failures`); who is given what
next is the dispatcher's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from featurestore.errors import JobFailed
from ray_jobs.run.failures import Failure, Kind

if TYPE_CHECKING:
    from ray_jobs.planning.units import Unit
    from ray_jobs.run.quarantine import Suspects
    from ray_jobs.run.totals import Tally
    from ray_jobs.run.unit_queue import Ledger
    from ray_jobs.run.worker_pool import Answer, Crew
    from ray_jobs.run.worker_table import Staff

MAX_STARTS_LOST = 3  # workers lost in a row before any of them could open the model
STORAGE_TRIES = 6  # of one unit: with the waiting between them, half a minute of an outage beyond what clients bridge
LONGEST_WAIT = 30.0  # seconds between two tries at storage; waiting doubles from one second up
LONGEST_START_WAIT = 8.0  # seconds between losing workers in a row and starting more; opening a model takes as long


class Aftermath:
    """What follows from the failures of one run.

    Args:
        crew: Who does the work.
        units: All units of the run.
        ledger: Who has which.
        staff: The workers.
        suspects: The units that are searched.
        tally: What has happened so far.
        note: Tells the user.

    Attributes:
        start_after: No worker is to be started before this time.
        most_workers: A bound on their number, once memory ran out.
    """

    def __init__(
        self,
        crew: Crew,
        units: Mapping[int, Unit],
        ledger: Ledger[int],
        staff: Staff,
        suspects: Suspects,
        tally: Tally,
        note: Callable[[str], None],
    ) -> None:
        self.start_after = 0.0
        self.most_workers: int | None = None
        self._crew = crew
        self._units = units
        self._ledger = ledger
        self._staff = staff
        self._suspects = suspects
        self._tally = tally
        self._note = note
        self._storage_tries: Counter[int] = Counter()
        self._starts_lost = self._lost_in_a_row = 0

    def opened(self) -> None:
        """A worker has opened the model."""
        self._starts_lost = 0

    def committed(self) -> None:
        """A unit is done."""
        self._lost_in_a_row = 0

    def lost(self, worker: int, failure: Failure) -> None:
        """A worker is gone: drop all it owed and put its units back.

        Raises:
            JobFailed: Workers are lost one after another before they can work.
        """
        held, ready = self._ledger.held_by(worker), worker in self._staff.place
        self._tally.events[failure.kind.value] += 1
        charged = failure.charged
        if failure.kind is Kind.MEMORY:
            charged = self.most_workers == 1  # with all of the host to itself, it is the unit that is too large
            self.most_workers = max(1, min(self.most_workers or len(self._staff.all), len(self._staff.all)) - 1)
            self._note(f"{failure.reason}; going on with at most {self.most_workers} at a time")
        self._crew.stop(worker)
        self._ledger.lost(worker, charged)
        if (unit := self._staff.probing.get(worker)) is not None and charged:
            self.conclude(unit, self._suspects.failed(unit, None))
        self._staff.forget(worker)
        self._lost_in_a_row += 1
        if self._lost_in_a_row > 1:  # one is an accident and replaced at once
            self.start_after = self._crew.now() + min(waiting(self._lost_in_a_row - 1), LONGEST_START_WAIT)
        if ready and failure.kind is Kind.LOST:
            self._note(f"a worker died{f' in unit {held[0]}' if held else ''}; another one takes its place")
        elif not ready and failure.charged:
            self._starts_lost += 1
            if self._starts_lost >= MAX_STARTS_LOST:
                raise JobFailed(
                    f"{MAX_STARTS_LOST} workers in a row died before they had opened the model ({failure.reason}); "
                    "if that was for memory, ask for fewer with workers.max; the same command goes on"
                )
        for unit in held:
            if unit in self._ledger.failed:
                self._suspect(unit)

    def failed(self, answer: Answer, failure: Failure) -> None:
        """Somebody's answer is that it failed.

        Raises:
            SparsemillError: The job cannot work.
        """
        what, worker, unit, kind = answer.what, answer.worker, answer.unit, failure.kind
        if kind is Kind.JOB:
            raise failure.error or JobFailed(failure.reason)
        if kind in (Kind.LOST, Kind.MEMORY):
            self.lost(worker, failure)
        elif what == "live":
            self._staff.answered(worker, None, self._crew.now())
        elif what == "open":
            if kind is not Kind.STORAGE:
                raise failure.error or JobFailed(f"a worker cannot start: {failure.reason}")
            self.lost(worker, failure)
        elif what == "probe":
            del self._staff.probing[worker]
            if kind is Kind.UNIT:
                self.conclude(unit, self._suspects.failed(unit, failure.reason))
        elif kind is Kind.STORAGE and self._storage_tries[unit] < STORAGE_TRIES - 1:
            self._tally.events[kind.value] += 1
            self._storage_tries[unit] += 1
            seconds = waiting(self._storage_tries[unit])
            self._ledger.postpone(worker, unit, self._crew.now() + seconds, self._staff.place[worker])
            self._note(f"unit {unit}: storage failed ({failure.reason}); it is tried again in {seconds:.0f} s")
        else:
            self._tally.events[kind.value] += 1
            self._ledger.error(worker, unit, failure.reason, **({"most": 1} if kind is Kind.STORAGE else {}))
            if unit in self._ledger.failed and kind is Kind.UNIT and self._suspect(unit):
                return
            again = "gives up on it" if unit in self._ledger.failed else "tries again later"
            self._note(f"unit {unit} failed ({failure.reason}); the driver {again}")

    # Units that fail again and again are searched.

    def _suspect(self, unit: int) -> bool:
        """Look for the documents that make a unit fail, unless that has been in vain before; whether it does."""
        if self._suspects.is_in_vain(unit):
            return False
        self._tally.events["search"] += 1
        self._note(f"unit {unit} failed ({self._ledger.failed[unit]}); looking for the documents at fault")
        self._suspects.add(unit, self._units[unit].rows)
        return True

    def conclude(self, unit: int, found: int | None) -> None:
        """When a search is over, run the unit again without the documents that were found."""
        if found is None:
            return
        self._ledger.reopen(unit)  # there is little left that may go wrong with it
        if found:
            self._note(f"unit {unit}: {found} of its documents fail and get an error; the others go on")
        else:
            self._note(f"unit {unit}: each of its documents goes well alone; it is tried once more")


def waiting(times: int) -> float:
    """Seconds to wait before the next try after so many failures: 1, 2, 4, ... and no more than LONGEST_WAIT."""
    return float(min(2.0 ** (times - 1), LONGEST_WAIT))
