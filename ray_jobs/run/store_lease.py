"""Hold a store for one driver at a time: the lease that a run takes, renews and gives back.

A small file in the store names the holder, who rewrites it every few seconds (`featurestore.checks.holder` reads it); a
second driver is told who that is. Whether a holder still lives is judged without trusting clocks of different machines.
On the same machine its process is looked up. Elsewhere, and where the system does not show its processes, the file's
age is measured against a second file written now, both times being the storage's own; and a file that changes while it
is watched is alive whatever any clock says.

The lease saves work, it does not guard the data: parts appear whole and are the same bytes whoever writes them, so two
drivers that do run at once (one was forced, or storage has no times) waste work and corrupt nothing.

A holder is asked to stop by a file beside its lease, named after its holding: that works wherever the store can be
written, needs no account on the holder's machine, and can hit no other process and no later run.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featurestore.base.hostile_text import shortened
from featurestore.base.json_text import json_text
from featurestore.checks.holder import (
    LEASE_JSON,
    SHOWN_CHARACTERS,
    STALE_SECONDS,
    Holder,
    born,
    holder_of,
    lives,
    machine,
)
from featurestore.errors import JobFailed, JobStopped, StoreError, UsageError
from featurestore.format.store_plan import open_root
from featurestore.storage.files import atomic_write, is_local, read_bytes, shown
from featurestore.storage.steady_environment import steady_environment

if TYPE_CHECKING:
    from pyarrow import fs as pafs

BEAT_SECONDS = 10.0  # one small write: nothing beside a unit a minute from each worker
WATCH_SECONDS = 1.0  # how often a lease of unknown age is looked at
CLOSE_SECONDS = 5.0  # for a beat under way to end; storage that does not answer must not hold up Ctrl-C
LOOK_SECONDS = {True: 1.0, False: 10.0}  # local or not: how often a holder looks whether it is asked to stop
SETTLE_SECONDS = {True: 0.1, False: 1.0}  # local or not: until two who came at the same moment see each other


class Lease:
    """A store held by this process; see `hold_store`."""

    def __init__(self, fs: pafs.FileSystem, path: str, mine: Holder) -> None:
        self._fs = fs
        self._path = path
        self._mine = mine
        self._taken: str | None = None
        self._asked: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """JobFailed if somebody has taken the store over, JobStopped if somebody has asked for the run's end."""
        if self._asked is not None:
            raise JobStopped(f"stopped from {self._asked}; what is done stays, and the same command goes on")
        if self._taken is not None:
            raise JobFailed(f"the store was taken over by {self._taken}; this run stops, and what it has done stays")

    def close(self) -> None:
        """Let go of the store."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)
        with contextlib.suppress(OSError):  # it grows stale by itself
            holder = _read(self._fs, self._path)[1]
            if holder is not None and holder.token == self._mine.token:
                self._fs.delete_file(self._path)
            if self._asked is not None:
                self._fs.delete_file(_request(self._path, self._mine))

    def _beat(self) -> None:
        beaten = time.monotonic()
        while not self._stop.wait(min(BEAT_SECONDS, LOOK_SECONDS[is_local(self._fs)])):
            with steady_environment(), contextlib.suppress(OSError):  # most often there is no such file
                said = read_bytes(self._fs, _request(self._path, self._mine)).decode(errors="replace")
                self._asked = self._asked or shortened(said, SHOWN_CHARACTERS) or "elsewhere"
            if time.monotonic() - beaten < BEAT_SECONDS:
                continue
            beaten = time.monotonic()
            with steady_environment(), contextlib.suppress(OSError):  # a beat is missed; six may be
                holder = _read(self._fs, self._path)[1]
                if holder is not None and holder.token != self._mine.token and _outranks(holder, self._mine):
                    self._taken = str(holder)
                    return
                self._mine = replace(self._mine, beat=self._mine.beat + 1)
                _write(self._fs, self._path, self._mine)


@contextmanager
def hold_store(uri: str, force: bool = False, note: Callable[[str], None] | None = None) -> Iterator[Lease]:
    """Hold a store while a run writes to it.

    Args:
        uri: The store; its directory is made if missing.
        force: Take it from whoever holds it; that run stops when it notices.
        note: Called with a line of text before waiting.

    Raises:
        StoreError: Somebody else holds it, or it cannot be written.
    """
    fs, root = open_root(uri)
    path = f"{root}/{LEASE_JSON}"
    try:
        data, there = _read(fs, path)
        if data is not None and not force:
            if _is_held(fs, path, data, there, note):
                raise StoreError(_occupied(uri, there))
            there = _read(fs, path)[1]
        mine = _myself((there.generation if there else 0) + 1)
        _write(fs, path, mine)
        time.sleep(SETTLE_SECONDS[is_local(fs)])
        now = _read(fs, path)[1]
    except OSError as error:
        raise StoreError(
            f"{shown(uri)} cannot be written ({error.strerror or error}); "
            "see to space and access or choose another store, and run the same command again"
        ) from error
    if now is not None and now.token != mine.token:
        raise StoreError(_occupied(uri, now))
    lease = Lease(fs, path, mine)
    try:
        yield lease
    finally:
        lease.close()


def check_free(uri: str, note: Callable[[str], None] | None = None) -> None:
    """Refuse a store that another run holds, before anything is paid for; it takes nothing, so `hold_store` asks again.

    Args:
        uri: The store, which need not be there.
        note: Called with a line of text before waiting.

    Raises:
        StoreError: Somebody else holds it.
    """
    try:
        fs, root = open_root(uri)
        path = f"{root}/{LEASE_JSON}"
        data, there = _read(fs, path)
        occupied = data is not None and _is_held(fs, path, data, there, note)
    except (OSError, UsageError):
        return  # the run will meet the same, and say it with more detail
    if occupied:
        raise StoreError(_occupied(uri, there))


def current_holder(uri: str) -> tuple[bytes, Holder] | None:
    """What the lease of a store says, with its bytes, which change with every beat.

    Returns:
        None if nobody holds the store, or if the process that did is of this machine and gone.
    """
    fs, root = open_root(uri)
    data, holder = _read(fs, f"{root}/{LEASE_JSON}")
    return None if data is None or holder is None or lives(holder) is False else (data, holder)


def ask_to_stop(uri: str, holder: Holder) -> None:
    """Have a holder's run end; it looks every ten seconds at the latest."""
    fs, root = open_root(uri)
    atomic_write(fs, _request(f"{root}/{LEASE_JSON}", holder), platform.node().encode())


def withdraw(uri: str, holder: Holder) -> None:
    """Take back what `ask_to_stop` has left."""
    fs, root = open_root(uri)
    with contextlib.suppress(OSError):
        fs.delete_file(_request(f"{root}/{LEASE_JSON}", holder))


def _request(lease: str, holder: Holder) -> str:
    """Path of the file that asks a holder to stop."""
    token = "".join(character for character in holder.token if character.isalnum())
    return f"{lease.rpartition('/')[0]}/.stop-{token}"


def _occupied(uri: str, holder: Holder | None) -> str:
    return (
        f"{shown(uri)} is being written by {holder or 'another run'}; wait for it or stop it, "
        "or take the store from it with --force"
    )


def _outranks(other: Holder, mine: Holder) -> bool:
    """Whether `other` may keep the store: it took it later, or at the same time and the lots fell so."""
    return (other.generation, other.token) > (mine.generation, mine.token)


def _is_held(
    fs: pafs.FileSystem, path: str, data: bytes, holder: Holder | None, note: Callable[[str], None] | None
) -> bool:
    """Whether somebody holds the store; waits, where nothing else tells, until that is clear."""
    is_living = None if holder is None else lives(holder)
    return _is_beating(fs, path, data, holder, note) if is_living is None else is_living


def _is_beating(
    fs: pafs.FileSystem, path: str, data: bytes, holder: Holder | None, note: Callable[[str], None] | None
) -> bool:
    """Whether the lease is renewed; waits until that is clear."""
    if (age := _age(fs, path)) is not None and age >= STALE_SECONDS:
        return False
    if note is not None:
        note(f"the store was held by {holder or 'another run'} a moment ago; waiting to see whether that still runs")
    started = time.monotonic()
    while time.monotonic() - started < STALE_SECONDS - (age or 0.0):
        time.sleep(WATCH_SECONDS)
        latest = _read(fs, path)[0]
        if latest is None:
            return False
        if latest != data:
            return True
    return False


def _age(fs: pafs.FileSystem, path: str) -> float | None:
    """Seconds since a file was written, by the storage's own clock; None if it keeps no times."""
    clock = f"{path.rpartition('/')[0]}/.clock-{secrets.token_hex(4)}"
    atomic_write(fs, clock, b"now")
    try:
        then, now = (info.mtime_ns for info in fs.get_file_info([path, clock]))
    finally:
        fs.delete_file(clock)
    return None if then is None or now is None else max(0.0, (now - then) / 1e9)


def _read(fs: pafs.FileSystem, path: str) -> tuple[bytes | None, Holder | None]:
    """The bytes of a lease, None if there is none, and what they say, None if that is nothing."""
    try:
        data = read_bytes(fs, path)
    except FileNotFoundError:
        return None, None
    return data, holder_of(data)


def _write(fs: pafs.FileSystem, path: str, holder: Holder) -> None:
    atomic_write(fs, path, json_text(asdict(holder), ascii=True).encode())


def _myself(generation: int) -> Holder:
    pid = os.getpid()
    since = datetime.now(UTC).isoformat(timespec="seconds")
    token = secrets.token_hex(8)
    return Holder(token, generation, 0, platform.node(), machine(), pid, born(pid) or "", since)
