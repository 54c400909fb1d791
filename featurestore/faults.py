"""Places where tests may end a process, by name.

`fault_point("worker.after_commit")` does nothing, unless the environment variable SPARSEMILL_TEST_FAULT was set when
the process started; then it is an empty function no longer. The variable can do to a process only what whoever sets its
environment can do anyway: end it at a named place. Its form is `{point}={action}@{file}`: the first process that
reaches the point makes the file and takes the action, once; all later ones go on. Actions: `kill` this process,
`parent` kills its parent (a worker's raylet), `error` raises an input/output error, `wait` sleeps until the file is
deleted.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

VARIABLE = "SPARSEMILL_TEST_FAULT"

POINTS = (
    "worker.opening",  # nothing read yet
    "worker.before_write",  # a unit is computed
    "part.before_write",  # its bytes are there, storage has not been touched
    "part.mid_write",  # half of them are in the temporary file or the upload
    "part.before_rename",  # the temporary file is whole
    "part.after_rename",  # the part is there, its directory entry perhaps not on disk
    "worker.after_commit",  # the part is there, the driver does not know
    "driver.before_store",  # holding the store, before store.json
    "driver.after_commit",  # a report has come, it is not in the journal
    "driver.before_manifest",  # every part is there
    "driver.after_manifest",  # the manifest is there, the store still held
)


def fault_point(name: str) -> None:
    """Take the action that a test asked for at this point; nothing where no test did."""


def _strike(name: str) -> None:
    point, _, rest = os.environ[VARIABLE].partition("=")
    action, _, marker = rest.partition("@")
    if name != point:
        return
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if action == "error":
        raise OSError(errno.EIO, f"injected at {name}")
    if action == "wait":
        while Path(marker).exists():
            time.sleep(0.05)  # short beside what the test does meanwhile
        return
    os.kill(os.getppid() if action == "parent" else os.getpid(), signal.SIGKILL)
    if action == "parent":
        time.sleep(3600)  # a worker whose raylet is gone ends itself within seconds; it must not write meanwhile


if os.environ.get(VARIABLE):
    fault_point = _strike
