"""The loop of a run: who does what next, and what to do when it does not come back.

Workers pull: each has one unit under way and one to go on with, so it never waits for the driver. When nothing waits
any more, idle workers do a second time what is overdue, and the first to commit wins. `Aftermath` decides what follows
from a failure; `Ledger` is the account of the units, `Staff` that of the workers, `Suspects` that of the searches.

None of them knows Ray: a `Crew` does the work, and a simulated one runs this same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from featurestore.base.fault_points import fault_point
from featurestore.errors import JobFailed
from ray_jobs.reporting.progress import Standing
from ray_jobs.reporting.run_record import RunState
from ray_jobs.run.deadlines import Pace
from ray_jobs.run.demand import Shortage
from ray_jobs.run.failure_policy import Aftermath
from ray_jobs.run.failures import Failure, Kind
from ray_jobs.run.quarantine import Suspects
from ray_jobs.run.totals import Tally
from ray_jobs.run.unit_queue import Ledger
from ray_jobs.run.worker_pool import Abandoned
from ray_jobs.run.worker_table import Staff

if TYPE_CHECKING:
    from ray_jobs.planning.units import Unit
    from ray_jobs.reporting.progress import Progress
    from ray_jobs.run.worker import Report
    from ray_jobs.run.worker_pool import Answer, Crew

IN_FLIGHT = 2  # units a worker: one under way, and one so that it never waits for the driver
TICK_SECONDS = 1.0  # how often the clock is looked at
CHECK_SECONDS = 10.0  # how often deadlines are, which are minutes
MAX_FAILED_UNITS = 3  # after so many the fault is not in the units
IDLE_SECONDS = 60.0  # then an idle worker is let go and its node may shut down; a straggler may need it before that


class UnitsFailed(JobFailed):
    """Units were given up; the message says which, and why the first was."""


class Dispatcher:
    """One run.

    Args:
        crew: Who does the work.
        units: What to do, in the order to do it.
        most: Workers at the most; as many as there is room for at any time if None.
        mean_tokens: Expected tokens of a document.
        already: Documents of the whole job that are done already.
        progress: Where to show it.
        committed: Called with each report, and the place of its worker, as it comes.
        watch: Called every second with `state`, which it may call.
    """

    def __init__(
        self,
        crew: Crew,
        units: Sequence[Unit],
        most: int | None,
        mean_tokens: float,
        already: int = 0,
        progress: Progress | None = None,
        committed: Callable[[Report, str], None] | None = None,
        watch: Callable[[Callable[[], RunState]], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self._crew = crew
        self._units = {unit.index: unit for unit in units}
        self._most = most
        self._mean_tokens = max(mean_tokens, 1.0)
        self._total = already + sum(unit.rows for unit in units)
        self._progress = progress
        self._committed = committed
        self._watch = watch
        self._ledger: Ledger[int] = Ledger(self._units)
        self._pace = Pace()
        self._suspects = Suspects()
        self._staff = Staff()
        self._aftermath = Aftermath(
            crew, self._units, self._ledger, self._staff, self._suspects, self.tally, self._note
        )
        self._next_tick = self._next_check = 0.0
        self._room = 0
        self._shortage = Shortage(
            "set workers.gpus and workers.cpus in the job to what a node has, or start such a node"
        )
        self._unmet: str | None = None
        self._already = already

    def to_the_end(self) -> Tally:
        """Run until every unit is done or has failed for good.

        Raises:
            UnitsFailed: Some units failed for good; the others are done, unless there were too many.
            SparsemillError: The job cannot work.
        """
        while (self._ledger.open or self._suspects) and len(self._given_up()) < MAX_FAILED_UNITS:
            now = self._crew.now()
            if now >= self._next_tick:
                self._next_tick = now + TICK_SECONDS
                self._tick(now)
            self._start_workers(now)
            for worker in list(self._staff.hungry if self._plenty() else self._staff.idle):
                if not (self._ledger.waiting or self._suspects):
                    break
                self._feed(worker, now)
            for answer in self._crew.wait(self._next_tick - now):
                if answer.worker in self._staff.all:  # not of one that was found dead a moment ago
                    self._take(answer)
        if self._given_up():
            raise UnitsFailed(self._failure())
        return self.tally

    @property
    def done(self) -> int:
        """Units committed so far."""
        return len(self._ledger.done)

    def state(self) -> RunState:
        """How the run stands."""
        begun = {unit for unit, _ in self._staff.begun.values()}
        return RunState(
            units_done=self.done,
            documents=self.tally.documents,
            tokens=self.tally.tokens,
            errors=self.tally.errors,
            waiting=self._ledger.waiting + len(self._ledger.handed_out - begun),
            workers=len(self._staff.place),
            workers_wanted=self._wanted(),
            events=dict(self.tally.events),
            failed=self._given_up(),
            under_way=self._staff.under_way(self._crew.now()),
            unmet=self._unmet,
        )

    # Workers come and go.

    def _wanted(self) -> int:
        most = self._most if self._most is not None else self._room
        return min(most, self._aftermath.most_workers or most, self._ledger.open + len(self._suspects))

    def _start_workers(self, now: float) -> None:
        if now < self._aftermath.start_after:
            return
        while len(self._staff.all) < self._wanted():
            self._crew.start(self._staff.hire())
        self.tally.workers = max(self.tally.workers, len(self._staff.all))

    # Work is handed out.

    def _plenty(self) -> bool:
        """Whether there are units enough for a second one each; near the end nobody hoards."""
        return self._ledger.waiting > len(self._staff.place)

    def _feed(self, worker: int, now: float) -> None:
        """Give a worker as much as it should have."""
        probe = self._suspects.next_probe(set(self._staff.probing.values())) if self._suspects else None
        held = len(self._ledger.held_by(worker))
        if probe is not None and not held:
            self._staff.probing[worker] = probe.unit
            self._crew.probe(worker, probe.unit, probe.start, probe.stop, probe.blamed)
        else:
            # nor is anything hoarded while a search waits for a worker that has nothing else
            limit = IN_FLIGHT if self._plenty() and probe is None else 1
            while held < limit and (unit := self._ledger.take(worker, now, self._staff.place[worker])) is not None:
                self._crew.run(worker, unit, self._suspects.blamed(unit))
                held += 1
        self._look_at(worker, now)

    def _look_at(self, worker: int, now: float) -> None:
        """Note what a worker has now that it was given or has answered something."""
        self._staff.look_at(worker, self._ledger.held_by(worker), IN_FLIGHT, now)

    def _second_runs(self, now: float) -> None:
        """Idle workers take what waits behind another unit, and do a second time what is overdue, the latest first."""
        alone = []
        for worker, (head, since) in self._staff.begun.items():
            for unit in self._ledger.held_by(worker):
                if unit not in self._ledger.done and len(self._ledger.holders(unit)) == 1:
                    late = self._pace.lateness(self._cost(head), now - since)
                    if unit != head or self._pace.is_overdue(self._cost(unit), now - since):
                        alone.append((unit != head, late, unit))
        alone.sort()
        for worker in list(self._staff.idle):
            if not alone:
                return
            unit = alone.pop()[2]
            self.tally.events["second run"] += 1
            self._ledger.twin(worker, unit)
            self._crew.run(worker, unit, self._suspects.blamed(unit))
            self._look_at(worker, now)

    # Answers come in.

    def _take(self, answer: Answer) -> None:
        worker, unit, now = answer.worker, answer.unit, self._crew.now()
        if answer.failure is not None:
            self._aftermath.failed(answer, answer.failure)
        elif answer.what == "open":
            self._staff.place[worker] = answer.value["host"]
            self._aftermath.opened()
        elif answer.what == "live":
            self._staff.answered(worker, answer.value, now)
        elif answer.what == "probe":
            del self._staff.probing[worker]
            self._aftermath.conclude(unit, self._suspects.passed(unit))
        elif isinstance(answer.value, Abandoned):
            self._ledger.give_back(worker, unit)
        elif self._ledger.commit(worker, unit):
            self._commit(worker, answer.value)
        if worker in self._staff.place:
            self._look_at(worker, now)

    def _commit(self, worker: int, report: Report) -> None:
        fault_point("driver.after_commit")
        record = report.record
        self.tally.add(report, self._staff.place[worker])
        self._aftermath.committed()
        self._pace.learn(self._cost(record.unit), report.seconds)
        for slower in self._ledger.holders(record.unit):
            self._crew.abandon(slower, record.unit)
        if self._committed is not None:
            self._committed(report, self._staff.place[worker])

    # The clock moves on.

    def _tick(self, now: float) -> None:
        self._room = self._crew.room() if self._most is None else self._most
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._check_deadlines(now)
            self._check_demand(now)
        if not self._ledger.waiting and self._staff.idle:
            self._second_runs(now)
        for worker, since in list(self._staff.idle.items()):
            if now - since > IDLE_SECONDS and len(self._staff.all) > self._wanted():
                self._crew.stop(worker)
                self._staff.forget(worker)
        for worker in self._staff.to_ask():
            self._crew.ask(worker)
        self._show()
        if self._watch is not None:
            self._watch(self.state)

    def _check_deadlines(self, now: float) -> None:
        for worker, (unit, since) in list(self._staff.begun.items()):
            reason = self._pace.missed(self._cost(unit), now - since, self._staff.still(worker, now))
            if reason is not None:
                self.tally.events["deadline"] += 1
                self._note(f"unit {unit} is taken from its worker: {reason}")
                self._aftermath.lost(worker, Failure(Kind.LOST, reason))

    def _check_demand(self, now: float) -> None:
        """Say, once, what no node can give; a worker that is ready has been given it."""
        said, unmet = self._unmet, None if self._staff.place else self._crew.unmet()
        self._unmet = self._shortage.look(unmet, now)
        if self._unmet is not None and said is None:
            self._note(self._unmet)

    def _cost(self, unit: int) -> float:
        """Expected tokens of a unit."""
        return self._units[unit].rows * self._mean_tokens

    def _show(self) -> None:
        if self._progress is None:
            return
        documents, tokens = self._staff.part_done(self._ledger.held_by)
        self._progress.update(
            Standing(
                documents=self._already + self.tally.documents + documents,
                total=self._total,
                tokens=self.tally.tokens + tokens,
                mean_tokens=self._mean_tokens,
                workers=len(self._staff.place),
                wanted=self._wanted(),
                errors=self.tally.errors,
            )
        )

    def _note(self, text: str) -> None:
        if self._progress is not None:
            self._progress.note(text)

    # The end.

    def _given_up(self) -> dict[int, str]:
        failed = self._ledger.failed
        return {unit: failed[unit] for unit in failed if unit not in self._suspects} if failed else {}

    def _failure(self) -> str:
        (first, reason), *others = self._given_up().items()
        unit = self._units[first]
        alone = ", though each of its documents goes well alone" if self._suspects.is_in_vain(first) else ""
        more = f" (and so did units {', '.join(str(index) for index, _ in others)})" if others else ""
        return f"unit {first} (documents {unit.start} to {unit.stop - 1}) failed: {reason}{alone}{more}"
