"""Let one process of a machine work at a time: a file lock that the kernel releases when its holder ends.

Eight actors that start on one node want one bundle: the first builds it, the others wait and find it; two imports of
names add to one table, one after the other. What the lock guards appears whole or not at all, with or without it. Where
the lock's directory is on a network file system, nodes may or may not exclude each other, and where it cannot be made
(a cache that is part of a read-only image) nobody is excluded; all of that is right.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LOOK_SECONDS = 1.0


@contextmanager
def node_lock(
    path: Path, on_wait: Callable[[], None] | None = None, while_waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the lock file at `path`, which is made if missing and stays.

    Args:
        path: The file; one for each thing to guard.
        on_wait: Called once, before waiting for another process.
        while_waiting: Called every second meanwhile.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError:
        yield
        return
    with file:
        if not lock_now(file):
            if on_wait is not None:
                on_wait()
            if while_waiting is None:
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                while not lock_now(file):
                    while_waiting()
                    time.sleep(LOOK_SECONDS)
        yield  # closing the file lets go of the lock


def lock_now(file: BinaryIO) -> bool:
    """Lock an open file if nobody holds it now; closing it lets go of the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
