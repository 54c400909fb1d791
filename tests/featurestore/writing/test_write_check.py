"""A store that cannot be written is refused before anything is spent, and looking leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurestore.errors import StoreError
from featurestore.writing.write_check import check_writable
from tests.featurestore.conftest import BUCKET, Place


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "new", tmp_path / "a" / "b" / "new"):
        check_writable(str(place))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a directory that nobody can write to, root included")
def test_a_file_system_that_takes_no_files_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match=r"/proc/store/x cannot be written \(.*in /proc\); choose another directory"):
        check_writable("/proc/store/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_of_somebody_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(StoreError, match=r"locked/store cannot be written \(Permission denied in .*locked\)"):
        check_writable(str(tmp_path / "locked" / "store"))


def test_a_link_to_nothing_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match=r"link/store cannot be written \(.*link is a link to nothing\)"):
        check_writable(str(tmp_path / "link" / "store"))


def test_a_bucket_that_is_not_there_is_refused_and_one_that_is_stays_empty(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, _ = s3_place.path("")
    before = [info.path for info in fs.get_file_info(_everything())]
    check_writable(s3_place.uri)
    assert [info.path for info in fs.get_file_info(_everything())] == before
    with pytest.raises(StoreError, match="there is no bucket 'nowhere-at-all'"):
        check_writable("s3://nowhere-at-all/a/store")


def _everything() -> object:
    from pyarrow import fs as pafs

    return pafs.FileSelector(BUCKET, recursive=True)
