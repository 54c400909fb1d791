"""A file that another process replaces or deletes while it is read is one whole file or none, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyarrow import fs as pafs

from featurestore.storage import files
from tests.featurestore.conftest import Place, gcs_host, place, s3_place, s3_server

__all__ = ["gcs_host", "place", "s3_place", "s3_server"]
NAME = "note.json"
SHORT, LONG = b'{"beat": 9}', b'{"beat": 10, "since": "' + b"2" * 300 + b'"}'


def between(monkeypatch: pytest.MonkeyPatch, other: Callable[[], None], times: int = 1) -> None:
    """Let another process act after a file's size is known and before its bytes are asked for."""
    turns = iter(range(times))

    def read(fs: pafs.FileSystem, path: str) -> bytes:
        with fs.open_input_stream(path, compression=None) as stream:
            if next(turns, None) is not None:
                other()
            return bytes(stream.read())

    monkeypatch.setattr(files, "_read_once", read)


@pytest.mark.parametrize(("before", "after"), [(SHORT, LONG), (LONG, SHORT)])
def test_what_is_read_is_what_was_there_at_one_moment(
    place: Place, monkeypatch: pytest.MonkeyPatch, before: bytes, after: bytes
) -> None:
    place.write(NAME, before)
    between(monkeypatch, lambda: place.write(NAME, after))
    assert files.read_bytes(*place.path(NAME)) in (before, after)


def test_a_file_deleted_meanwhile_is_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(NAME, SHORT)
    between(monkeypatch, lambda: place.delete(NAME))
    try:
        assert files.read_bytes(*place.path(NAME)) == SHORT
    except FileNotFoundError as error:
        assert NAME in str(error)


def test_storage_that_fails_again_and_again_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(NAME, SHORT)

    def fail() -> None:
        raise OSError("no answer")

    between(monkeypatch, fail, times=9)
    with pytest.raises(OSError, match="no answer"):
        files.read_bytes(*place.path(NAME))


def test_a_file_that_never_rests_is_an_error_and_no_piece_of_it(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_place.write(NAME, SHORT)
    versions = (b"x" * n for n in range(20, 90, 7))
    between(monkeypatch, lambda: s3_place.write(NAME, next(versions)), times=9)
    with pytest.raises(OSError, match="it changes each time that it is read"):
        files.read_bytes(*s3_place.path(NAME))
