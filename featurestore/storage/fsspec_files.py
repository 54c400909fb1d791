"""Tell what is not there from what could not be asked, in the file systems of fsspec (https, hf, abfs and others).

Arrow's own handler asks fsspec whether a path is a file, and fsspec answers no to any failure: a server that is busy
for a moment would look like a file that is gone. And what its clients raise is often no OSError, which storage is
expected to fail with. Here nothing is missing unless the server has said so, and every failure is an OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from featurestore.base.number_words import first_line

_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_CLOSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
# A mistake in the call and what a file system cannot do are not failures of storage.
_NOT_STORAGE = (NotImplementedError, TypeError, AttributeError, MemoryError)


class FsspecHandler(pafs.FSSpecHandler):
    """A file system of fsspec for Arrow's `PyFileSystem`; its methods are those of `FileSystemHandler`."""

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """What is at some paths."""
        infos = []
        for path in paths:
            try:
                infos.append(self._create_file_info(path, self._info(path)))
            except FileNotFoundError:
                infos.append(pafs.FileInfo(path, pafs.FileType.NotFound))
        return infos

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """What is in a directory; an empty answer is believed once the directory could be asked for."""
        with _as_os_errors():
            try:
                found: list[pafs.FileInfo] = super().get_file_info_selector(selector)
            except FileNotFoundError:
                self._info(selector.base_dir)
                raise
        if not found:
            with suppress(FileNotFoundError):
                self._info(selector.base_dir)
        return found

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """A file open for reading."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.PythonFile:
        """A file open for reading anywhere; FileNotFoundError if it is none."""
        if self._info(path)["type"] == "directory":
            raise FileNotFoundError(path)
        with _as_os_errors():
            return pa.PythonFile(_File(self.fs.open(path, mode="rb")), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:  # noqa: ARG002  (Arrow's signature)
        """A file open for writing."""
        with _as_os_errors():
            return pa.PythonFile(_File(self.fs.open(path, mode="wb")), mode="w")

    def create_dir(self, path: str, recursive: bool) -> None:
        """Make a directory, where the file system has any."""
        with _as_os_errors():
            super().create_dir(path, recursive)

    def delete_file(self, path: str) -> None:
        """Remove a file; FileNotFoundError if there is none."""
        self._info(path)
        with _as_os_errors():
            self.fs.rm(path)

    def delete_dir(self, path: str) -> None:
        """Remove a directory with what is in it."""
        with _as_os_errors():
            super().delete_dir(path)

    def _info(self, path: str) -> dict[str, Any]:
        with _as_os_errors():
            info: dict[str, Any] = self.fs.info(path)
            return info


class _File:
    """A file of fsspec whose failures are OSErrors; what Arrow does not call is the file's own."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        with _as_os_errors():
            data: bytes = self._file.read(size)
            return data

    def write(self, data: Any) -> int:
        with _as_os_errors():
            written: int = self._file.write(data)
            return written

    def flush(self) -> None:
        with _as_os_errors():
            self._file.flush()

    def close(self) -> None:
        with _as_os_errors():
            self._file.close()


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Let failures of storage be OSErrors, and nothing be missing that could not be asked for."""
    try:
        yield
    except FileNotFoundError as error:
        below = error.__cause__
        if below is None or isinstance(below, (FileNotFoundError, ValueError, LookupError, *_NOT_STORAGE)):
            raise
        raise _os_error(below, error) from below
    except (OSError, *_NOT_STORAGE):
        raise
    except Exception as error:
        raise _os_error(error, FileNotFoundError(errno.ENOENT, first_line(error))) from error


def _os_error(error: BaseException, gone: FileNotFoundError) -> OSError:
    """What a client's failure is: no such file, no access, or storage that failed."""
    status = _status(error)
    if status in _GONE or (status in _CLOSED and isinstance(error, OSError)):  # the hub does not say which of the two
        return gone
    said = first_line(error).rstrip(". ") or type(error).__name__
    return PermissionError(errno.EACCES, said) if status in _CLOSED else OSError(errno.EIO, said)


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client met, by the names that clients give it."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(response, "status_code", None)
    return found if isinstance(found, int) else None
