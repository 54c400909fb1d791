"""Real processes, real SIGKILL: whatever dies, the same command finishes with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.crash.ground import (
    ORPHAN_SECONDS,
    PATIENCE,
    UNITS,
    Ground,
    assert_whole,
    computing,
    descendants,
    eventually,
    listening_beyond_loopback,
    start,
    working,
)
from tests.ray_jobs.jobs import parts_of


def test_a_worker_killed_in_a_unit_is_replaced_and_nothing_is_lost(ground: Ground) -> None:
    driver = start(ground.job, "--json")
    victims = eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    os.kill(victims[0], signal.SIGKILL)
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    assert "a worker died" in err
    assert json.loads(out)["units_run"] == UNITS
    assert_whole(ground)


def test_a_killed_driver_leaves_no_process_and_the_same_command_finishes(ground: Ground) -> None:
    driver = start(ground.job)
    eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    family = set(descendants(driver.pid))
    assert listening_beyond_loopback(family) == []
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    killed_at = time.monotonic()
    eventually(lambda: not working(family))
    assert time.monotonic() - killed_at < ORPHAN_SECONDS
    survived = parts_of(ground.store)
    assert 0 < len(survived) < UNITS, "the driver was killed too late to prove anything"
    assert not (ground.store / "manifest.json").exists()
    assert all(ground.expected[name] == data for name, data in survived.items())

    again = start(ground.job, "--json")
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert json.loads(out)["units_run"] == UNITS - len(survived)
    assert_whole(ground)


@pytest.mark.parametrize(
    "stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=lambda stop: stop.name
)
def test_control_c_and_sigterm_stop_cleanly_and_say_how_to_go_on(ground: Ground, stop: signal.Signals) -> None:
    driver = start(ground.job)
    eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    family = set(descendants(driver.pid))
    if stop == signal.SIGINT:
        os.killpg(driver.pid, stop)  # as a terminal does: the driver and all its children get it
    else:
        driver.send_signal(stop)  # as a scheduler does
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 128 + stop
    assert out == ""
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    eventually(lambda: not working(family))
    assert all(ground.expected[name] == data for name, data in parts_of(ground.store).items())


@pytest.mark.slow
def test_a_unit_that_kills_three_workers_fails_the_job_by_name(ground: Ground) -> None:
    driver = start(ground.job, "--workers", "1")
    eventually(lambda: computing(driver), driver)
    while driver.poll() is None:
        for pid in computing(driver):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    _, err = driver.communicate()
    assert driver.returncode == 1
    assert "its worker died 3 times" in err.splitlines()[-1]
    assert "the same command does the rest" in err.splitlines()[-1]
    again = start(ground.job)
    assert again.wait(PATIENCE) == 0
    assert_whole(ground)
