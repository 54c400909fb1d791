"""Pointers of Git LFS and git-annex are called what they are, wherever a file is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import BundleError, CorpusError, TableError
from featurestore.storage.pointers import pointer_problem
from featurestore.tables.table import read_table
from ray_jobs.corpus.scan import scan
from ray_jobs.prepare.checkpoint import find_checkpoint
from ray_jobs.spec import ModelSpec
from tests.ray_jobs.corpora import spec, written

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 12345\n"
ANNEX = "/annex/objects/SHA256E-s12345--4d7a.parquet\n"


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.csv.zst"])
@pytest.mark.parametrize(("pointer", "command"), [(LFS, "run git lfs pull"), (ANNEX, "run git annex get")])
def test_a_corpus_that_is_a_pointer_is_named(tmp_path: Path, name: str, pointer: str, command: str) -> None:
    path = written(tmp_path / name, pointer)
    with pytest.raises(CorpusError, match=f"{name} is a .* pointer and not the file itself; {command}"):
        scan(spec(path))


def test_one_pointer_among_files_is_named(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", '{"text": "a"}\n')
    written(tmp_path / "b.jsonl", LFS)
    with pytest.raises(CorpusError, match=r"b\.jsonl is a Git LFS pointer"):
        scan(spec(str(tmp_path)))


def test_a_label_table_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is a Git LFS pointer and not the file itself; run git lfs pull"):
        read_table(written(tmp_path / "labels.parquet", LFS), ["y"], id="id")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_model_with_a_pointer_among_its_files_is_named(tmp_path: Path, file: str) -> None:
    written(tmp_path / "m" / "config.json", "{}")
    path = written(tmp_path / "m" / file, LFS)
    with pytest.raises(BundleError, match=f"model.name: {path} is a Git LFS pointer"):
        find_checkpoint(ModelSpec(name=str(tmp_path / "m")))


def test_a_gguf_file_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    path: Any = written(tmp_path / "m.gguf", LFS)
    with pytest.raises(BundleError, match="is a Git LFS pointer"):
        find_checkpoint(ModelSpec(name=path))


def test_text_about_pointers_is_none() -> None:
    assert pointer_problem(b"") is None
    assert pointer_problem(b'{"text": "version https://git-lfs.github.com/spec/v1"}') is None
    assert pointer_problem(LFS.encode() + b"x" * 2000) is None
