"""Keep compressed text files decompressed on a machine's disk while a run reads them.

Text in gzip or zstd can be read from its start only, so a unit from the middle of a file would pay for everything
before it. The first worker that needs such a place writes the whole text into this machine's cache, the others wait for
it, and all of them seek there. Up to half of the disk's room is used, and texts that were not read for longest make
way. A text that does not fit is read from its start, which is slow and right, and the user is told. The directory goes
when the run ends; what a killed run has left goes when the next one begins here.

No value depends on it: a text that is gone is written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from featurestore.errors import CorpusError
from featurestore.finding.files import SourceFile
from featurestore.storage.cache import cache_path
from featurestore.storage.node_lock import node_lock
from featurestore.tables.record import BLOCK_BYTES, Digest, decompressed, open_raw, refusals

SHARE = 0.5  # of the room on the cache's disk; the other half is for the store, for Ray and for everybody else
_IN_USE = "in-use"  # locked by every process that reads here, until it ends, however it ends


class _NoRoomError(Exception):
    """Why a text cannot be kept."""


class Spill:
    """The texts of one run on this machine, for one of its workers.

    Args:
        run: Name of the run's directory.
        on_block: Called again and again while a text is written out or another process does so.

    Attributes:
        refused: A sentence for each text that could not be kept.
    """

    def __init__(self, run: str, on_block: Callable[[], None] | None = None) -> None:
        self.on_block = on_block
        self.refused: list[str] = []
        self._directory = _root() / run
        self._in_use: BinaryIO | None = None
        self._closed = False
        _sweep()

    def open(self, file: SourceFile, sha256: str, text_bytes: int, stack: ExitStack) -> BinaryIO | None:
        """The decompressed text, seekable; None where it cannot be kept.

        Args:
            file: A compressed file.
            sha256: Of its bytes on disk when it was scanned.
            text_bytes: Length of its text.
            stack: Closes it.

        Raises:
            CorpusError: The file cannot be read, or has changed since it was scanned.
        """
        path = self._directory / f"{sha256}.text"
        try:
            while not self._closed:
                self._claim()
                try:
                    text = stack.enter_context(path.open("rb"))
                    os.utime(path, ns=(time.time_ns(),) * 2)  # the kernel's own "now" is some milliseconds coarse
                    return text
                except FileNotFoundError:
                    pass  # not there yet, or just removed to make room
                with node_lock(self._directory / f"{sha256}.lock", while_waiting=self.on_block):
                    if not path.exists():
                        self._keep(file, sha256, text_bytes, path)
        except _NoRoomError as reason:
            self._refuse(file, str(reason))
        except OSError as error:
            self._refuse(file, f"{error.filename or self._directory}: {error.strerror or error}")
        return None

    def _refuse(self, file: SourceFile, reason: str) -> None:
        sentence = (
            f"{file.uri} is not kept decompressed on {platform.node()} ({reason}), so each unit decompresses it from "
            "its start; set SPARSEMILL_CACHE to a larger disk, or decompress the corpus"
        )
        if sentence not in self.refused:
            self.refused.append(sentence)

    def close(self) -> None:
        """Remove the run's texts from this machine; whoever has one open reads on."""
        self._closed = True
        drop(self._directory.name)

    def _claim(self) -> None:
        """Lock the directory as in use, so that `_sweep` in another process leaves it alone."""
        if self._in_use is not None and (self._directory / _IN_USE).exists():
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        self._in_use = (self._directory / _IN_USE).open("ab")
        fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def _keep(self, file: SourceFile, sha256: str, text_bytes: int, path: Path) -> None:
        """Make the text of a file appear at `path`, whole or not at all."""
        temporary = self._directory / f".{sha256}.{secrets.token_hex(4)}"
        for remains in self._directory.glob(f".{sha256}.*"):  # of a killed worker: whoever writes holds the lock
            remains.unlink(missing_ok=True)
        _make_room(self._directory, text_bytes)
        try:
            with temporary.open("xb") as out, refusals(file), ExitStack() as stack:
                digest = Digest(open_raw(file, stack))
                text = decompressed(digest, file, stack)
                left = text_bytes
                while not self._closed and (block := text.read(BLOCK_BYTES)) and (left := left - len(block)) >= 0:
                    _write(out, block)
                    if self.on_block is not None:
                        self.on_block()
                if self._closed:
                    return
                if left or digest.hexdigest() != sha256:
                    raise CorpusError(
                        f"{file.uri} has changed since the corpus was scanned (its bytes are others); restore it or "
                        "start a new store"
                    )
            with contextlib.suppress(FileNotFoundError):  # the run ends, or was taken for one that had
                temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


def run_name(fingerprint: str) -> str:
    """The directory of the runs of one store, of which there is one at a time."""
    return fingerprint[:16]


def drop(run: str) -> None:
    """Remove what a run keeps on this machine."""
    shutil.rmtree(_root() / run, ignore_errors=True)


def why_not_kept(text_bytes: int) -> str | None:
    """Why a text of so many bytes could not be kept here; None if it could."""
    try:
        _make_room(_root() / "none", text_bytes)
    except _NoRoomError as reason:
        return str(reason)
    return None


def _root() -> Path:
    """A directory of this machine alone, for a cache may be on a disk that many share."""
    return cache_path("spilled") / platform.node()


def _sweep() -> None:
    """Remove what killed runs have left: directories that no process has claimed."""
    with contextlib.suppress(OSError):
        for directory in _root().iterdir():
            with contextlib.suppress(OSError), (directory / _IN_USE).open("ab") as in_use:
                fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)


def _make_room(directory: Path, wanted: int) -> None:
    """Remove texts of a run, those not read for longest first, until so many bytes fit.

    Raises:
        _NoRoomError: They do not.
    """
    texts: dict[Path, os.stat_result] = {}
    for path in directory.parent.glob("*/*.text"):
        with contextlib.suppress(FileNotFoundError):
            texts[path] = path.stat()
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    used = sum(status.st_size for status in texts.values())
    room = SHARE * (shutil.disk_usage(there).free + used) - used
    ours = sorted((path for path in texts if path.parent == directory), key=lambda path: texts[path].st_mtime_ns)
    if wanted > room + sum(texts[path].st_size for path in ours):
        raise _NoRoomError(
            f"it takes {wanted / 1e9:,.1f} GB, and {max(room, 0) / 1e9:,.1f} GB may be used in {directory.parent}"
        )
    for path in ours:
        if wanted <= room:
            return
        path.unlink(missing_ok=True)
        room += texts[path].st_size


def _write(out: BinaryIO, block: bytes) -> None:
    try:
        out.write(block)
        out.flush()
    except OSError as error:
        raise _NoRoomError(error.strerror or str(error)) from None
