"""Who works for a run, where, and what each has in hand now.

An account of the workers, as the ledger is one of the units: those that were started, those that can work, those that
could take more or have nothing, and what each says of how far it is. Nobody is hired or given anything here; that is
the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from featurestore.checks.run_files import UnderWay

ASKED_AT_ONCE, ASKED_SHARE = 100, 10  # workers asked where they stand: a hundred or a tenth, so each every ten seconds

Live = tuple[int, int, int]  # unit, and its documents and tokens so far


class Staff:
    """The workers of one run, by serial number.

    Attributes:
        all: Those that were started and not lost.
        place: Those that can work -> where they are.
        hungry: Those that can take more, in the order in which they came to.
        idle: Those that have nothing -> since when.
        begun: Worker -> the unit it computes, since when.
        probing: Worker -> the unit whose documents it tries.
    """

    def __init__(self) -> None:
        self.all: set[int] = set()
        self.place: dict[int, str] = {}
        self.hungry: dict[int, None] = {}
        self.idle: dict[int, float] = {}
        self.begun: dict[int, tuple[int, float]] = {}
        self.probing: dict[int, int] = {}
        self._asked: set[int] = set()  # those that have not answered the last question
        self._live: dict[int, Live] = {}
        self._moved: dict[int, float] = {}  # worker -> when it last got further
        self._turn = 0  # whom to ask next
        self._serial = 0

    def hire(self) -> int:
        """One more; its serial number."""
        worker, self._serial = self._serial, self._serial + 1
        self.all.add(worker)
        return worker

    def forget(self, worker: int) -> None:
        """One less."""
        self.all.discard(worker)
        self._asked.discard(worker)
        for table in (self.place, self.hungry, self.idle, self.begun, self.probing, self._live, self._moved):
            table.pop(worker, None)

    def look_at(self, worker: int, held: Sequence[int], full: int, now: float) -> None:
        """Note what a worker has, now that it was given or has answered something.

        Args:
            worker: Who.
            held: Units it has, the one it computes first.
            full: With so many it takes no more.
            now: The time.
        """
        doing = self.probing.get(worker, held[0] if held else None)
        if doing is None:
            self.begun.pop(worker, None)
            self.idle.setdefault(worker, now)
        else:
            self.idle.pop(worker, None)
            if self.begun.get(worker, (None,))[0] != doing:
                self.begun[worker], self._moved[worker] = (doing, now), now
        if worker in self.probing or len(held) >= full:
            self.hungry.pop(worker, None)
        else:
            self.hungry.setdefault(worker)

    def to_ask(self) -> Iterator[int]:
        """Those whose turn it is to say where they stand; not those that still owe an answer."""
        busy = list(self.begun)
        for _ in range(min(len(busy), max(ASKED_AT_ONCE, len(busy) // ASKED_SHARE))):
            self._turn = (self._turn + 1) % len(busy)
            if (worker := busy[self._turn]) not in self._asked:
                self._asked.add(worker)
                yield worker

    def answered(self, worker: int, live: Live | None, now: float) -> None:
        """A worker said where it stands, or (None) could not."""
        self._asked.discard(worker)
        if live is not None and live != self._live.get(worker):
            self._live[worker], self._moved[worker] = live, now

    def still(self, worker: int, now: float) -> float:
        """Seconds since a worker last got further."""
        return now - self._moved[worker]

    def under_way(self, now: float) -> tuple[UnderWay, ...]:
        """What each of those that compute is at."""
        found = []
        for worker, (unit, since) in self.begun.items():
            live = self._live.get(worker, (-1, 0, 0))
            documents, tokens = live[1:] if live[0] == unit else (0, 0)
            found.append(UnderWay(unit, self.place.get(worker, ""), round(now - since, 1), documents, tokens))
        return tuple(found)

    def part_done(self, held_by: Callable[[int], Sequence[int]]) -> tuple[int, int]:
        """Documents and tokens of units that are not committed yet."""
        under_way = [live for worker, live in self._live.items() if live[0] in held_by(worker)]
        return sum(documents for _, documents, _ in under_way), sum(tokens for _, _, tokens in under_way)
