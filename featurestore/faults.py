"""Places where tests may end a process, by name.

`fault_point("worker.after_commit")` is an empty function unless SPARSEMILL_TEST_FAULT was in the environment when the
process started. The variable can do to a process only what whoever sets its environment can do anyway: end it, at a
place of their choosing. Its form is `{point}={action}@{marker}`, or `{point}:{text}={action}@{marker}` for only those
times when the path concerned has this text in it. The first process to get there makes the file `marker` and takes the
action; all others go on. Actions: `kill` this process; `raylet` kills its parent, which is a worker's raylet; `error`
raises an input/output error; `wait` sleeps until the marker is deleted.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

VARIABLE = "SPARSEMILL_TEST_FAULT"
POLL_SECONDS = 0.02

POINTS = (
    "worker.opening",  # nothing read yet
    "worker.before_write",  # a unit is computed
    "write.before",  # a file's bytes are there, storage has not been touched
    "write.middle",  # half of them are in the temporary file or the upload
    "write.before_rename",  # the temporary file is whole (file systems only)
    "write.after",  # the file is there under its name; its directory may not be on disk
    "worker.after_commit",  # the part is there, the driver does not know
    "driver.before_store",  # the store is held, there is no store.json
    "driver.after_commit",  # a report has come, it is not in the journal
    "driver.before_manifest",  # every part is there
    "driver.after_manifest",  # the manifest is there, the store is still held
)


def fault_point(name: str, path: str = "") -> None:
    """Take the action that a test asked for here; nothing where none did."""


def _strike(name: str, path: str = "") -> None:
    place, _, rest = os.environ[VARIABLE].partition("=")
    (point, _, text), (action, _, marker) = place.partition(":"), rest.partition("@")
    if name != point or text not in path:
        return
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if action == "error":
        raise OSError(errno.EIO, f"injected at {name}")
    if action == "wait":
        while Path(marker).exists():
            time.sleep(POLL_SECONDS)
        return
    os.kill(os.getppid() if action == "raylet" else os.getpid(), signal.SIGKILL)
    time.sleep(3600)  # without its raylet a worker ends itself within seconds; until then it must not go on


if os.environ.get(VARIABLE):
    fault_point = _strike
