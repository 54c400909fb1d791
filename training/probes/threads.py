"""Run independent pieces of work on threads and return their results in order.

Work on threads must not depend on their number: whoever cuts it does so by the data alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_all(tasks: Sequence[Callable[[], T]], n_jobs: int) -> list[T]:
    """Results in order; threads, for all that takes time lets go of the interpreter and the matrix is not copied."""
    if n_jobs == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(n_jobs) as pool:
        return list(pool.map(lambda task: task(), tasks))
