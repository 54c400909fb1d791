"""The loop of a run: who does what next, and what to do when it does not come back.

Workers pull: each has one unit under way and one to go on with, so it never waits for the driver. What a failure means
decides what follows it: a lost worker is replaced and its units are next in line; storage that did not answer is tried
later and elsewhere; when a host runs out of memory fewer workers go on; a unit that fails again and again is searched
for the documents at fault; a job that cannot work stops at once. When nothing waits any more, idle workers do a second
time what is overdue, and the first to commit wins.

All decisions are here and none of them knows Ray: a `Crew` does the work, and a simulated one runs this same loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featurestore.errors import JobFailed
from featurestore.faults import fault_point
from featurestore.runs import UnderWay
from ray_jobs.failures import Failure, Kind
from ray_jobs.ledger import Ledger
from ray_jobs.pace import Pace
from ray_jobs.progress import Standing
from ray_jobs.run_record import RunState
from ray_jobs.search import Search

if TYPE_CHECKING:
    from featurestore.writer import PartRecord
    from ray_jobs.crew import Answer, Crew
    from ray_jobs.progress import Progress
    from ray_jobs.units import Unit
    from ray_jobs.worker import Report

IN_FLIGHT = 2  # units a worker: one under way, and one so that it never waits for the driver
TICK_SECONDS = 1.0  # how often the clock is looked at
CHECK_SECONDS = 10.0  # how often deadlines are, which are minutes
ASKED_A_TICK, ASKED_SHARE = 100, 10  # workers asked where they stand: a hundred or a tenth, so each every ten seconds
MAX_STARTS_LOST = 3  # workers lost in a row before any of them could open the model
MAX_FAILED_UNITS = 3  # after so many the fault is not in the units
STORAGE_TRIES = 6  # of one unit: with the waiting between them, half a minute of an outage beyond what clients bridge
LONGEST_WAIT = 30.0  # seconds between two tries at storage; waiting doubles from one second up
LONGEST_START_WAIT = 8.0  # seconds between losing workers in a row and starting more; opening a model takes as long
IDLE_SECONDS = 60.0  # then an idle worker is let go and its node may shut down; a straggler may need it before that


class UnitsFailed(JobFailed):
    """Units were given up; the message says which, and why the first was."""


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        records: Of the parts it committed.
        work_seconds: That workers were busy with them.
        workers: Workers at the most.
        events: How often what happened: by `Kind` of failure, and "second run", "search", "deadline".
    """

    records: list[PartRecord] = field(default_factory=list)
    work_seconds: float = 0.0
    workers: int = 0
    events: Counter[str] = field(default_factory=Counter)


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
        self._searches: dict[int, Search] = {}
        self._in_vain: set[int] = set()  # units that were searched and no document found
        self._blamed: dict[int, dict[int, str]] = {}  # unit -> document -> what it did
        self._storage_tries: Counter[int] = Counter()
        self._workers: set[int] = set()  # all that were started and not lost, by serial number
        self._place: dict[int, str] = {}  # where those are that can work
        self._hungry: dict[int, None] = {}  # those that can take more, in the order in which they came to
        self._idle: dict[int, float] = {}  # those that have nothing -> since when
        self._begun: dict[int, tuple[int, float]] = {}  # worker -> the unit it computes, since when
        self._probing: dict[int, int] = {}  # worker -> the unit whose documents it tries
        self._asked: set[int] = set()  # workers that have not answered the last `live`
        self._live: dict[int, tuple[int, int, int]] = {}
        self._moved: dict[int, float] = {}  # worker -> when it last got further
        self._turn = 0  # whom to ask next
        self._serial = self._starts_lost = self._lost_in_a_row = 0
        self._start_after = self._next_tick = self._next_check = 0.0
        self._room = 0
        self._bound: int | None = None  # on the number of workers, once memory ran out
        self._already = self._rows = already
        self._tokens = self._errors = 0

    def to_the_end(self) -> Tally:
        """Run until every unit is done or has failed for good.

        Raises:
            UnitsFailed: Some units failed for good; the others are done, unless there were too many.
        SparsemillError: The job cannot work.
        """
        while (self._ledger.open or self._searches) and len(self._given_up()) < MAX_FAILED_UNITS:
            now = self._crew.now()
            if now >= self._next_tick:
                self._next_tick = now + TICK_SECONDS
                self._tick(now)
            self._start_workers(now)
            for worker in list(self._hungry if self._plenty() else self._idle):
                if not (self._ledger.waiting or self._searches):
                    break
                self._feed(worker, now)
            for answer in self._crew.wait(self._next_tick - now):
                if answer.worker in self._workers:  # not of one that was found dead a moment ago
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
        now, under_way = self._crew.now(), []
        for worker, (unit, since) in self._begun.items():
            live = self._live.get(worker, (-1, 0, 0))
            documents, tokens = live[1:] if live[0] == unit else (0, 0)
            under_way.append(UnderWay(unit, self._place.get(worker, ""), round(now - since, 1), documents, tokens))
        return RunState(
            units_done=self.done,
            documents=self._rows - self._already,
            tokens=self._tokens,
            errors=self._errors,
            waiting=self._ledger.waiting,
            workers=len(self._place),
            workers_wanted=self._wanted(),
            events=dict(self.tally.events),
            failed=self._given_up(),
            under_way=tuple(under_way),
        )

    # Workers come and go.

    def _wanted(self) -> int:
        most = self._most if self._most is not None else self._room
        return min(most, self._bound or most, self._ledger.open + len(self._searches))

    def _start_workers(self, now: float) -> None:
        if now < self._start_after:
            return
        while len(self._workers) < self._wanted():
            worker, self._serial = self._serial, self._serial + 1
            self._workers.add(worker)
            self._crew.start(worker)
        self.tally.workers = max(self.tally.workers, len(self._workers))

    def _lost(self, worker: int, failure: Failure) -> None:
        """A worker is gone: drop all it owed and put its units back."""
        held, ready = self._ledger.held_by(worker), worker in self._place
        self.tally.events[failure.kind.value] += 1
        charged = failure.charged
        if failure.kind is Kind.MEMORY:
            charged = self._bound == 1  # with all of the host to itself, it is the unit that is too large
            self._bound = max(1, min(self._bound or len(self._workers), len(self._workers)) - 1)
            self._note(f"{failure.reason}; going on with at most {self._bound} at a time")
        self._crew.stop(worker)
        self._ledger.lost(worker, charged)
        if (unit := self._probing.get(worker)) is not None and charged:
            self._tried(unit, None)
        self._forget(worker)
        self._lost_in_a_row += 1
        if self._lost_in_a_row > 1:  # one is an accident and replaced at once
            self._start_after = self._crew.now() + min(waiting(self._lost_in_a_row - 1), LONGEST_START_WAIT)
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

    def _forget(self, worker: int) -> None:
        self._workers.discard(worker)
        self._asked.discard(worker)
        for table in (self._place, self._hungry, self._idle, self._begun, self._probing, self._live, self._moved):
            table.pop(worker, None)

    # Work is handed out.

    def _plenty(self) -> bool:
        """Whether there are units enough for a second one each; near the end nobody hoards."""
        return self._ledger.waiting > len(self._place)

    def _feed(self, worker: int, now: float) -> None:
        """Give a worker as much as it should have."""
        tried = set(self._probing.values()) if self._searches else ()
        untried = next((unit for unit in self._searches if unit not in tried), None)
        held = len(self._ledger.held_by(worker))
        if untried is not None and not held and (span := self._searches[untried].next) is not None:
            self._probing[worker] = untried
            self._crew.probe(worker, untried, *span, self._searches[untried].blamed)
        else:
            # nor is anything hoarded while a search waits for a worker that has nothing else
            limit = IN_FLIGHT if self._plenty() and untried is None else 1
            while held < limit and (unit := self._ledger.take(worker, now, self._place[worker])) is not None:
                self._crew.run(worker, unit, self._blamed.get(unit, {}))
                held += 1
        self._look_at(worker, now)

    def _look_at(self, worker: int, now: float) -> None:
        """Note what a worker has now that it was given or has answered something."""
        held = self._ledger.held_by(worker)
        doing = self._probing.get(worker, held[0] if held else None)
        if doing is None:
            self._begun.pop(worker, None)
            self._idle.setdefault(worker, now)
        else:
            self._idle.pop(worker, None)
            if self._begun.get(worker, (None,))[0] != doing:
                self._begun[worker], self._moved[worker] = (doing, now), now
        if worker in self._probing or len(held) >= IN_FLIGHT:
            self._hungry.pop(worker, None)
        else:
            self._hungry.setdefault(worker)

    def _second_runs(self, now: float) -> None:
        """Idle workers take what waits behind another unit, and do a second time what is overdue, the latest first."""
        alone = []
        for worker, (head, since) in self._begun.items():
            for unit in self._ledger.held_by(worker):
                if unit not in self._ledger.done and len(self._ledger.holders(unit)) == 1:
                    late = self._pace.lateness(self._cost(head), now - since)
                    if unit != head or self._pace.is_overdue(self._cost(unit), now - since):
                        alone.append((unit != head, late, unit))
        alone.sort()
        for worker in list(self._idle):
            if not alone:
                return
            unit = alone.pop()[2]
            self.tally.events["second run"] += 1
            self._ledger.twin(worker, unit)
            self._crew.run(worker, unit, self._blamed.get(unit, {}))
            self._look_at(worker, now)

    # Answers come in.

    def _take(self, answer: Answer) -> None:
        worker, unit, now = answer.worker, answer.unit, self._crew.now()
        if answer.failure is not None:
            self._failed(answer, answer.failure)
        elif answer.what == "open":
            self._place[worker] = answer.value["host"]
            self._starts_lost = 0
        elif answer.what == "live":
            self._asked.discard(worker)
            if answer.value != self._live.get(worker):
                self._live[worker], self._moved[worker] = answer.value, now
        elif answer.what == "probe":
            del self._probing[worker]
            self._searches[unit].passed()
            self._conclude(unit)
        elif self._ledger.commit(worker, unit):
            self._commit(worker, answer.value)
        if worker in self._place:
            self._look_at(worker, now)

    def _commit(self, worker: int, report: Report) -> None:
        fault_point("driver.after_commit")
        record = report.record
        self.tally.records.append(record)
        self.tally.work_seconds += report.seconds
        self._rows += record.rows
        self._tokens += record.tokens
        self._errors += record.errors
        self._lost_in_a_row = 0
        self._pace.learn(self._cost(record.unit), report.seconds)
        for slower in self._ledger.holders(record.unit):
            self._crew.abandon(slower, record.unit)
        if self._committed is not None:
            self._committed(report, self._place[worker])

    def _failed(self, answer: Answer, failure: Failure) -> None:
        what, worker, unit, kind = answer.what, answer.worker, answer.unit, failure.kind
        if kind is Kind.JOB:
            raise failure.error or JobFailed(failure.reason)
        if kind in (Kind.LOST, Kind.MEMORY):
            self._lost(worker, failure)
        elif what == "live":
            self._asked.discard(worker)
        elif what == "open":
            if kind is not Kind.STORAGE:
                raise failure.error or JobFailed(f"a worker cannot start: {failure.reason}")
            self._lost(worker, failure)
        elif what == "probe":
            del self._probing[worker]
            if kind is Kind.UNIT:
                self._tried(unit, failure.reason)
        elif kind is Kind.ABANDONED:
            self._ledger.give_back(worker, unit)
        elif kind is Kind.STORAGE and self._storage_tries[unit] < STORAGE_TRIES - 1:
            self.tally.events[kind.value] += 1
            self._storage_tries[unit] += 1
            seconds = waiting(self._storage_tries[unit])
            self._ledger.postpone(worker, unit, self._crew.now() + seconds, self._place[worker])
            self._note(f"unit {unit}: storage failed ({failure.reason}); it is tried again in {seconds:.0f} s")
        else:
            self.tally.events[kind.value] += 1
            self._ledger.error(worker, unit, failure.reason, **({"most": 1} if kind is Kind.STORAGE else {}))
            if unit in self._ledger.failed and kind is Kind.UNIT and self._suspect(unit):
                return
            again = "gives up on it" if unit in self._ledger.failed else "tries again later"
            self._note(f"unit {unit} failed ({failure.reason}); the driver {again}")

    # Units that fail again and again are searched.

    def _suspect(self, unit: int) -> bool:
        """Look for the documents that make a unit fail, unless that has been in vain before; whether it does."""
        if unit in self._in_vain:
            return False
        self.tally.events["search"] += 1
        self._note(f"unit {unit} failed ({self._ledger.failed[unit]}); looking for the documents at fault")
        self._searches[unit] = Search(self._units[unit].rows, self._blamed.get(unit))
        return True

    def _tried(self, unit: int, reason: str | None) -> None:
        self._searches[unit].failed(reason)
        self._conclude(unit)

    def _conclude(self, unit: int) -> None:
        """When a search is over, run the unit again without the documents that were found."""
        search = self._searches[unit]
        if search.next is not None:
            return
        del self._searches[unit]
        self._ledger.reopen(unit)  # there is little left that may go wrong with it
        if search.found:
            self._blamed[unit] = search.blamed
            self._note(f"unit {unit}: {search.found} of its documents fail and get an error; the others go on")
        else:
            self._in_vain.add(unit)
            self._note(f"unit {unit}: each of its documents goes well alone; it is tried once more")

    # The clock moves on.

    def _tick(self, now: float) -> None:
        self._room = self._crew.room() if self._most is None else self._most
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._check_deadlines(now)
        if not self._ledger.waiting and self._idle:
            self._second_runs(now)
        for worker, since in list(self._idle.items()):
            if now - since > IDLE_SECONDS and len(self._workers) > self._wanted():
                self._crew.stop(worker)
                self._forget(worker)
        busy = list(self._begun)
        for _ in range(min(len(busy), max(ASKED_A_TICK, len(busy) // ASKED_SHARE))):
            self._turn = (self._turn + 1) % len(busy)
            if (worker := busy[self._turn]) not in self._asked:
                self._crew.ask(worker)
                self._asked.add(worker)
        self._show()
        if self._watch is not None:
            self._watch(self.state)

    def _check_deadlines(self, now: float) -> None:
        for worker, (unit, since) in list(self._begun.items()):
            reason = self._pace.missed(self._cost(unit), now - since, now - self._moved[worker])
            if reason is not None:
                self.tally.events["deadline"] += 1
                self._note(f"unit {unit} is taken from its worker: {reason}")
                self._lost(worker, Failure(Kind.LOST, reason))

    def _cost(self, unit: int) -> float:
        """Expected tokens of a unit."""
        return self._units[unit].rows * self._mean_tokens

    def _show(self) -> None:
        if self._progress is None:
            return
        under_way = [live for worker, live in self._live.items() if live[0] in self._ledger.held_by(worker)]
        self._progress.update(
            Standing(
                documents=self._rows + sum(documents for _, documents, _ in under_way),
                total=self._total,
                tokens=self._tokens + sum(tokens for _, _, tokens in under_way),
                mean_tokens=self._mean_tokens,
                workers=len(self._place),
                wanted=self._wanted(),
                errors=self._errors,
            )
        )

    def _note(self, text: str) -> None:
        if self._progress is not None:
            self._progress.note(text)

    # The end.

    def _given_up(self) -> dict[int, str]:
        failed = self._ledger.failed
        return {unit: failed[unit] for unit in failed if unit not in self._searches} if failed else {}

    def _failure(self) -> str:
        (first, reason), *others = self._given_up().items()
        unit = self._units[first]
        alone = ", though each of its documents goes well alone" if first in self._in_vain else ""
        more = f" (and so did units {', '.join(str(index) for index, _ in others)})" if others else ""
        return f"unit {first} (documents {unit.start} to {unit.stop - 1}) failed: {reason}{alone}{more}"


def waiting(times: int) -> float:
    """Seconds to wait before the next try after so many failures: 1, 2, 4, ... and no more than LONGEST_WAIT."""
    return float(min(2.0 ** (times - 1), LONGEST_WAIT))
