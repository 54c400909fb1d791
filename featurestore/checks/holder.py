"""Find out which run is writing to a store, from the small file that it keeps there while it lives.

Whether that run still lives is judged without writing anything, so that whoever may only read can ask: a process of
this machine is looked up; elsewhere, and where the system does not show its processes, a file that was renewed within a
minute is alive, the storage's clock and this machine's taken to agree so far. Writing that file is left to the run.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.hostile_text import shortened
from featurestore.storage.files import parse_json, read_bytes

if TYPE_CHECKING:
    from pyarrow import fs as pafs

PROC = Path("/proc")  # not there on every system; where there is none, a lease is watched like one of another machine
LEASE_JSON = ".lease.json"  # readers ignore names that start with "."
SHOWN_CHARACTERS = 80  # of a host's name or a time, which anybody can have written there
STALE_SECONDS = 60.0  # six beats missed: a holder that storage keeps waiting so long commits nothing either


@dataclass(frozen=True)
class Holder:
    """Who holds a store.

    Attributes:
        token: Of this holding, nobody else's.
        generation: Larger than that of the holder it was taken from.
        beat: Counts up.
        host: Name of the machine, for people.
        machine: Boot and process namespace: where `pid` means something; empty where the system does not say.
        pid: Process id there.
        born: When that process started, in the kernel's ticks: pids are used again.
        since: UTC, for people.
    """

    token: str
    generation: int
    beat: int
    host: str
    machine: str
    pid: int
    born: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


_FIELDS = {
    "token": str, "generation": int, "beat": int, "host": str, "machine": str, "pid": int, "born": str, "since": str
}  # fmt: skip


def holder_of(data: bytes) -> Holder | None:
    """What the bytes of a lease say; None if that is nothing."""
    try:
        fields: dict[str, Any] = parse_json(data)
        holder = Holder(**{name: type_(fields[name]) for name, type_ in _FIELDS.items()})
    except (ValueError, KeyError, TypeError):
        return None
    return replace(
        holder, host=shortened(holder.host, SHOWN_CHARACTERS), since=shortened(holder.since, SHOWN_CHARACTERS)
    )


def writer_of(fs: pafs.FileSystem, root: str) -> str | None:
    """The run that writes to a store now, in words; None if none does, as far as a reader can tell."""
    path = f"{root}/{LEASE_JSON}"
    try:
        holder = holder_of(read_bytes(fs, path))
        written_ns = fs.get_file_info(path).mtime_ns
    except OSError:
        return None
    is_living = None if holder is None else lives(holder)
    if is_living is not None:
        return str(holder) if is_living else None
    is_stale = written_ns is not None and time.time() - written_ns / 1e9 >= STALE_SECONDS
    return None if is_stale else str(holder or "another run")


def lives(holder: Holder) -> bool | None:
    """Whether the holder's process is there; None where this machine cannot know."""
    if not holder.machine or holder.machine != machine():
        return None
    if holder.born and (started := born(holder.pid)) is not None:
        return started == holder.born
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return None  # somebody has that number, and the system hides who (`hidepid`)


def machine() -> str:
    """This machine since it was started, and the namespace in which its process ids count; empty where not known."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def born(pid: int) -> str | None:
    """The start time of a process, in ticks since the machine started; "" if it has ended, None if it is not shown."""
    try:
        status = (PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = status.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]  # the 22nd field, as proc(5) counts
