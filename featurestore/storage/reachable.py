"""Ask each place of storage once whether it answers at all: within fifteen seconds, or one sentence says so.

In the middle of a run clients rightly try again for minutes; to a person who has just typed a command that looks stuck.
A thread asks, because name servers, dead addresses and credentials can each keep a native call for minutes; one that is
given up is not left behind in native code while the interpreter ends.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

ANSWER_SECONDS = 15.0  # with the program's start 20; a handshake across the world takes one, Google's token another
SLOW_SECONDS = 5.0  # an error that took so long is one of trying again and again, not what a server answered

_CURL = re.compile(r"(?:curlCode: \d+, |CURL error \[\d+\]=)(.+?)(?: error_info|; Details: |\]|$)")
_DETAILS = re.compile(r"; Details: (.+)")

_given_up: list[threading.Thread] = []


class NoAnswer(Exception):  # noqa: N818  (an outcome, named as such)
    """Storage could not be reached; the message says what is known of why."""


def first_answer(ask: Callable[[], object]) -> None:
    """Ask storage something, and see that anything comes back.

    Args:
        ask: Does so. What it returns is of no interest, nor is a refusal: who means to read or write will meet it.

    Raises:
        NoAnswer: Nothing came, or nothing but failures to connect.
    """
    future: Future[None] = Future()
    started = time.monotonic()

    def put() -> None:
        try:
            ask()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001  (it is raised where it is waited for)
            future.set_exception(error)

    thread = threading.Thread(target=put, name="first-answer", daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not future.done():
        _given_up.append(thread)
        atexit.register(thread.join)
        raise NoAnswer(f"nothing within {ANSWER_SECONDS:g} s")
    error = future.exception()
    if error is None:
        return
    if isinstance(error, NoAnswer):
        raise error
    text = " ".join(str(error).split())
    if curl := _CURL.search(text):
        details = _DETAILS.search(text)
        raise NoAnswer((details or curl)[1].rstrip(". ")) from error
    if time.monotonic() - started > SLOW_SECONDS and isinstance(error, OSError):
        raise NoAnswer((text or type(error).__name__)[:200].rstrip(". ")) from error


def leave(code: int) -> None:
    """Have the process end with this code, though a call that was given up may still hang in native code."""
    if any(thread.is_alive() for thread in _given_up):
        atexit.register(_end, code)  # before those that wait for it: what was registered last is called first


def _end(code: int) -> None:
    if any(thread.is_alive() for thread in _given_up):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
