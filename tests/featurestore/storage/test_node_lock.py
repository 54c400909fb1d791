"""The lock that processes of a machine share: one at a time, and free as soon as its holder is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from featurestore.storage.node_lock import node_lock

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from featurestore.storage.node_lock import node_lock
with node_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
TAKE_TURNS = """
import sys
from pathlib import Path
from featurestore.storage.node_lock import node_lock
count, lock = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(50):
    with node_lock(lock):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", TAKE_TURNS, str(tmp_path / "count"), str(tmp_path / "locks" / "x")]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"


def test_a_killed_holder_keeps_nobody_waiting_and_waiting_is_said(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waited = []

    def on_wait() -> None:
        waited.append(True)
        holder.kill()

    with node_lock(lock, on_wait):
        assert waited == [True]
    holder.wait()
    holder.stdout.close()


def test_where_no_lock_can_be_made_nobody_is_kept_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with node_lock(tmp_path / "file" / "lock"), node_lock(tmp_path / "file" / "lock"):
        pass
