"""Run pieces of somebody else's work as Ray tasks: a study's, say, whose code knows no Ray.

Units of a job have workers, journals and retries of their own (`dispatcher`); this is for pieces that are cheap to do
again and whose results the caller keeps.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ray_jobs.cluster.session import ray_cluster
from ray_jobs.workers.demand import LOOK_SECONDS, Shortage, unmet


def run_tasks(
    work: Callable[..., Any], pieces: Sequence[tuple[Any, ...]], address: str | None, what: str
) -> Iterator[Any]:
    """What `work` returns for each piece, in the order in which they are done.

    A task is one CPU's work, so it gets one thread. A node that is lost loses tasks, which run again.

    Args:
        work: Called with the items of a piece.
        pieces: The first item of each is its own and travels with it; the others, large ones that pieces share, go to
            a node once.
        address: Of the cluster, as for `extract`; None starts one on this machine for as long as it takes.
        what: A piece in words: "a piece of the study".

    Raises:
        Exception: The first that `work` raised.
        JobFailed: The cluster has no room for a task, and nobody who would add any.
    """

    def outcome(*items: Any) -> Any:
        # A value: Ray prints, stack and all, what a task raises and nobody asks for any more.
        try:
            return work(*items)
        except Exception as error:  # noqa: BLE001  (raised again below)
            return error

    if not pieces:
        return
    with ray_cluster(address, cpus=os.cpu_count() or 1, gpus=0) as ray:
        remote = ray.remote(num_cpus=1, max_retries=3)(outcome)
        shared = {id(item): item for _, *others in pieces for item in others}
        sent = {key: ray.put(item) for key, item in shared.items()}
        waiting = [remote.remote(own, *(sent[id(item)] for item in others)) for own, *others in pieces]
        shortage, said = Shortage("start a node with CPUs, or leave --address out"), None
        while waiting:
            done, waiting = ray.wait(waiting, timeout=LOOK_SECONDS)
            if not done:
                before, said = said, shortage.look(unmet(ray, what, {"CPU": 1}), time.monotonic())
                if said and not before:
                    print(said, file=sys.stderr, flush=True)
                continue
            try:
                found = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            if isinstance(found, Exception):
                raise found
            yield found
