"""Write the files that a user named on a command line: nothing that is there is replaced unless the user insists.

Whoever writes a file asks `check_free` first, before anything is spent, and fills it through `whole_file`, so that it
appears whole or not at all. Directories with contents of their own (stores, studies) compare before they refuse.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from featurestore.base.library_errors import writing
from featurestore.errors import UsageError
from featurestore.url_secrets import shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://?")  # with one slash it is a Path that was a URL
_STORE_MARK = "store.json"  # what tells a store's directory
INSIST = "or replace it with --overwrite"


def overwrite_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--overwrite`, the one way to insist."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def check_free(*places: str, overwrite: bool = False, mark: str | None = None) -> None:
    """Refuse to write over what is there, or where nothing can be made.

    Args:
        places: Paths or URLs of the files.
        overwrite: Whether files there may be replaced.
        mark: Where directories are written: the file that one has which may be replaced; others never are.

    Raises:
        UsageError: Naming the place and how to insist.
    """
    from featurestore.storage.files import is_local, reached

    for place in places:
        fs, path = reached(place)
        refuse_in_store(place)
        kind = fs.get_file_info(path).type.name
        if kind == "Directory" and mark is None:
            raise UsageError(f"{shown(place)} is a directory; give the name of a file")
        if kind == "Directory" and overwrite and fs.get_file_info(f"{path}/{mark}").type.name != "File":
            raise UsageError(
                f"{shown(place)} is a directory without {mark}, so it is not replaced; choose another name"
            )
        if kind != "NotFound" and not overwrite:
            raise UsageError(f"{shown(place)} is there already; choose another name, {INSIST}")
        if is_local(fs) and any(parent.is_file() for parent in Path(path).parents):
            raise UsageError(f"{shown(place)} lies below a file; choose another place")


def refuse_in_store(place: str, itself: bool = False) -> None:
    """Refuse a place below a feature store, whatever is insisted on: a store holds what its format says.

    Args:
        place: A path or URL.
        itself: Whether the place is a directory for files that are no store's, and so must not be a store either.

    Raises:
        UsageError: Naming the store.
    """
    from featurestore.storage.files import is_local, reached

    fs, path = reached(place)
    if is_local(fs):
        above = [folder := Path(path).parent.resolve(), *folder.parents]
    else:  # a request each; parts lie two levels down
        above = [folder for folder in Path(path).parents if folder.name][:2]
    for folder in [*([Path(path)] if itself else []), *above]:
        try:
            there = fs.get_file_info(f"{folder}/{_STORE_MARK}").type.name
        except OSError:  # not everybody may look
            continue
        if there == "File":
            where = "is a feature store" if folder == Path(path) else f"lies in the feature store {shown(str(folder))}"
            raise UsageError(f"{shown(place)} {where}, where nothing else is written; choose another place")


def local_path(place: str, what: str) -> Path:
    """A path of this machine, `~` expanded; a URL is refused, which would make a folder named "s3:".

    Args:
        place: What the user gave.
        what: Says in the message what is written there.

    Raises:
        UsageError: It is a URL.
    """
    if _URL.match(place):
        raise UsageError(f"{shown(place)} is a URL, and {what} is written to a local directory; give a path")
    return Path(place).expanduser()


def local_folder(place: str, what: str) -> Path:
    """The same of a directory that several files go into.

    Raises:
        UsageError: It is a URL, a file, below a file, or a feature store or in one.
    """
    folder = local_path(place, what)
    for parent in (folder, *folder.absolute().parents):
        if parent.is_file():
            raise UsageError(f"{place} {'is' if parent == folder else 'lies below'} a file; give a directory's path")
    refuse_in_store(place, itself=True)
    return folder


class _Recorded(io.FileIO):
    """A file that remembers how writing it failed."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def whole_file(place: str) -> Iterator[BinaryIO]:
    """A binary file to fill, which appears at `place` when the block ends without an error; parents are made.

    What the block raises about anything else than writing this file is raised as it is.

    Raises:
        UsageError: It cannot be written there.
    """
    import pyarrow as pa

    from featurestore.storage.files import atomic_write, filesystem, is_local

    fs, path = filesystem(place)
    local = is_local(fs)
    # An object is one upload, so it is gathered on this machine's disk first.
    folder = Path(path).parent if local else Path(tempfile.gettempdir())
    temporary = folder / f".{Path(path).name}.{secrets.token_hex(4)}.tmp"
    with _told(place):
        folder.mkdir(parents=True, exist_ok=True)
        raw = _Recorded(temporary, "xb")
    try:
        with ExitStack() as stack:
            file = io.BufferedWriter(raw)
            stack.callback(_close, file)
            try:
                yield file
            except Exception as error:
                if raw.failure is None:
                    raise
                raise _unwritten(place, raw.failure) from error
            with _told(place):
                file.flush()
                os.fsync(file.fileno())
        with _told(place):
            if local:
                temporary.replace(path)
            else:
                atomic_write(fs, path, pa.memory_map(str(temporary)).read_buffer() if temporary.stat().st_size else b"")
    finally:
        temporary.unlink(missing_ok=True)


def _close(file: BinaryIO) -> None:
    """Let go of a file; what of it could not be written has been said by then."""
    with suppress(OSError):
        file.close()


@contextmanager
def _told(place: str) -> Iterator[None]:
    try:
        with writing(place):
            yield
    except OSError as error:
        raise _unwritten(place, error) from error


def _unwritten(place: str, error: OSError) -> UsageError:
    return UsageError(f"{shown(place)} cannot be written ({error.strerror or error}); check space and access")
