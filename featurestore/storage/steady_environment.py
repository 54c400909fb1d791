"""Keep the process's environment still while threads in the background talk to storage.

S3's client asks the C library for variables of the environment at each request, and the C library moves them all when
one is added: a request and a new variable at the same moment end the process. So whoever adds variables while other
threads may talk to storage does it within `changing_environment`, and those threads talk within `steady_environment`.
Neither waits for ever: storage that hangs must not hold up a run, nor the start of a cluster a lease.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 20.0  # two beats of a lease, which six missed ones cost

_moves = threading.Condition()
_talking = 0
_changing = 0


@contextmanager
def steady_environment() -> Iterator[None]:
    """Nobody adds variables for as long as this lasts."""
    global _talking
    with _moves:
        _moves.wait_for(lambda: not _changing, PATIENCE_SECONDS)
        _talking += 1
    try:
        yield
    finally:
        with _moves:
            _talking -= 1
            _moves.notify_all()


@contextmanager
def changing_environment() -> Iterator[None]:
    """Nobody talks to storage in the background for as long as this lasts."""
    global _changing
    with _moves:
        _moves.wait_for(lambda: not _talking, PATIENCE_SECONDS)
        _changing += 1
    try:
        yield
    finally:
        with _moves:
            _changing -= 1
            _moves.notify_all()
