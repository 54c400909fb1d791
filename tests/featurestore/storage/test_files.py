"""Files appear whole or not at all, and URLs find their file system."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from featurestore.errors import UsageError
from featurestore.storage.files import atomic_write, filesystem, list_files, parse_json, read_bytes, sha256_file, shown


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    for data in (b"first", b"second"):
        atomic_write(pafs.LocalFileSystem(), str(target), data)
    assert target.read_bytes() == b"second"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(TypeError):
        atomic_write(pafs.LocalFileSystem(), str(target), "text is not bytes")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_fsspec_url_is_written_and_read() -> None:
    fs, path = filesystem("memory://test-files/there/")
    atomic_write(fs, f"{path}/a/b", b"data")
    assert read_bytes(fs, f"{path}/a/b") == b"data"
    assert list_files(fs, f"{path}/a") == {"b": 4}
    assert list_files(fs, f"{path}/nowhere") == {}


def test_a_file_url_and_a_path_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert filesystem("a b")[1] == filesystem((tmp_path / "a b").as_uri())[1] == str(tmp_path / "a b")


def test_hidden_files_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".part-000000.parquet.12.tmp").touch()
    assert list_files(*filesystem(tmp_path)) == {}


def test_a_hash_is_of_the_bytes_and_not_of_what_they_unpack_to(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(b"text"))
    assert sha256_file(*filesystem(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unknown_protocol_is_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="nope://bucket/x: cannot be opened"):
        filesystem("nope://bucket/x")


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("s3://key:secret@bucket/store", "s3://bucket/store"),
        ("s3://key:se/cr/et@bucket/store", "s3://bucket/store"),
        ("s3://bucket/store?endpoint_override=x&secret_key=y", "s3://bucket/store"),
        ("/a/store?", "/a/store?"),
    ],
)
def test_credentials_in_a_url_are_not_printed(uri: str, printed: str) -> None:
    assert shown(uri) == printed


@pytest.mark.parametrize(
    "number", ["9" * 301, "-" + "9" * 400, "1e999", "-1.5E+400", "Infinity", "-Infinity", "9" * 5000]
)
def test_json_with_a_number_that_nobody_can_calculate_with_is_refused(number: str) -> None:
    for text in (f'{{"a": {number}}}', f"[1,{number}]", f'{{"a":{number}}}', number):
        with pytest.raises(ValueError, match="it holds"):
            parse_json(text.encode())


def test_json_with_any_other_number_is_read_as_it_stands() -> None:
    text = f'{{"sha256": "1e999", "whole": {"9" * 300}, "small": 1e-400, "large": 1.5e308, "none": [NaN, Infinite]}}'
    found = parse_json(text.replace("Infinite", "null").encode())
    assert (found["sha256"], found["whole"]) == ("1e999", int("9" * 300))
    assert (found["small"], found["large"]) == (0.0, 1.5e308)
    assert found["none"][0] != found["none"][0] and found["none"][1] is None
