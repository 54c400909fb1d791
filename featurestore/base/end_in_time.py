"""End a process within a set time after it was told to stop, whatever it waits for.

Python runs handlers of signals between two steps of its own, so a call into storage that does not answer keeps Ctrl-C
waiting, and so do threads that are joined at the end. A thread of our own hears of the signal at once, and ends the
process when its time is over or when it is told again: as SIGKILL would, after which the same command goes on.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

END_SECONDS = 30.0  # what Kubernetes leaves between SIGTERM and SIGKILL; where storage answers, ending takes a few
TOGETHER_SECONDS = 0.5  # one Ctrl-C may come twice: from the terminal, and from what it runs us in (make, timeout)
SAY_SECONDS = 1.0  # for whoever reads our output; nobody may

_STOPS = (signal.SIGINT, signal.SIGTERM)


def end_in_time(say: Callable[[str, int], object], seconds: float = END_SECONDS) -> None:
    """From now on, end this process so long after SIGINT or SIGTERM, or at once after a further one.

    For processes that are ours alone, and their main thread; elsewhere nothing is done. A signal for which Python has
    no handler ends the process by itself, as ever.

    Args:
        say: Called with a sentence and the exit code, from another thread, before the process is ended.
        seconds: How long it may take to end by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard, told, say, seconds), name="ending", daemon=True).start()


def _watch(heard: socket.socket, _told: socket.socket, say: Callable[[str, int], object], seconds: float) -> None:
    """Wait for signals, whose numbers come as bytes; keeps the other end open."""
    signum, started = _next_stop(heard, None), time.monotonic()
    reason = f"did not end within {seconds:.0f} s of being stopped; storage may not answer"
    while (left := started + seconds - time.monotonic()) > 0:
        if _next_stop(heard, left) and time.monotonic() - started > TOGETHER_SECONDS:
            reason = "stopped at once"
            break
    code = 128 + signum
    speaker = threading.Thread(target=say, args=(f"{reason}; the same command goes on from here", code), daemon=True)
    speaker.start()
    speaker.join(SAY_SECONDS)
    os._exit(code)


def _next_stop(heard: socket.socket, seconds: float | None) -> int:
    """The next signal that means to stop; 0 if there is none for so long."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        heard.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
        try:
            signum = heard.recv(1)[0]
        except TimeoutError:
            return 0
        if signum in _STOPS:
            return signum
    return 0
