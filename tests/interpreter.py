"""How often threads that are not Python's have entered the interpreter.

A thread of Arrow's or polars' that lets go of a Python object, or calls a Python function, needs the interpreter. While
the interpreter ends it is refused, and the process is aborted. Each visit makes a thread state, and thread states are
numbered, so that visits can be counted without a debugger.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

_LATE_SECONDS = 0.01  # a thread that waits for the interpreter gets it as soon as nobody holds it


@dataclass
class Visits:
    """Of foreign threads: while the block ran, and after its end, when a process might be ending."""

    during: int = 0
    late: int = 0


@contextmanager
def foreign_visits() -> Iterator[Visits]:
    """Counts the visits of threads that `threading` did not start."""
    visits, started = Visits(), 0
    start = threading.Thread.start

    def counted_start(thread: threading.Thread) -> None:
        nonlocal started
        started += 1
        start(thread)

    with mock.patch.object(threading.Thread, "start", counted_start):
        before = _number()
        try:
            yield visits
        finally:
            after = _number()
            visits.during = after - before - 1 - started
            time.sleep(_LATE_SECONDS)
            visits.late = _number() - after - 1


def _number() -> int:
    """That of a new thread state, which is given back at once."""
    call = ctypes.pythonapi
    state = _typed(call.PyThreadState_New, ctypes.c_void_p)(_typed(call.PyInterpreterState_Get, ctypes.c_void_p)())
    number: int = _typed(call.PyThreadState_GetID, ctypes.c_uint64)(state)
    _typed(call.PyThreadState_Clear, None)(state)
    _typed(call.PyThreadState_Delete, None)(state)
    return number


def _typed(function: Any, result: Any) -> Any:
    function.restype = result
    return lambda *pointers: function(*map(ctypes.c_void_p, pointers))
