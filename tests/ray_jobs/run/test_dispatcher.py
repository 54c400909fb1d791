"""The loop of a run, with a pool that does as it is told: every failure has the consequence that its kind asks for."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest

from benchmarks.simulation import SimulatedPool, World, units_of
from featurestore.errors import CorpusError, JobFailed
from featurestore.writing.writer import PartRecord
from ray_jobs.planning.units import Unit
from ray_jobs.reporting.progress import Progress
from ray_jobs.reporting.rate import JobSize
from ray_jobs.run.deadlines import STALL_SECONDS
from ray_jobs.run.dispatcher import IDLE_SECONDS, Committed, Dispatcher, Note, Tick
from ray_jobs.run.failure_policy import MAX_DEATHS, MAX_ERRORS, STORAGE_TRIES
from ray_jobs.run.totals import RunTotals
from ray_jobs.workers.demand import GIVE_UP_SECONDS, Unmet
from ray_jobs.workers.failures import Failure, Kind
from ray_jobs.workers.worker import Report
from ray_jobs.workers.worker_pool import Answer

ROWS = 16
LOST = Failure(Kind.LOST, "it is gone")
Outcome = Failure | None | str  # None: it goes well; "hang": it never answers; "slow": after a hundred times the time


class ToldPool:
    """Workers that take a second a unit and fail as `outcome(unit, documents computed, worker)` says."""

    def __init__(self, outcome: Callable[[int, set[int], int], Outcome], start: Callable[[int], Outcome]) -> None:
        self._outcome, self._start = outcome, start
        self._now = 0.0
        self._due: list[tuple[float, Answer]] = []
        self._free: dict[int, float] = defaultdict(float)
        self._units: dict[int, list[int]] = defaultdict(list)
        self.runs: Counter[int] = Counter()
        self.ran_on: dict[int, list[int]] = defaultdict(list)
        self.begun_at: dict[int, list[float]] = defaultdict(list)
        self.documents: dict[int, set[int]] = {}
        self.started: list[int] = []
        self.stopped: list[int] = []
        self.abandoned: list[tuple[int, int]] = []
        self.lacks: Callable[[float], Unmet | None] = lambda _: None

    def now(self) -> float:
        return self._now

    def room(self) -> int:
        return 2

    def unmet(self) -> Unmet | None:
        return self.lacks(self._now)

    def start(self, worker: int) -> None:
        self.started.append(worker)
        outcome = self._start(worker)
        failure = outcome if isinstance(outcome, Failure) else None
        if outcome == "hang":
            return
        self._answer(worker, 0.5, Answer("open", worker, value={"host": f"host-{worker % 2}"}, failure=failure))

    def run(self, worker: int, unit: int, blamed: Mapping[int, str]) -> None:
        self.runs[unit] += 1
        self.ran_on[unit].append(worker)
        self.begun_at[unit].append(self._now)
        documents = set(range(ROWS)) - blamed.keys()
        outcome = self._outcome(unit, documents, worker)
        if isinstance(outcome, Failure):
            self._answer(worker, 1.0, Answer("run", worker, unit, failure=outcome))
        elif outcome != "hang":
            self.documents[unit] = documents
            record = PartRecord(unit, ROWS, len(blamed), 100, 1000, "ab")
            self._answer(worker, 100.0 if outcome == "slow" else 1.0, Answer("run", worker, unit, Report(record, 1.0)))

    def try_range(self, worker: int, unit: int, start: int, stop: int, blamed: Mapping[int, str]) -> None:
        outcome = self._outcome(unit, set(range(start, stop)) - blamed.keys(), worker)
        failure = outcome if isinstance(outcome, Failure) else None
        self._answer(worker, 0.1, Answer("range", worker, unit, failure=failure))

    def ask(self, worker: int) -> None:
        self._due.append((self._now, Answer("live", worker, value=(0, 0, 0, 0))))

    def abandon(self, worker: int, unit: int) -> None:
        self.abandoned.append((worker, unit))

    def stop(self, worker: int) -> None:
        self.stopped.append(worker)
        self._due = [(when, answer) for when, answer in self._due if answer.worker != worker]

    def wait(self, seconds: float) -> list[Answer]:
        until = self._now + max(seconds, 0.0)
        first = min((when for when, _ in self._due), default=until)
        self._now = max(self._now, min(first, until))
        found = [answer for when, answer in self._due if when <= self._now]
        self._due = [(when, answer) for when, answer in self._due if when > self._now]
        return found

    def _answer(self, worker: int, seconds: float, answer: Answer) -> None:
        self._free[worker] = max(self._free[worker], self._now) + seconds
        self._due.append((self._free[worker], answer))


class Run:
    """A run of `n` units of 16 documents on two workers."""

    def __init__(
        self,
        n: int,
        outcome: Callable[[int, set[int], int], Outcome] = lambda *_: None,
        start: Callable[[int], Outcome] = lambda _: None,
        most: int | None = 2,
    ) -> None:
        self.pool = ToldPool(outcome, start)
        self.said = io.StringIO()
        self.reports: list[Report] = []
        self.unmet: list[tuple[float, str | None]] = []
        self.job = JobSize(n * ROWS, 0, mean_tokens=10)
        units = [Unit(i, i * ROWS, (i + 1) * ROWS, ()) for i in range(n)]
        self.dispatcher = Dispatcher(self.pool, units, self.job, most)

    def go(self) -> Run:
        """As the driver does."""
        progress = Progress(self.said, live=False, clock=self.pool.now)
        for event in self.dispatcher.run():
            if isinstance(event, Committed):
                self.reports.append(event.report)
            elif isinstance(event, Note):
                progress.note(event.text)
            else:
                assert isinstance(event, Tick)
                now = self.dispatcher.snapshot()
                self.unmet.append((self.pool.now(), now.unmet))
                progress.update(now, self.job)
        return self

    @property
    def totals(self) -> RunTotals:
        return self.dispatcher.totals

    @property
    def units(self) -> list[int]:
        return sorted(record.unit for record in self.totals.records)


def nth(times: int, failure: Failure) -> Callable[[int, set[int], int], Outcome]:
    """The first unit fails so often, then goes well."""
    seen: Counter[int] = Counter()

    def outcome(unit: int, documents: set[int], worker: int) -> Outcome:
        if unit == 0:
            seen[unit] += 1
        return failure if unit == 0 and seen[unit] <= times else None

    return outcome


def test_every_unit_is_done_once_and_reported() -> None:
    run = Run(9).go()
    assert run.units == list(range(9))
    assert set(run.pool.runs.values()) == {1}
    assert [report.record for report in run.reports] == run.totals.records
    assert run.totals.workers == 2


def test_a_lost_worker_is_replaced_and_its_units_are_done() -> None:
    run = Run(6, nth(1, LOST)).go()
    assert run.units == list(range(6))
    assert len(run.pool.started) == 3
    assert "a worker died in unit 0; another one takes its place" in run.said.getvalue()


def test_nodes_that_are_taken_away_are_never_the_units_fault() -> None:
    run = Run(3, nth(MAX_DEATHS + 3, Failure(Kind.NODE, "preempted"))).go()
    assert run.units == [0, 1, 2]
    assert "search" not in run.totals.events


def test_workers_that_are_lost_in_a_row_are_started_more_and_more_slowly() -> None:
    run = Run(1, nth(5, Failure(Kind.NODE, "preempted"))).go()
    begun = run.pool.begun_at[0]
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 4 * gaps[0]


def test_workers_that_never_open_the_model_stop_the_run() -> None:
    with pytest.raises(JobFailed, match="3 workers in a row died before they had opened the model"):
        Run(3, start=lambda _: LOST).go()


def test_a_wrong_job_stops_at_once_with_its_own_sentence() -> None:
    wrong = Failure(Kind.JOB, "changed", CorpusError("c.jsonl has changed"))
    run = Run(50, lambda unit, *_: wrong if unit == 2 else None)
    with pytest.raises(CorpusError, match="has changed"):
        run.go()
    assert sum(run.pool.runs.values()) < 10


def test_storage_that_did_not_answer_is_tried_later_elsewhere_and_without_a_search() -> None:
    run = Run(12, nth(STORAGE_TRIES - 1, Failure(Kind.STORAGE, "timeout"))).go()
    assert run.units == list(range(12))
    begun = run.pool.begun_at[0]
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert gaps[-1] > gaps[0]
    assert run.pool.ran_on[0][0] != run.pool.ran_on[0][1]
    assert "search" not in run.totals.events


def test_storage_that_stays_away_fails_the_unit_and_the_others_are_done() -> None:
    run = Run(4, lambda unit, *_: Failure(Kind.STORAGE, "timeout") if unit == 1 else None)
    with pytest.raises(JobFailed, match=r"unit 1 \(documents 16 to 31\) failed: timeout"):
        run.go()
    assert run.dispatcher.units_done == 3
    assert run.pool.runs[1] == STORAGE_TRIES


def test_when_a_host_runs_out_of_memory_fewer_workers_go_on() -> None:
    run = Run(8, nth(1, Failure(Kind.MEMORY, "the host ran out of memory"))).go()
    assert run.units == list(range(8))
    assert len(run.pool.started) == 2  # nobody took the lost one's place
    assert "going on with at most 1 at a time" in run.said.getvalue()


def test_a_unit_too_large_for_a_host_of_its_own_is_given_up_by_name() -> None:
    def outcome(unit: int, documents: set[int], worker: int) -> Outcome:
        return Failure(Kind.MEMORY, "the host ran out of memory") if unit == 0 and len(documents) == ROWS else None

    run = Run(3, outcome)
    with pytest.raises(JobFailed, match=r"unit 0 .* though each of its documents goes well alone"):
        run.go()
    assert run.dispatcher.units_done == 2


@pytest.mark.parametrize("failure", [Failure(Kind.UNIT, "ValueError: poisoned"), LOST], ids=["raises", "dies"])
def test_documents_that_fail_a_unit_are_found_and_left_out_of_it(failure: Failure) -> None:
    poisoned = {3, 11}

    def outcome(unit: int, documents: set[int], worker: int) -> Outcome:
        return failure if unit == 2 and documents & poisoned else None

    run = Run(5, outcome).go()
    assert run.units == list(range(5))
    assert run.pool.documents[2] == set(range(ROWS)) - poisoned
    assert all(run.pool.documents[unit] == set(range(ROWS)) for unit in (0, 1, 3, 4))
    assert "2 of its documents fail" in run.said.getvalue()


def test_a_unit_that_fails_only_as_a_whole_is_given_up_after_the_search() -> None:
    def outcome(unit: int, documents: set[int], worker: int) -> Outcome:
        return Failure(Kind.UNIT, "too much at once") if unit == 1 and len(documents) == ROWS else None

    run = Run(4, outcome)
    with pytest.raises(JobFailed, match=r"unit 1 .* failed: too much at once, though each of its documents goes well"):
        run.go()
    assert run.dispatcher.units_done == 3
    assert run.pool.runs[1] == MAX_ERRORS + 1


def test_many_units_that_fail_stop_the_run() -> None:
    run = Run(50, lambda *_: Failure(Kind.PLACE, "IsADirectoryError"))
    with pytest.raises(JobFailed, match="and so did units"):
        run.go()
    assert sum(run.pool.runs.values()) < 60, "each unit once, and a few of them twice"


def test_a_worker_that_hangs_is_replaced_when_it_gets_no_further() -> None:
    run = Run(1, lambda unit, documents, worker: "hang" if worker == 0 else None).go()
    assert run.units == [0]
    assert run.pool.begun_at[0][1] > STALL_SECONDS
    assert "got no further" in run.said.getvalue()


def test_an_overdue_unit_is_done_a_second_time_and_the_first_to_commit_wins() -> None:
    run = Run(8, lambda unit, documents, worker: "slow" if unit == 5 and worker == run.pool.ran_on[5][0] else None)
    run.go()
    assert run.units == list(range(8))
    assert run.pool.runs[5] == 2
    assert run.pool.now() < 50, "the slow one was waited for"
    assert (run.pool.ran_on[5][0], 5) in run.pool.abandoned
    assert run.totals.events["second run"] >= 1
    assert 5 in run.totals.given_again


def test_what_waits_behind_a_slow_unit_is_done_by_those_who_have_nothing() -> None:
    run = Run(4, lambda unit, documents, worker: "slow" if worker == 0 else None).go()
    assert run.units == [0, 1, 2, 3]
    assert run.pool.now() < 50


def test_workers_that_nothing_is_left_for_are_let_go() -> None:
    run = Run(2, lambda unit, documents, worker: "hang" if unit == 0 and worker == 0 else None, most=2)
    # the second worker does unit 1 and, nothing being known of unit 0, has nothing to do until that stalls
    run.dispatcher._state._durations.is_overdue = lambda *_: False  # type: ignore[method-assign]
    run.go()
    assert 1 in run.pool.stopped
    assert run.pool.now() > IDLE_SECONDS


def test_workers_follow_the_room_there_is_where_no_number_is_given() -> None:
    run = Run(40, most=None)
    room = iter([1] * 5 + [2] * 1000)
    run.pool.room = lambda: next(room)  # type: ignore[method-assign]
    assert run.go().totals.workers == 2


@pytest.mark.slow
def test_a_simulated_day_loses_nothing_and_wastes_little() -> None:
    units = units_of(2_000)
    pool = SimulatedPool(World(workers=32), {unit.index: unit.rows for unit in units})
    dispatcher = Dispatcher(pool, units, JobSize(sum(unit.rows for unit in units), 0, 500.0), most=32)
    for _ in dispatcher.run():
        pass
    pool.close()
    assert sorted(record.unit for record in dispatcher.totals.records) == list(range(2_000))
    assert pool.happened["preempted"] > 0
    assert pool.spent.waste < 0.03 * pool.spent.total


def test_the_loop_asks_nothing_of_a_pool_but_what_the_protocol_says() -> None:
    from ray_jobs.workers.ray_pool import RayPool
    from ray_jobs.workers.worker_pool import WorkerPool

    asked = {name for name, value in vars(WorkerPool).items() if callable(value) and not name.startswith("_")}
    for pool in (RayPool, SimulatedPool, ToldPool):
        assert asked <= set(dir(pool)), pool


def pending_for_ever(worker: int) -> Outcome:
    """A worker for which no node has room."""
    return "hang"


def test_what_no_node_can_give_is_said_and_ends_the_run_after_a_minute() -> None:
    run = Run(3, start=pending_for_ever)
    run.pool.lacks = lambda _: Unmet("no node has a GPU", may_grow=False)
    with pytest.raises(JobFailed, match=r"no node has a GPU, and there is no autoscaler.*workers.gpus"):
        run.go()
    assert GIVE_UP_SECONDS <= run.pool.now() < GIVE_UP_SECONDS + 15
    assert next(when for when, unmet in run.unmet if unmet) <= 30
    assert run.said.getvalue().count("no node has a GPU") == 1


def test_with_an_autoscaler_demand_is_waited_for_and_the_run_goes_on_when_it_is_met() -> None:
    run = Run(3, start=pending_for_ever)

    def lacks(now: float) -> Unmet | None:
        if now < 600:
            return Unmet("no node has a GPU", may_grow=True)
        if now < 620:
            for worker in run.pool.started:
                run.pool._answer(worker, 0.5, Answer("open", worker, value={"host": "late"}))
        return None

    run.pool.lacks = lacks
    run.go()
    assert len(run.reports) == 3
    assert run.said.getvalue().count("waiting for the cluster's autoscaler") == 1
    assert any(unmet for _, unmet in run.unmet) and run.unmet[-1][1] is None


def test_a_node_that_joins_in_time_ends_the_count() -> None:
    run = Run(3)
    run.pool.lacks = lambda now: Unmet("no node has a GPU", may_grow=False) if now < 0.2 else None
    run.go()
    assert "GPU" not in run.said.getvalue()
