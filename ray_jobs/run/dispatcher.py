"""Loop over a run: give free workers something to do, take what they answer, and look at the clock.

Workers pull: each has one unit under way and one to go on with, so it never waits for the driver. When nothing waits
any more, idle workers do a second time what is overdue, and the first to commit wins. What is known is in `RunState`,
what follows from a failure is decided by `failure_policy`, and a `WorkerPool` does the work: Ray's, or a simulated one.
It writes nothing and shows nothing: what happens is yielded to the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.base.fault_points import fault_point
from featurestore.errors import JobFailed
from ray_jobs.run.failure_policy import (
    MAX_STARTS_LOST,
    Action,
    UnitFate,
    Where,
    WorkerFate,
    seconds_to_wait,
    what_follows,
)
from ray_jobs.run.state import RunState
from ray_jobs.workers.demand import Shortage
from ray_jobs.workers.failures import Failure, Kind
from ray_jobs.workers.worker_pool import Abandoned

if TYPE_CHECKING:
    from featurestore.checks.run_files import RunSnapshot
    from ray_jobs.planning.units import Unit
    from ray_jobs.reporting.rate import JobSize
    from ray_jobs.run.totals import RunTotals
    from ray_jobs.workers.worker import Report
    from ray_jobs.workers.worker_pool import Answer, WorkerPool

TICK_SECONDS = 1.0  # how often the clock is looked at
CHECK_SECONDS = 10.0  # how often deadlines are, which are minutes
MAX_FAILED_UNITS = 3  # after so many the fault is not in the units
IDLE_SECONDS = 60.0  # then an idle worker is let go and its node may shut down; a straggler may need it before that

ASKED = {"open": Where.OPENING, "run": Where.UNIT, "range": Where.RANGE, "live": Where.NOTHING}


@dataclass(frozen=True)
class Committed:
    """A unit's part is in its place: a worker's report, and its host; a slower worker of the same unit reports too."""

    report: Report
    host: str


@dataclass(frozen=True)
class Note:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class Tick:
    """A second has passed."""


Event = Committed | Note | Tick


class UnitsFailed(JobFailed):
    """Units were given up; the message says which, and why the first was."""


class Dispatcher:
    """One run.

    Args:
        pool: Who does the work.
        units: What to do, in the order to do it.
        job: What the run is measured against.
        most: Workers at the most; as many as there is room for at any time if None.
    """

    def __init__(self, pool: WorkerPool, units: Sequence[Unit], job: JobSize, most: int | None) -> None:
        self._pool = pool
        self._most = most
        self._state = RunState(units, job)
        self._shortage = Shortage(
            "set workers.gpus and workers.cpus in the job to what a node has, or start such a node"
        )
        self._unmet: str | None = None
        self._room = 0
        self._next_tick = self._next_check = 0.0
        self._happened: deque[Event] = deque()
        self._said: set[str] = set()  # by workers: many machines may say the same

    @property
    def totals(self) -> RunTotals:
        """What the run has done so far."""
        return self._state.totals

    @property
    def units_done(self) -> int:
        """Units committed so far."""
        return len(self._state.queue.done)

    def snapshot(self) -> RunSnapshot:
        """How the run stands; to be asked for about every second, for the speed is measured from it."""
        return self._state.snapshot(self._pool.now(), self._wanted(), self._unmet)

    def run(self) -> Iterator[Event]:
        """Run until every unit is done or has failed for good.

        Yields:
            What happens, as it does.

        Raises:
            UnitsFailed: Some units failed for good; the others are done, unless there were too many.
            SparsemillError: The job cannot work.
        """
        state = self._state
        while state.open and len(state.given_up) < MAX_FAILED_UNITS:
            now = self._pool.now()
            if now >= self._next_tick:
                self._next_tick = now + TICK_SECONDS
                self._tick(now)
            self._start_workers(now)
            self._hand_out(now)
            yield from self._drained()
            for answer in self._pool.wait(self._next_tick - now):
                if answer.worker in state.workers.started:  # not of one that was found dead a moment ago
                    self._take(answer, self._pool.now())
                    yield from self._drained()
        if state.given_up:
            raise UnitsFailed(self._why_units_failed())

    def _drained(self) -> Iterator[Event]:
        while self._happened:
            yield self._happened.popleft()

    def _note(self, text: str) -> None:
        self._happened.append(Note(text))

    # Workers are started and given work.

    def _wanted(self) -> int:
        most = self._most if self._most is not None else self._room
        return min(most, self._state.worker_limit or most, self._state.open)

    def _start_workers(self, now: float) -> None:
        if now < self._state.start_after:
            return
        while len(self._state.workers.started) < self._wanted():
            self._pool.start(self._state.add_worker())

    def _hand_out(self, now: float) -> None:
        """Give each worker as much as it should have."""
        state = self._state
        for worker in list(state.workers.not_full if state.has_plenty else state.workers.idle):
            if not state.is_waiting:
                return
            if (tried := state.next_range(worker)) is not None:
                state.give_range(worker, tried.unit, now)
                self._pool.try_range(worker, tried.unit, tried.start, tried.stop, tried.blamed)
            else:
                for unit in state.give_units(worker, now):
                    self._pool.run(worker, unit, state.blamed(unit))

    def _second_runs(self, now: float) -> None:
        """Idle workers take what waits behind another unit, and do a second time what is overdue, the latest first."""
        units = self._state.worth_a_second_run(now)
        for worker in list(self._state.workers.idle):
            if not units:
                return
            unit = units.pop()
            self._state.give_again(worker, unit, now)
            self._pool.run(worker, unit, self._state.blamed(unit))

    # Answers come in.

    def _take(self, answer: Answer, now: float) -> None:
        state, worker = self._state, answer.worker
        if answer.failure is not None:
            where = state.where(worker, ASKED[answer.what], answer.failure.kind)
            self._failed(worker, answer.unit, answer.failure, where, now)
        elif answer.what == "open":
            state.worker_opened(worker, answer.value["host"], now)
        elif answer.what == "live":
            state.worker_answered(worker, answer.value, now)
        elif answer.what == "range":
            self._say_what_was_found(answer.unit, state.range_passed(worker, now))
        elif isinstance(answer.value, Abandoned):
            state.committed(worker, answer.unit, None, now)
        else:
            self._happened.append(Committed(answer.value, state.workers.host[worker]))
            if state.committed(worker, answer.unit, answer.value, now):
                self._first_to_commit(answer.unit, answer.value)

    def _first_to_commit(self, unit: int, report: Report) -> None:
        fault_point("driver.after_commit")
        for slower in self._state.queue.holders(unit):
            self._pool.abandon(slower, unit)
        for note in set(report.notes) - self._said:
            self._said.add(note)
            self._note(note)

    # Something failed.

    def _failed(self, worker: int, unit: int, failure: Failure, where: Where, now: float) -> None:
        """Do what follows from a failure.

        Raises:
            SparsemillError: The job cannot work.
        """
        state = self._state
        gone = failure.kind in (Kind.LOST, Kind.NODE, Kind.MEMORY)
        if gone:  # whatever it was asked, it is the unit that it was computing that was lost
            unit = state.workers.computing.get(worker, (-1, 0.0))[0]
        action = what_follows(failure.kind, state.attempts(unit), where)
        if action.stop:
            raise failure.error or JobFailed(_why_stopped(failure, where))
        if action.worker is not WorkerFate.KEEP:
            self._pool.stop(worker)
        if action.worker is not WorkerFate.KEEP or where is Where.UNIT:
            state.totals.events[failure.kind.event] += 1
        if where is Where.NOTHING and not gone:
            state.worker_answered(worker, None, now)
            return
        found = state.apply(action, failure, worker, unit, now)
        self._say_what_follows(action, failure, unit, where)
        self._say_what_was_found(unit, found)

    def _say_what_follows(self, action: Action, failure: Failure, unit: int, where: Where) -> None:
        if failure.kind is Kind.MEMORY:
            self._note(f"{failure.reason}; going on with at most {self._state.worker_limit} at a time")
        elif action.worker is WorkerFate.REPLACE and where is not Where.OPENING:
            in_unit = f" in unit {unit}" if where is Where.UNIT else ""
            self._note(f"a worker died{in_unit}; another one takes its place")
        if where is not Where.UNIT:
            return
        if unit in self._state.searches:
            why = self._state.queue.failed[unit]
            self._note(f"unit {unit} failed ({why}); looking for the documents at fault")
        elif action.unit is UnitFate.LATER:
            seconds = seconds_to_wait(self._state.attempts(unit).storage)
            self._note(f"unit {unit}: storage failed ({failure.reason}); it is tried again in {seconds:.0f} s")
        elif action.worker is WorkerFate.KEEP:
            again = "gives up on it" if unit in self._state.queue.failed else "tries again later"
            self._note(f"unit {unit} failed ({failure.reason}); the driver {again}")

    def _say_what_was_found(self, unit: int, found: int | None) -> None:
        if found:
            self._note(f"unit {unit}: {found} of its documents fail and get an error; the others go on")
        elif found is not None:
            self._note(f"unit {unit}: each of its documents goes well alone; it is tried once more")

    def _why_units_failed(self) -> str:
        (first, reason), *others = self._state.given_up.items()
        unit = self._state.unit(first)
        alone = ", though each of its documents goes well alone" if self._state.searches.was_in_vain(first) else ""
        more = f" (and so did units {', '.join(str(index) for index, _ in others)})" if others else ""
        return f"unit {first} (documents {unit.start} to {unit.stop - 1}) failed: {reason}{alone}{more}"

    # The clock moves on.

    def _tick(self, now: float) -> None:
        state = self._state
        self._room = self._pool.room() if self._most is None else self._most
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._check_deadlines(now)
            self._check_demand(now)
        if not state.queue.waiting and state.workers.idle:
            self._second_runs(now)
        for worker, since in list(state.workers.idle.items()):
            if now - since > IDLE_SECONDS and len(state.workers.started) > self._wanted():
                self._pool.stop(worker)
                state.workers.remove(worker)
        for worker in state.workers.next_to_ask():
            self._pool.ask(worker)
        self._happened.append(Tick())

    def _check_deadlines(self, now: float) -> None:
        for worker, unit, reason in self._state.missed_deadlines(now):
            self._state.totals.events["deadline"] += 1
            self._note(f"unit {unit} is taken from its worker: {reason}")
            where = self._state.where(worker, Where.UNIT, Kind.LOST)
            self._failed(worker, unit, Failure(Kind.LOST, reason), where, now)

    def _check_demand(self, now: float) -> None:
        """Say, once, what no node can give; a worker that is ready has been given it."""
        said, unmet = self._unmet, None if self._state.workers.host else self._pool.unmet()
        self._unmet = self._shortage.look(unmet, now)
        if self._unmet is not None and said is None:
            self._note(self._unmet)


def _why_stopped(failure: Failure, where: Where) -> str:
    if where is Where.OPENING and failure.kind in (Kind.LOST, Kind.MEMORY, Kind.STORAGE):
        return (
            f"{MAX_STARTS_LOST} workers in a row died before they had opened the model ({failure.reason}); "
            "if that was for memory, ask for fewer with workers.max; the same command goes on"
        )
    return f"a worker cannot start: {failure.reason}" if where is Where.OPENING else failure.reason
