"""Define the protocol between the dispatcher, which decides who does what, and the workers, which do it.

A `WorkerPool` starts workers, gives them units and says what came of it. `ray_pool.RayPool` is the one that works; a
simulated one with a clock of its own runs the same dispatcher through a year of units in minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from ray_jobs.workers.demand import Unmet
    from ray_jobs.workers.failures import Failure

Request = Literal["open", "run", "range", "live"]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The answer for a unit that was stopped on purpose, between two batches, because another worker had done it."""

    unit: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    Attributes:
        what: The request.
        worker: Whose.
        unit: Of `run` and `range`.
        value: What the worker returned: of `open` where it is, of `run` a `Report` or `Abandoned`, of `live`
            how far it is.
        failure: Why there is no value.
    """

    what: Request
    worker: int
    unit: int = -1
    value: Any = None
    failure: Failure | None = None


class WorkerPool(Protocol):
    """Workers by number. A request is answered once by `wait`, unless its worker is stopped first."""

    def now(self) -> float:
        """Seconds that only grow."""

    def room(self) -> int:
        """Workers for which there is room now; at least one, whose waiting makes an autoscaler act."""

    def unmet(self) -> Unmet | None:
        """What a worker needs and no node could ever give; None where there is room, be it now or later."""

    def start(self, worker: int) -> None:
        """Start a worker, sometime; it answers "open" when it can work."""

    def run(self, worker: int, unit: int, blamed: Mapping[int, str]) -> None:
        """Have a unit done and committed, without features for the documents blamed."""

    def try_range(self, worker: int, unit: int, start: int, stop: int, blamed: Mapping[int, str]) -> None:
        """Have documents `[start, stop)` of a unit computed and nothing written."""

    def ask(self, worker: int) -> None:
        """Have a worker say how far it is."""

    def abandon(self, worker: int, unit: int) -> None:
        """Tell a worker to stop a unit at its next batch; that unit is then answered with `Abandoned` or its report."""

    def stop(self, worker: int) -> None:
        """End a worker at once; nothing that it still owed will be answered."""

    def wait(self, seconds: float) -> list[Answer]:
        """What has been answered; waits at most so long for a first answer."""
