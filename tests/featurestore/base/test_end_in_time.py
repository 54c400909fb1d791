"""A process that was told to stop ends: in its own time, when that is over, or when it is told again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Minutes in one call of C that lets other threads run: no handler of Python's is run before it is over.
IN_NATIVE_CODE = "import hashlib\nhashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
AT_THE_END = """
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(time.sleep, 600)
try:
    time.sleep(600)
except KeyboardInterrupt:
    raise SystemExit(3)  # once the thread is through
"""


def started(seconds: float, then: str) -> subprocess.Popen[str]:
    code = f"""
import sys, time
from featurestore.base.end_in_time import end_in_time
end_in_time(lambda sentence, code: print(sentence, code, flush=True), {seconds})
print("ready", flush=True)
{then}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # into the call
    return process


@pytest.mark.parametrize("waits", [IN_NATIVE_CODE, AT_THE_END], ids=["native", "threads"])
def test_what_does_not_end_by_itself_is_ended(waits: str) -> None:
    process, begun = started(1.0, waits), time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "did not end within 1 s of being stopped; storage may not answer; the same command goes on" in out
    assert 1.0 <= time.monotonic() - begun < 30


def test_a_second_time_ends_at_once() -> None:
    process, begun = started(600.0, IN_NATIVE_CODE), time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped at once; the same command goes on from here 130" in out
    assert time.monotonic() - begun < 30


def test_one_stop_that_comes_twice_is_one_and_other_signals_are_none() -> None:
    then = """
import signal
for number in (signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
end = time.monotonic() + 2
print("set", flush=True)
while time.monotonic() < end:
    time.sleep(0.1)
raise SystemExit(7)
"""
    process = started(600.0, then)
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGINT, signal.SIGUSR1):
        process.send_signal(number)
        time.sleep(0.05)
    time.sleep(0.6)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == 7
