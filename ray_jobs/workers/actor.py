"""Wrap a `Worker` as the class that Ray makes actors of: its exceptions leave it as values.

Ray keeps an exception that an actor raised until somebody asks for it. Where nobody does (a worker that is let go, the
second of two that meet the same fault), it prints the exception with its whole stack into whatever the driver says. So
an exception is told its kind here, and goes back as a `Failure`, like any other answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from featurestore.url_secrets import shown
from ray_jobs.workers.failures import Failure, classify
from ray_jobs.workers.worker import Report, Worker, WorkerTask

if TYPE_CHECKING:
    from ray_jobs.planning.units import Unit
    from ray_jobs.workers.worker_pool import Abandoned

T = TypeVar("T")


class WorkerActor:
    """A `Worker`, method by method.

    Args:
        task: The job's task.
    """

    def __init__(self, task: WorkerTask) -> None:
        self._worker = Worker(task)
        self._store = shown(task.job.store)

    def open(self) -> dict[str, Any] | Failure:
        return self._outcome(self._worker.open)

    def run(self, unit: Unit, blamed: Mapping[int, str]) -> Report | Abandoned | Failure:
        return self._outcome(lambda: self._worker.run(unit, blamed))

    def try_range(self, unit: Unit, start: int, stop: int, blamed: Mapping[int, str]) -> Failure | None:
        return self._outcome(lambda: self._worker.try_range(unit, start, stop, blamed))

    def live(self) -> tuple[int, int, int, int] | Failure:
        return self._outcome(self._worker.live)

    def abandon(self, unit: int) -> Failure | None:
        return self._outcome(lambda: self._worker.abandon(unit))

    def leave(self) -> Failure | None:
        return self._outcome(self._worker.leave)

    def _outcome(self, do: Callable[[], T]) -> T | Failure:
        try:
            return do()
        except Exception as error:  # noqa: BLE001  (whatever it is, the driver decides what follows)
            return classify(error, self._store)
