"""Keep the table of workers: who was started, who can work, what each computes, since when, and how far it has come.

A pure account beside the queue of units. It starts nobody and gives nobody anything; `state` tells it what changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from featurestore.checks.run_files import UnderWay

ASKED_AT_ONCE, ASKED_SHARE = 100, 10  # workers asked how far they are: a hundred or a tenth, so each every ten seconds

UnitProgress = tuple[int, int, int, int]  # unit, its documents and tokens so far, and what was read before the next


class WorkerTable:
    """The workers of one run, by serial number.

    Attributes:
        started: Those that were started and not lost.
        host: Those that can work -> where they are.
        not_full: Those that can take more, in the order in which they came to.
        idle: Those that have nothing -> since when.
        computing: Worker -> the unit it computes, since when.
        searching: Worker -> the unit of which it tries some documents.
    """

    def __init__(self) -> None:
        self.started: set[int] = set()
        self.host: dict[int, str] = {}
        self.not_full: dict[int, None] = {}
        self.idle: dict[int, float] = {}
        self.computing: dict[int, tuple[int, float]] = {}
        self.searching: dict[int, int] = {}
        self._asked: set[int] = set()  # those that have not answered the last question
        self._progress: dict[int, UnitProgress] = {}
        self._moved: dict[int, float] = {}  # worker -> when it last got further
        self._read: dict[int, float] = {}  # worker -> when it last read on towards its unit's first row
        self._turn = 0  # whom to ask next
        self._serial = 0

    def add(self) -> int:
        """One more; its serial number."""
        worker, self._serial = self._serial, self._serial + 1
        self.started.add(worker)
        return worker

    def remove(self, worker: int) -> None:
        """One less."""
        self.started.discard(worker)
        self._asked.discard(worker)
        tables = (self.host, self.not_full, self.idle, self.computing, self.searching, self._progress)
        for table in (*tables, self._moved, self._read):
            table.pop(worker, None)

    def update(self, worker: int, held: Sequence[int], full: int, now: float) -> None:
        """Note what a worker has, now that it was given or has answered something.

        Args:
            worker: Who.
            held: Units it has, the one it computes first.
            full: With so many it takes no more.
            now: The time.
        """
        unit = self.searching.get(worker, held[0] if held else None)
        if unit is None:
            self.computing.pop(worker, None)
            self.idle.setdefault(worker, now)
        else:
            self.idle.pop(worker, None)
            if self.computing.get(worker, (None,))[0] != unit:
                self.computing[worker], self._moved[worker] = (unit, now), now
                self._read.pop(worker, None)
        if worker in self.searching or len(held) >= full:
            self.not_full.pop(worker, None)
        else:
            self.not_full.setdefault(worker)

    def next_to_ask(self) -> Iterator[int]:
        """Those whose turn it is to say how far they are; not those that still owe an answer."""
        busy = list(self.computing)
        for _ in range(min(len(busy), max(ASKED_AT_ONCE, len(busy) // ASKED_SHARE))):
            self._turn = (self._turn + 1) % len(busy)
            if (worker := busy[self._turn]) not in self._asked:
                self._asked.add(worker)
                yield worker

    def answered(self, worker: int, progress: UnitProgress | None, now: float) -> None:
        """A worker said how far it is, or (None) could not."""
        self._asked.discard(worker)
        if progress is not None and progress != self._progress.get(worker):
            self._progress[worker], self._moved[worker] = progress, now
            unit, documents, tokens, read = progress
            if read and not (documents or tokens) and self.computing.get(worker, (None,))[0] == unit:
                self._read[worker] = now

    def seconds_stalled(self, worker: int, now: float) -> float:
        """Seconds since a worker last got further."""
        return now - self._moved[worker]

    def seconds_computing(self, worker: int, now: float) -> float:
        """Seconds that a worker has been at its unit, without what reading up to its first row took."""
        return now - max(self.computing[worker][1], self._read.get(worker, 0.0))

    def under_way(self, now: float) -> tuple[UnderWay, ...]:
        """What each of those that compute is at; documents that are only tried are no progress of their unit."""
        found = []
        for worker, (unit, since) in self.computing.items():
            reported, documents, tokens, _ = self._progress.get(worker, (-1, 0, 0, 0))
            if reported != unit or worker in self.searching:
                documents = tokens = 0
            found.append(UnderWay(unit, self.host.get(worker, ""), round(now - since, 1), documents, tokens))
        return tuple(found)
