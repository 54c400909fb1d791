"""Open a path or URL, and make a file appear there whole or not at all.

Local disks, S3 and Google Cloud Storage go through Arrow's native file systems (`objectstore` says how), every other
URL through fsspec. What is in the files is not this module's business.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs as pafs

from featurestore.base.fault_points import fault_point
from featurestore.base.library_errors import writing
from featurestore.base.number_words import first_line
from featurestore.errors import StoreError, UsageError
from featurestore.storage.objectstore import STORAGE_ERRORS, is_object_store, object_store
from featurestore.storage.reachable import SLOW_SECONDS, NoAnswer, first_answer
from featurestore.url_secrets import reason_about
from featurestore.url_secrets import shown as shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PLACE = re.compile(r"^([^/]+//[^/?]*)[^?]*(.*)$")  # without the path
_answered: set[str] = set()  # places that have answered this process
# A job of 240,000 units has a manifest of 45 MB, and Python takes ten times a JSON file's size to read it.
MAX_JSON_BYTES = 256 << 20
_DIGITS = 300  # of a whole number: float64 holds those of up to 308
_CHUNK = 8 << 20  # bytes a read when hashing: large enough for object stores, small enough to stay in memory


def filesystem(uri: str | os.PathLike[str], patient: bool = True) -> tuple[pafs.FileSystem, str]:
    """Resolve a path or URL.

    Args:
        uri: A local path (relative ones against the working directory, `~` is expanded), or a URL: file://, s3:// and
            gs:// through Arrow, anything else that fsspec knows (hf://, abfs://, memory://, ...) through fsspec.
        patient: Whether object stores are tried again for minutes.

    Returns:
        The Arrow file system and the path within it, without a trailing slash.

    Raises:
        UsageError: The path is not UTF-8, or the URL's protocol is unknown, its package is missing, or its credentials
            are refused.
    """
    text = os.fspath(uri)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{text!a}: is not UTF-8; rename it") from None
    if not _URL.match(text):
        return pafs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    try:
        if is_object_store(text):
            return object_store(text, patient)
        if text.startswith("file://"):
            native, path = pafs.FileSystem.from_uri(quote(text, safe=":/%?=&"))  # what nobody writes as %5B
            return native, path.rstrip("/")
        import fsspec

        from featurestore.storage.fsspec_files import FsspecHandler

        foreign, path = fsspec.core.url_to_fs(text)
    except (ImportError, *STORAGE_ERRORS) as exc:
        reason = reason_about(text, first_line(exc).rstrip(". "), type(exc).__name__)
        raise UsageError(f"{shown(text)}: cannot be opened ({reason}); check the URL and credentials") from exc
    return pafs.PyFileSystem(FsspecHandler(foreign)), path.rstrip("/")


def reached(uri: str | os.PathLike[str]) -> tuple[pafs.FileSystem, str]:
    """The same where storage answers at all, for those who touch a place first; a place is asked once.

    Raises:
        StoreError: It does not.
        UsageError: As for `filesystem`.
    """
    text = os.fspath(uri)
    place = _PLACE.sub(r"\1\2", text)
    if _URL.match(text) and not text.startswith("file://") and place not in _answered:
        try:
            first_answer(lambda: _ask(text))
        except NoAnswer as exc:
            raise StoreError(
                f"{shown(text)} cannot be read (its storage does not answer, see to the network: {exc}); check the "
                "path and your access to it"
            ) from (exc.__cause__ or TimeoutError(str(exc)))
        _answered.add(place)
    return filesystem(uri)


def _ask(url: str) -> None:
    """Ask storage for something small."""
    fs, path = filesystem(url, patient=False)
    if not isinstance(fs, pafs.PyFileSystem):
        fs.get_file_info(path)
        return
    try:
        fs.handler.fs.info(path)
    except FileNotFoundError as exc:  # so fsspec calls a web server that is not there
        if isinstance(below := exc.__cause__, OSError) and not isinstance(below, FileNotFoundError):
            raise NoAnswer(first_line(below).rstrip(". ")) from below


def is_local(fs: pafs.FileSystem) -> bool:
    """Whether `fs` is this machine's file system, where a rename commits a file."""
    return isinstance(fs, pafs.LocalFileSystem)


def atomic_write(fs: pafs.FileSystem, path: str, data: Any) -> None:
    """Make a file appear at `path` with these bytes, whole or not at all; an older file there is replaced.

    Locally: a temporary name (starting with ".", so no reader takes it for a part) in the same directory, fsync,
    rename, fsync of the directory. On object stores an upload is invisible until it is closed, so one PUT will do.

    Args:
        fs: From `filesystem`.
        path: Path within `fs`; missing directories are made.
        data: Anything with the buffer protocol.

    Raises:
        OSError: Storage refused, naming the path; nothing is visible at `path` that was not there before.
    """
    with writing(path):
        _write_whole(fs, path, data)


def _write_whole(fs: pafs.FileSystem, path: str, data: Any) -> None:
    if not is_local(fs):
        if not isinstance(fs, pafs.S3FileSystem | pafs.GcsFileSystem):  # there a directory is only an empty object
            fs.create_dir(path.rpartition("/")[0], recursive=True)
        whole = pa.py_buffer(data)  # before the stream is open: an open stream commits what it has when it is dropped
        fault_point("write.before", path)
        stream = fs.open_output_stream(path)
        stream.write(whole)  # no `with`: closing after a failed write would commit what was sent so far
        fault_point("write.middle", path)
        stream.close()
        fault_point("write.after", path)
        return
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    fault_point("write.before", path)
    try:
        with temporary.open("xb") as file:
            with memoryview(data) as view:
                file.write(view[: len(view) // 2])
                file.flush()
                fault_point("write.middle", path)
                file.write(view[len(view) // 2 :])
            file.flush()
            os.fsync(file.fileno())
        fault_point("write.before_rename", path)
        temporary.replace(final)
        fault_point("write.after", path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def open_input(fs: pafs.FileSystem, path: str) -> pa.NativeFile:
    """A file open for random access.

    Raises:
        OSError: There is none, or something else that would block or never end when read (a pipe, a device).
    """
    _check_regular(fs, path)
    return fs.open_input_file(path)


def _check_regular(fs: pafs.FileSystem, path: str) -> None:
    if is_local(fs) and Path(path).exists() and not Path(path).is_file():
        raise OSError(f"{path} is no regular file")


def read_bytes(fs: pafs.FileSystem, path: str) -> bytes:
    """The whole file in memory, as it was at one moment.

    Arrow asks S3 for a file's size, then for that many bytes. A file that another process replaces between the two
    comes cut off, and one that it deletes fails as an internal error, so both are looked at again.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read, or changes each time that it is.
    """
    _check_regular(fs, path)
    if not isinstance(fs, pafs.S3FileSystem):
        return _read_once(fs, path)
    for tries_left in (2, 1, 0):
        begun = time.monotonic()
        try:
            data = _read_once(fs, path)
        except FileNotFoundError:
            raise
        except OSError:
            if not tries_left or time.monotonic() - begun > SLOW_SECONDS:  # it was asked again and again already
                raise
            if fs.get_file_info(path).type == pafs.FileType.NotFound:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        else:
            if fs.get_file_info(path).size == len(data):
                return data
    raise OSError(errno.EAGAIN, "it changes each time that it is read", path)


def _read_once(fs: pafs.FileSystem, path: str) -> bytes:
    with fs.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def read_json(fs: pafs.FileSystem, path: str) -> Any:
    """The value of a JSON file that may be anything.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no JSON, larger than MAX_JSON_BYTES, nested too deeply, or holds a number beyond float64.
    """
    size = fs.get_file_info(path).size or 0
    if size > MAX_JSON_BYTES:
        raise ValueError(f"it has {size:,} bytes; {MAX_JSON_BYTES:,} are the limit")
    return parse_json(read_bytes(fs, path))


def parse_json(data: bytes) -> Any:
    """`json.loads`, with ValueError for whatever is wrong with the text.

    A number that float64 cannot hold is wrong too: it would be one until somebody calculates with it.
    """
    try:
        return json.loads(data, parse_int=_whole, parse_float=_fraction, parse_constant=_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _fraction(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"it holds the number {text[:20]}, which is too large")
    return value


def _constant(text: str) -> float:
    if text != "NaN":
        raise ValueError(f"it holds {text}")
    return math.nan


def sha256_file(fs: pafs.FileSystem, path: str) -> str:
    """Hex sha256 of a file's bytes, read in chunks."""
    _check_regular(fs, path)
    digest = hashlib.sha256()
    with fs.open_input_stream(path, compression=None) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def list_files(fs: pafs.FileSystem, directory: str) -> dict[str, int]:
    """Name -> bytes of every file and directory (0 bytes) in `directory`, temporary ones left out; empty if none."""
    try:
        found = fs.get_file_info(pafs.FileSelector(directory, allow_not_found=True))
    except FileNotFoundError:  # a writer made the directory while Arrow looked: it was empty a moment ago
        return {}
    return {info.base_name: info.size or 0 for info in found if not info.base_name.startswith(".")}
