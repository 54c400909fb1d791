"""Storage that refuses: one clear sentence, nothing corrupt, and the same command goes on when it takes data again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.ground import Ground, assert_whole, computing, eventually, fault, mapping, run, start
from tests.ray_jobs.jobs import parts_of, write_job

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def tmpfs(directory: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of this size; skips the test where mounting is not allowed."""
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(directory)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def remount(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True)


def on(ground: Ground, models: Path, store: Path) -> Ground:
    """The same job with its store there."""
    return Ground(write_job(ground.job, mapping(models, store)), store, ground.expected)


def test_a_full_disk_ends_the_run_in_one_sentence_and_it_goes_on_when_there_is_room(
    ground: Ground, models: Path, tmp_path: Path
) -> None:
    half = sum(map(len, ground.expected.values())) // 2 // 1024
    with tmpfs(tmp_path / "small", half) as directory:
        there = on(ground, models, directory / "store")
        done = run(there.job)
        assert done.returncode == 1, done.stderr
        last = done.stderr.splitlines()[-1]
        assert "is full; make room, and the same command goes on" in last
        assert str(directory / "store") in last
        assert "Traceback" not in done.stderr
        survived = parts_of(there.store)
        assert 0 < len(survived) < len(there.expected)
        assert all(there.expected[name] == data for name, data in survived.items())
        assert not (there.store / "manifest.json").exists()
        assert not list((there.store / "parts").glob(".*")), "half a part was left to take up room"
        remount(directory, "size=100m")
        again = run(there.job)
        assert again.returncode == 0, again.stderr
        assert_whole(there)


def test_a_store_that_is_read_only_is_refused_before_anything_is_computed(
    ground: Ground, models: Path, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "closed", 100_000) as directory:
        there = on(ground, models, directory / "store")
        remount(directory, "ro")
        done = run(there.job)
        assert done.returncode == 2
        assert "cannot be written (Read-only file system" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        remount(directory, "rw")
        assert run(there.job).returncode == 0
        assert_whole(there)


def test_a_store_that_becomes_read_only_ends_the_run_in_one_sentence(
    ground: Ground, models: Path, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "closing", 100_000) as directory:
        there = on(ground, models, directory / "store")
        driver = start(there.job)
        eventually(lambda: there.store.exists() and parts_of(there.store) and computing(driver), driver)
        eventually(lambda: _remounted(directory, "ro"), driver)
        _, err = driver.communicate()
        assert driver.returncode == 1, err
        assert "it is read-only; see to the access to it, and the same command goes on" in err.splitlines()[-1]
        assert "Traceback" not in err
        remount(directory, "rw")
        assert run(there.job).returncode == 0
        assert_whole(there)


def _remounted(directory: Path, options: str) -> bool:
    """Whether it worked: a file system cannot become read-only in the instant in which a file is written."""
    return subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], capture_output=True).returncode == 0


def test_two_drivers_on_one_store_and_the_second_is_told_who_holds_it(ground: Ground) -> None:
    first = start(ground.job, env=fault(ground, "driver.before_manifest=wait"))
    eventually(ground.marker.exists, first)
    # before its corpus is read and Ray is started: neither could be
    second = run(ground.job, "--address", "127.0.0.1:1", env={"SPARSEMILL_CACHE": "/dev/null"})
    ground.marker.unlink()
    assert second.returncode == 2, second.stderr
    assert f"is being written by process {first.pid} on" in second.stderr
    assert "--force" in second.stderr
    assert first.wait(240) == 0
    assert_whole(ground)


def test_a_second_driver_that_is_forced_finishes_and_corrupts_nothing(ground: Ground) -> None:
    first = start(ground.job)
    eventually(lambda: ground.store.exists() and parts_of(ground.store), first)
    second = start(ground.job, "--force")
    _, err = first.communicate(timeout=240)
    assert first.returncode in (0, 1), err
    if first.returncode:
        assert "was taken over by process" in err.splitlines()[-1]
    assert second.wait(240) == 0
    assert_whole(ground)
