"""The crash matrix: whoever is killed at whichever point, what is left is right and the same command completes it.

A worker that dies is the run's own business: the command finishes as if nothing had happened. When the driver or the
only raylet dies, the command ends; run again, it does what is missing. Each time the parts are those of an undisturbed
run, byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from featurestore.base.fault_points import POINTS, VARIABLE
from tests.crash.ground import (
    PATIENCE,
    ROOT,
    UNITS,
    Ground,
    alive,
    assert_whole,
    descendants,
    eventually,
    fault,
    run,
    start,
)
from tests.ray_jobs.jobs import parts_of

IN_WORKER = (
    "worker.opening",
    "worker.computing",
    "worker.before_write",
    "write.before:part-",
    "write.middle:part-",
    "write.before_rename:part-",
    "write.after:part-",
    "worker.after_commit",
)
IN_DRIVER = (
    "driver.before_store",
    *(f"write.{point}:store.json" for point in ("before", "middle", "before_rename", "after")),
    "write.middle:.lease.json",
    "driver.after_commit",
    "write.middle:.journal",
    "driver.before_manifest",
    *(f"write.{point}:manifest.json" for point in ("before", "middle", "before_rename", "after")),
    "driver.after_manifest",
)
WHILE_A_RAYLET_LIVES = ("driver.after_commit", "write.middle:.journal")  # the driver's others are before and after Ray
QUICK = ("driver.before_manifest",)  # the one that leaves most behind


def marked(points: tuple[str, ...]) -> list[object]:
    return [pytest.param(point, marks=() if point in QUICK else pytest.mark.slow) for point in points]


@pytest.mark.parametrize("point", marked(IN_WORKER))
def test_a_worker_killed_at_any_point_changes_nothing(ground: Ground, point: str) -> None:
    done = run(ground.job, "--json", env=fault(ground, f"{point}=kill"))
    assert ground.marker.exists(), "the fault did not happen"
    assert done.returncode == 0, done.stderr
    assert_whole(ground)


@pytest.mark.parametrize("point", marked(IN_DRIVER))
def test_a_driver_killed_at_any_point_leaves_what_the_same_command_completes(ground: Ground, point: str) -> None:
    done = run(ground.job, env=fault(ground, f"{point}=kill"))
    assert ground.marker.exists(), "the fault did not happen"
    assert done.returncode == -9, done.stderr
    survived = parts_of(ground.store) if ground.store.exists() else {}
    assert all(ground.expected[name] == data for name, data in survived.items())
    again = run(ground.job, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["units_run"] <= UNITS - len(survived)  # orphans may have added some
    assert_whole(ground)


@pytest.mark.slow
@pytest.mark.parametrize("point", IN_WORKER)
def test_a_run_whose_only_raylet_is_killed_finishes_or_ends_in_one_sentence(ground: Ground, point: str) -> None:
    process = start(ground.job, env=fault(ground, f"{point}=raylet"))
    eventually(ground.marker.exists, process)
    family = set(descendants(process.pid))
    _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1)  # a short run is over before anybody misses its raylet
    assert "Traceback" not in err
    eventually(lambda: not alive(family))
    assert all(ground.expected[name] == data for name, data in parts_of(ground.store).items())
    again = run(ground.job)
    assert again.returncode == 0, again.stderr
    assert_whole(ground)


@pytest.mark.slow
@pytest.mark.parametrize("point", WHILE_A_RAYLET_LIVES)
def test_a_raylet_killed_while_the_driver_is_at_any_point_changes_nothing(ground: Ground, point: str) -> None:
    process = start(ground.job, env=fault(ground, f"{point}=wait"))
    eventually(ground.marker.exists, process)
    family = descendants(process.pid)
    (raylet,) = (pid for pid, command in family.items() if "/raylet/raylet" in command.split(" ")[0])
    os.kill(raylet, signal.SIGKILL)
    while process.poll() is None:  # it waits again at its next unit
        ground.marker.unlink(missing_ok=True)
        time.sleep(0.02)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 1)
    assert "Traceback" not in err
    eventually(lambda: not alive(set(family)))
    assert all(ground.expected[name] == data for name, data in parts_of(ground.store).items())
    again = run(ground.job)
    assert again.returncode == 0, again.stderr
    assert_whole(ground)


def test_every_point_is_in_the_matrix_and_in_the_code() -> None:
    sources = "".join(
        path.read_text() for package in ("featurestore", "ray_jobs") for path in (ROOT / package).rglob("*.py")
    )
    used = set(re.findall(r"""fault_point\("([a-z_.]+)""", sources))
    assert used >= set(POINTS)
    assert {point.partition(":")[0] for point in (*IN_WORKER, *IN_DRIVER)} == set(POINTS)


def test_a_fault_point_is_an_empty_function_unless_a_test_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from featurestore.base import fault_points as faults

    monkeypatch.delenv(VARIABLE, raising=False)
    module = importlib.reload(faults)
    assert module.fault_point.__code__.co_names == ()
    assert Path(module.__file__ or "").exists()
