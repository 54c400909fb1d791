"""Files that a user names: never over another one unasked, whole or not at all."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from featurestore.errors import UsageError
from featurestore.storage.user_outputs import check_free, whole_file


def test_what_is_there_is_refused_and_says_how_to_insist(tmp_path: Path) -> None:
    there, other = tmp_path / "there.csv", tmp_path / "other.csv"
    there.write_text("mine")
    check_free(str(other))
    with pytest.raises(
        UsageError, match=r"there\.csv is there already; choose another name, or replace it with --over"
    ):
        check_free(str(other), str(there))
    check_free(str(other), str(there), overwrite=True)


def test_a_directory_is_never_replaced_and_nothing_lies_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is a directory; give the name of a file"):
            check_free(str(tmp_path), overwrite=overwrite)
        with pytest.raises(UsageError, match="lies below a file"):
            check_free(str(tmp_path / "file" / "a.csv"), overwrite=overwrite)


def test_a_file_appears_whole_with_its_parents_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "new" / "deeper" / "a.bin"
    with whole_file(str(place)) as file:
        file.write(b"half")
        assert not place.exists()
        file.write(b"whole")
    assert place.read_bytes() == b"halfwhole"
    with pytest.raises(RuntimeError, match="stopped"), whole_file(str(place)) as file:
        file.write(b"never")
        raise RuntimeError("stopped")
    assert place.read_bytes() == b"halfwhole"
    assert [path.name for path in place.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("content", [b"", b"some bytes"])
def test_other_storage_than_a_disk_works_too(content: bytes) -> None:
    import fsspec

    with whole_file("memory://predictions/deep/a.bin") as file:
        file.write(content)
    assert fsspec.filesystem("memory").cat("/predictions/deep/a.bin") == content
    with pytest.raises(UsageError, match=r"a\.bin is there already"):
        check_free("memory://predictions/deep/a.bin")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "a.csv")
    with pytest.raises(UsageError, match=r"a\.csv cannot be written \(.+\); check space"), whole_file(place):
        pass


def test_what_fails_beside_the_file_is_not_said_to_be_the_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), whole_file(str(tmp_path / "a.csv")) as file:
        file.write(b"row")
        raise BrokenPipeError(32, "Broken pipe")
    assert not list(tmp_path.iterdir())


def test_a_file_that_takes_no_more_is_said_whoever_writes_it(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv

    table = pa.table({"a": range(200_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for write in (lambda file: file.write(bytes(200_000)), lambda file: csv.write_csv(table, file)):
            said = r"a\.csv cannot be written \(File too large\)"
            with pytest.raises(UsageError, match=said), whole_file(str(tmp_path / "a.csv")) as file:
                write(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())
