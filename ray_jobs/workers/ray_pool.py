"""Run the workers as Ray actors, one actor a worker, and tell whether a worker, its node or memory was lost.

Ray never restarts one: the dispatcher starts another, so that it knows who has what. Only small records cross: a unit's
slices on the way out, its report on the way back. Actors for which there is no room stay pending, and that is the
demand which Ray's autoscaler serves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featurestore.base.library_errors import named
from featurestore.errors import JobFailed
from ray_jobs.cluster.session import worker_environment
from ray_jobs.workers.actor import WorkerActor
from ray_jobs.workers.demand import Unmet, unmet
from ray_jobs.workers.failures import Failure, Kind, classify
from ray_jobs.workers.worker import WorkerTask
from ray_jobs.workers.worker_pool import Answer, Request

if TYPE_CHECKING:
    from ray_jobs.planning.job_plan import JobPlan

# Ray says these in prose only; a version that says it otherwise costs a unit one of its lives, no more.
_OUT_OF_MEMORY = "running low on memory"
_NODE_DIED = "its node has died"

SILENCE_SECONDS = 10.0  # after so long without an answer it is looked whether anybody is there at all

LEAVE_SECONDS = (
    3.0  # leaving takes some tenths of one; a worker that needs longer is at a unit that another one has done
)


class RayPool:
    """The actors of one run.

    Args:
        ray: The `ray` module, connected.
        plan: The plan whose units they do.
    """

    def __init__(self, ray: Any, plan: JobPlan) -> None:
        from featurestore.storage.files import shown

        self._ray = ray
        self._plan = plan
        self._store = shown(plan.job.store)
        self._heard = self.now()
        self._units = {unit.index: unit for unit in plan.missing}
        self._spills = any(part.is_far for unit in plan.missing for part in unit.slices)
        self._actors: dict[int, Any] = {}
        self._owed: dict[Any, tuple[Request, int, int]] = {}  # ref -> request, worker, unit
        self._task = WorkerTask.of(plan)
        self._needs = {"CPU": plan.compute.threads, "GPU": gpus_each(plan)}
        self._actor_class = ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_restarts=0,
            max_concurrency=1,
            concurrency_groups={"live": 1},
            runtime_env={"env_vars": worker_environment(plan.compute.threads)},
        )(WorkerActor)

    def now(self) -> float:
        """See `WorkerPool`; so for the others."""
        return time.monotonic()

    def room(self) -> int:
        resources = self._ray.cluster_resources()
        gpus = gpus_each(self._plan)
        fitting = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 0) / self._plan.compute.threads
        return max(1, int(fitting))

    def unmet(self) -> Unmet | None:
        return unmet(self._ray, "a worker", {name: amount for name, amount in self._needs.items() if amount})

    def start(self, worker: int) -> None:
        actor = self._actor_class.remote(self._task)
        self._actors[worker] = actor
        self._owed[actor.open.remote()] = ("open", worker, -1)

    def run(self, worker: int, unit: int, blamed: Mapping[int, str]) -> None:
        ref = self._actors[worker].run.remote(self._units[unit], blamed)
        self._owed[ref] = ("run", worker, unit)

    def try_range(self, worker: int, unit: int, start: int, stop: int, blamed: Mapping[int, str]) -> None:
        ref = self._actors[worker].try_range.remote(self._units[unit], start, stop, blamed)
        self._owed[ref] = ("range", worker, unit)

    def ask(self, worker: int) -> None:
        ref = self._actors[worker].live.options(concurrency_group="live").remote()
        self._owed[ref] = ("live", worker, -1)

    def abandon(self, worker: int, unit: int) -> None:
        self._actors[worker].abandon.options(concurrency_group="live").remote(unit)

    def stop(self, worker: int) -> None:
        self._owed = {ref: owed for ref, owed in self._owed.items() if owed[1] != worker}
        self._ray.kill(self._actors.pop(worker))

    def wait(self, seconds: float) -> list[Answer]:
        if not self._owed:  # of nothing, nothing would come at once
            time.sleep(max(seconds, 0))
            return []
        answered, _ = self._ray.wait(list(self._owed), num_returns=1, timeout=max(seconds, 0))
        if answered:  # and whatever else has come by now
            self._heard = self.now()
            answered, _ = self._ray.wait(list(self._owed), num_returns=len(self._owed), timeout=0)
        elif self.now() - self._heard > SILENCE_SECONDS:
            self._heard = self.now()
            self._look_for_a_node()
        return [self._answer(ref) for ref in answered]

    def _look_for_a_node(self) -> None:
        """Fail if the cluster has no node at all: its last raylet has left without taking this process with it.

        Actors then stay pending for ever. A head node counts, so a cluster that is about to grow has one.
        """
        if not any(node["Alive"] for node in self._ray.nodes()):
            raise JobFailed("Ray has lost its last node; what is done stays, and the same command goes on")

    def close(self, finished: bool = False) -> None:
        """Stop all workers; what they have in hand is abandoned, which is harmless.

        Args:
            finished: Nothing is left to do: those that have nothing in hand may leave by themselves, which exports what
                they have counted since Ray last did so.
        """
        opening = {worker for what, worker, _ in self._owed.values() if what == "open"}  # these answer nothing yet
        with contextlib.suppress(self._ray.exceptions.RayError):
            leaving = [
                actor.leave.options(concurrency_group="live").remote()
                for worker, actor in self._actors.items()
                if self._spills and worker not in opening
            ]
            if finished:
                leaving += [actor.__ray_terminate__.remote() for actor in self._actors.values()]
            if leaving:
                self._ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE_SECONDS)
        for actor in self._actors.values():
            with contextlib.suppress(self._ray.exceptions.RayError):  # Ray may be what has failed
                self._ray.kill(actor)
        self._actors.clear()
        self._owed.clear()

    def _answer(self, ref: Any) -> Answer:
        what, worker, unit = self._owed.pop(ref)
        errors = self._ray.exceptions
        try:
            value = self._ray.get(ref)
        except errors.RayTaskError as error:  # before our code came to run, e.g. what it was given cannot be read there
            return Answer(what, worker, unit, failure=classify(error.cause, self._store))
        except errors.RayError as error:
            return Answer(what, worker, unit, failure=_loss(error, errors))
        if isinstance(value, Failure):
            return Answer(what, worker, unit, failure=value)
        return Answer(what, worker, unit, value=value)


def gpus_each(plan: JobPlan) -> float:
    """GPUs that one worker reserves."""
    if plan.compute.device == "cpu":
        return 0
    return plan.job.workers.gpus if plan.job.workers.gpus is not None else 1


def _loss(error: Any, errors: Any) -> Failure:
    """Tell what it means that Ray, and not our code, failed a request."""
    text = str(error)
    if isinstance(error, errors.OutOfMemoryError) or _OUT_OF_MEMORY in text:
        return Failure(Kind.MEMORY, "the host ran out of memory")
    # A node that went took its workers with it, whatever they were doing; so did one that cannot be reached.
    gone = isinstance(error, errors.ActorUnavailableError | errors.NodeDiedError) or _NODE_DIED in text
    return Failure(Kind.NODE if gone or getattr(error, "preempted", False) else Kind.LOST, named(error))
