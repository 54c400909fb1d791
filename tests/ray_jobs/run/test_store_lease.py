"""One driver on a store: the second is told who the first is, the dead are found out, and clocks are not trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featurestore.checks import holder
from featurestore.errors import JobFailed, JobStopped, StoreError
from ray_jobs.run import store_lease
from ray_jobs.run.store_lease import LEASE_JSON, Lease, check_free, hold_store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same protocol at a pace for tests."""
    monkeypatch.setattr(store_lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(store_lease, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(store_lease, "WATCH_SECONDS", 0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / LEASE_JSON


def eventually(what: Callable[[], bool]) -> None:
    while not what():  # as long as it takes: the runner has a limit of its own
        time.sleep(0.01)


def elsewhere(file: Path) -> dict[str, object]:
    """The lease as another machine would have written it."""
    fields = {**json.loads(file.read_text()), "machine": "another", "host": "node-7"}
    file.write_text(json.dumps(fields))
    return fields


def beat(file: Path, fields: dict[str, object], stop: threading.Event) -> None:
    count = 0
    while not stop.wait(0.05):
        count += 1
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps({**fields, "beat": count}))
        temporary.replace(file)


@pytest.fixture
def foreign(file: Path) -> Iterator[Path]:
    """A store held by a living driver on another machine."""
    with hold_store(str(file.parent)):
        data = file.read_bytes()
    file.write_bytes(data)
    stop = threading.Event()
    thread = threading.Thread(target=beat, args=(file, elsewhere(file), stop))
    thread.start()
    yield file
    stop.set()
    thread.join()


def test_the_lease_is_renewed_while_it_is_held_and_gone_afterwards(file: Path) -> None:
    with hold_store(str(file.parent)) as mine:
        first = json.loads(file.read_text())
        eventually(lambda: json.loads(file.read_text())["beat"] > first["beat"])
        mine.check()
    assert not file.exists()


def test_a_second_driver_on_the_same_machine_is_told_at_once_who_holds_the_store(file: Path) -> None:
    message = rf"is being written by process {os.getpid()} on .* since 20.*; wait for it or stop it, .*--force"
    with hold_store(str(file.parent)), pytest.raises(StoreError, match=message), hold_store(str(file.parent)):
        pass


def test_a_second_driver_elsewhere_watches_and_is_told(foreign: Path) -> None:
    said: list[str] = []
    with pytest.raises(StoreError, match="on node-7 since"), hold_store(str(foreign.parent), note=said.append):
        pass
    assert "waiting to see" in said[0]


def test_a_driver_that_was_killed_on_this_machine_holds_nothing(file: Path) -> None:
    code = (
        "import os, signal; from ray_jobs.run.store_lease import hold_store\n"
        f"with hold_store({str(file.parent)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    assert file.exists()
    said: list[str] = []
    with hold_store(str(file.parent), note=said.append):
        assert json.loads(file.read_text())["generation"] == 2
    assert said == []


def test_a_process_with_the_same_number_is_not_the_same_process(file: Path) -> None:
    with hold_store(str(file.parent)):
        data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "born": "1"}))
    with hold_store(str(file.parent)):
        pass


def test_a_lease_that_nobody_renews_is_taken_after_watching_it(file: Path) -> None:
    with hold_store(str(file.parent)):
        data = file.read_bytes()
    file.write_bytes(data)
    elsewhere(file)
    with hold_store(str(file.parent)):
        assert json.loads(file.read_text())["generation"] == 2


@pytest.fixture
def no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not show its processes."""
    monkeypatch.setattr(holder, "PROC", tmp_path / "no-proc")


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_driver_that_was_killed_holds_nothing_after_a_while(file: Path) -> None:
    code = (
        "import os, pathlib, signal; from featurestore.checks import holder; from ray_jobs.run import store_lease\n"
        "holder.PROC = pathlib.Path('/no-proc')\n"
        f"with store_lease.hold_store({str(file.parent)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    assert json.loads(file.read_text())["machine"] == ""
    with hold_store(str(file.parent)):
        assert json.loads(file.read_text())["generation"] == 2


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_driver_that_lives_is_found_by_its_beats(file: Path) -> None:
    with (
        hold_store(str(file.parent)) as mine,
        pytest.raises(StoreError, match="is being written by process"),
        hold_store(str(file.parent)),
    ):
        pass
    mine.check()


def test_a_process_that_the_system_hides_is_watched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hidepid` shows no process of others: a living one is not taken for a dead one, nor its number for it."""
    with hold_store(str(file.parent)) as mine:
        monkeypatch.setattr(holder, "born", lambda pid: None)
        with pytest.raises(StoreError, match="is being written by process"), hold_store(str(file.parent)):
            pass
        mine.check()
        data = file.read_bytes()
    file.write_bytes(data)
    with hold_store(str(file.parent)):
        assert json.loads(file.read_text())["generation"] == 2


def test_whoever_asks_first_is_told_and_holds_nothing(file: Path) -> None:
    check_free(str(file.parent / "no" / "such" / "store"))
    check_free("nothing://that/could/be")
    with hold_store(str(file.parent)), pytest.raises(StoreError, match="is being written by process"):
        check_free(str(file.parent))
    check_free(str(file.parent))
    assert not file.exists()
    assert not (file.parent / "no").exists()


def test_an_old_lease_is_taken_without_watching(file: Path) -> None:
    with hold_store(str(file.parent)):
        data = file.read_bytes()
    file.write_bytes(data)
    elsewhere(file)
    os.utime(file, (time.time() - 100, time.time() - 100))
    said: list[str] = []
    with hold_store(str(file.parent), note=said.append):
        assert said == []


def test_a_holder_whose_clock_is_wrong_is_alive_if_it_beats(foreign: Path) -> None:
    """Its `since` lies in the future and nothing compares it with our clock."""
    assert "since" in json.loads(foreign.read_text())
    with pytest.raises(StoreError, match="node-7"), hold_store(str(foreign.parent)):
        pass


def test_a_forced_driver_takes_the_store_and_the_first_one_stops(file: Path) -> None:
    with hold_store(str(file.parent)) as first:
        with hold_store(str(file.parent), force=True) as second:
            eventually(lambda: _is_over(first))
            second.check()
            holder = json.loads(file.read_text())
            assert holder["generation"] == 2
        assert not file.exists()


def _is_over(first: Lease) -> bool:
    try:
        first.check()
    except JobFailed as over:
        assert "was taken over by process" in str(over)
        return True
    return False


def test_a_late_beat_of_the_first_does_not_take_the_store_back(file: Path) -> None:
    with hold_store(str(file.parent), force=True) as second:
        late = {**json.loads(file.read_text()), "token": "0", "generation": 0}
        file.write_text(json.dumps(late))
        eventually(lambda: json.loads(file.read_text())["token"] != "0")
        second.check()


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"token": null}', "\x00"])
def test_a_damaged_lease_is_watched_like_any_other(file: Path, damage: str) -> None:
    file.write_text(damage)
    with hold_store(str(file.parent)):
        assert json.loads(file.read_text())["generation"] == 1


def test_what_a_lease_says_cannot_write_to_a_terminal(file: Path) -> None:
    with hold_store(str(file.parent)):
        data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "host": "\x1b[2Jevil" + "x" * 500}))
    with pytest.raises(StoreError) as refused, hold_store(str(file.parent)):
        pass
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b"\x1b[2J"])
def test_whatever_a_request_to_stop_says_it_is_one_and_the_lease_goes_on(file: Path, left: bytes) -> None:
    def is_stopped() -> bool:
        try:
            mine.check()
        except JobStopped as error:
            return str(error).isprintable() and "stopped from ;" not in str(error)
        return False

    with hold_store(str(file.parent)) as mine:
        token = json.loads(file.read_text())["token"]
        (file.parent / f".stop-{token}").write_bytes(left)
        eventually(is_stopped)
        before = json.loads(file.read_text())["beat"]
        eventually(lambda: json.loads(file.read_text())["beat"] > before)
