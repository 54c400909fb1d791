"""Name the places where a crash test may end a process.

`fault_point("worker.after_commit")` does nothing unless SPARSEMILL_TEST_FAULT was in the environment when the process
started. The variable can do to a process only what whoever sets its environment can do anyway: end it, at a place of
their choosing. It holds entries separated by ";", each of the form `{point}={action}`, or `{point}:{text}={action}` for
only those times when what is at hand (a path, a list of documents) has this text in it. With `@{marker}` behind it an
entry takes effect once: the first process to get there makes that file, all others go on.

Actions: `kill` this process; `raylet` kills its parent, which is a worker's raylet; `error` raises an input/output
error, `raise` a ValueError; `wait` sleeps until the marker is deleted.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "SPARSEMILL_TEST_FAULT"
POLL_SECONDS = 0.02

POINTS = (
    "worker.opening",  # nothing read yet
    "worker.computing",  # documents are read, none is computed
    "worker.before_write",  # a unit is computed
    "write.before",  # a file's bytes are there, storage has not been touched
    "write.middle",  # half of them are in the temporary file or the upload
    "write.before_rename",  # the temporary file is whole (file systems only)
    "write.after",  # the file is there under its name; its directory may not be on disk
    "worker.after_commit",  # the part is there, the driver does not know
    "driver.before_store",  # the run has its lease, there is no store.json
    "driver.after_commit",  # a report has come, it is not in the journal
    "driver.before_manifest",  # every part is there
    "driver.after_manifest",  # the manifest is there, the lease not yet given back
)


def fault_point(name: str, at_hand: str | Sequence[str | None] = "") -> None:
    """Take the action that a test asked for here; nothing where none did."""


def _strike(name: str, at_hand: str | Sequence[str | None] = "") -> None:
    for fault in os.environ[VARIABLE].split(";"):
        place, _, what = fault.partition("=")
        (point, _, text), (action, _, marker) = place.partition(":"), what.partition("@")
        texts = [at_hand] if isinstance(at_hand, str) else at_hand
        if name == point and any(text in given for given in texts if given is not None) and _is_first(marker):
            _act(name, action, marker)


def _is_first(marker: str) -> bool:
    if not marker:
        return True
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _act(name: str, action: str, marker: str) -> None:
    if action == "error":
        raise OSError(errno.EIO, f"injected at {name}")
    if action == "raise":
        raise ValueError(f"injected at {name}")
    if action == "wait":
        while Path(marker).exists():
            time.sleep(POLL_SECONDS)
        return
    os.kill(os.getppid() if action == "raylet" else os.getpid(), signal.SIGKILL)
    time.sleep(3600)  # without its raylet a worker ends itself within seconds; until then it must not go on


if os.environ.get(VARIABLE):
    fault_point = _strike
