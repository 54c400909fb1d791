"""The environment does not change while a thread talks to storage, and neither side waits for ever for the other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from featurestore.storage import steady_environment as module
from featurestore.storage.steady_environment import changing_environment, steady_environment


def test_a_change_waits_for_those_who_talk_and_they_for_the_change() -> None:
    order: list[str] = []
    talking, changing = threading.Event(), threading.Event()

    def talk() -> None:
        with steady_environment():
            talking.set()
            time.sleep(0.2)
            order.append("talked")
        changing.wait()
        with steady_environment():
            order.append("talked again")

    thread = threading.Thread(target=talk)
    thread.start()
    talking.wait()
    with changing_environment():
        order.append("changed")
        changing.set()
        time.sleep(0.2)
        order.append("changed it all")
    thread.join()
    assert order == ["talked", "changed", "changed it all", "talked again"]


def test_two_may_talk_at_once() -> None:
    def talk() -> None:
        with steady_environment():
            pass

    with steady_environment():
        thread = threading.Thread(target=talk)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()


def test_neither_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    with steady_environment(), changing_environment(), steady_environment():
        pass
    assert module._talking == module._changing == 0


RACE = """
import os, threading, time
from pyarrow import fs
from featurestore.storage.steady_environment import changing_environment, steady_environment
once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
s3 = fs.S3FileSystem(access_key="a", secret_key="b", region="r", scheme="http", endpoint_override="127.0.0.1:9",
                     connect_timeout=0.2, request_timeout=0.2, retry_strategy=once)
end = time.monotonic() + 3
def ask():
    while time.monotonic() < end:
        with steady_environment():
            try:
                s3.get_file_info("stores/x")
            except OSError:
                pass
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
n = 0
while time.monotonic() < end:
    with changing_environment():
        for _ in range(200):
            os.environ[f"ADDED_{n % 3000}"] = "x" * (n % 200)
            n += 1
for thread in threads:
    thread.join()
print("survived")
"""


def test_requests_to_s3_survive_variables_that_are_added() -> None:
    """Without the two, this ends by a signal within seconds."""
    env = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, env=env)
    assert done.stdout == "survived\n", (done.returncode, done.stderr)
