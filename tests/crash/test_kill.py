"""Real processes, real SIGKILL: whatever dies, the same command finishes with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from featurestore.base.end_in_time import END_SECONDS, TOGETHER_SECONDS
from tests.clusters import head_node
from tests.crash.ground import (
    ORPHAN_SECONDS,
    PATIENCE,
    UNITS,
    Ground,
    assert_whole,
    computing,
    descendants,
    eventually,
    fault,
    listening_beyond_loopback,
    run,
    start,
    working,
)
from tests.ray_jobs.jobs import parts_of


@pytest.mark.slow
def test_a_worker_killed_in_a_unit_is_replaced_and_nothing_is_lost(ground: Ground) -> None:
    driver = start(ground.job, "--json")
    victims = eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    os.kill(victims[0], signal.SIGKILL)
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    assert "a worker died" in err
    assert json.loads(out)["units_run"] == UNITS
    assert_whole(ground)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_raylet_that_says_goodbye_ends_the_run_in_one_sentence(ground: Ground) -> None:
    """As it does when its agent dies. Nothing tells the driver, and its next actors would wait for a node for ever."""
    driver = start(ground.job, env=fault(ground, "worker.opening=wait"))
    eventually(ground.marker.exists, driver)
    (raylet,) = (pid for pid, command in descendants(driver.pid).items() if "/raylet/raylet" in command.split(" ")[0])
    os.kill(raylet, signal.SIGTERM)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1
    assert "Ray has lost its last node; what is done stays, and the same command goes on" in err.splitlines()[-1]
    assert "Traceback" not in err
    again = run(ground.job)
    assert again.returncode == 0, again.stderr
    assert_whole(ground)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
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


def test_sigterm_before_ray_has_started_is_no_different(ground: Ground) -> None:
    driver = start(ground.job, env=fault(ground, "driver.before_store=wait"))
    eventually(ground.marker.exists, driver)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 128 + signal.SIGTERM, err
    assert "the same command goes on from here" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (ground.store / ".lease.json").exists(), "the store is still held"


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_control_c_waits_half_a_minute_for_storage_that_does_not_answer_and_the_second_one_not_at_all(
    ground: Ground, times: int
) -> None:
    driver = start(ground.job, env=fault(ground, "write.before:/.runs/=wait"))
    eventually(lambda: ground.marker.exists() and parts_of(ground.store) and computing(driver), driver)
    family, begun = set(descendants(driver.pid)), time.monotonic()
    for _ in range(times):
        driver.send_signal(signal.SIGINT)
        time.sleep(2 * TOGETHER_SECONDS)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130, err
    assert "the same command goes on from here" in err.splitlines()[-1]
    assert ("did not end within 30 s" if times == 1 else "stopped at once") in err.splitlines()[-1]
    assert "Traceback" not in err
    assert time.monotonic() - begun < END_SECONDS + 15
    eventually(lambda: not working(family))
    ground.marker.unlink()
    again = run(ground.job)
    assert again.returncode == 0, again.stderr
    assert_whole(ground)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_on_a_cluster_that_is_there_a_stopped_run_says_how_to_go_on_and_leaves_no_worker(
    ground: Ground, stop: signal.Signals
) -> None:
    environment = {**fault(ground, "worker.before_write=wait"), "RAY_AUTH_TOKEN": "ab" * 32}
    with head_node(environment) as cluster:
        driver = start(ground.job, "--address", cluster.address, env=environment)
        eventually(ground.marker.exists, driver)
        driver.send_signal(stop)
        out, err = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 128 + stop, err
        assert out == ""
        assert "parts that are done stay" in err
        assert "the same command goes on from here" in err.splitlines()[-1]
        assert "Traceback" not in err
        eventually(lambda: not cluster.workers())
        again = run(ground.job, "--address", cluster.address, env=environment)
        assert again.returncode == 0, again.stderr
    assert_whole(ground)


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
