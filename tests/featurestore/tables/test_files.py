"""Finding the files of a corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.errors import CorpusError, UsageError
from featurestore.tables.files import find_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jsonl",
        "a.jsonl",
        "c.csv.gz",
        "x/d.parquet",
        "x/deep/e.ndjson.zst",
        "x/.hidden/f.jsonl",
        ".g.jsonl",
        "_SUCCESS",
        "_temporary/h.jsonl",
        "README.md",
    ):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "corpus"


def names(*paths: object, file_format: str | None = None) -> list[str]:
    return [file.name for file in find_files([str(path) for path in paths], file_format)]


def test_a_glob_gives_its_matches_sorted_by_name_and_none_that_are_hidden(tree: Path) -> None:
    assert names(tree / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tree / "[bc].*") == ["b.jsonl", "c.csv.gz"]
    assert names(tree / "?.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tree / "*/*.parquet", tree / "a.jsonl") == ["x/d.parquet", "a.jsonl"]


def test_two_stars_reach_any_depth(tree: Path) -> None:
    assert names(tree / "**/*.ndjson.zst") == ["e.ndjson.zst"]
    assert names(tree / "x/**") == ["d.parquet", "deep/e.ndjson.zst"]
    assert names(tree / "**/?.[jp]*") == ["_temporary/h.jsonl", "a.jsonl", "b.jsonl", "x/d.parquet"]


def test_a_directory_gives_every_known_file_below_it_that_is_not_hidden(tree: Path) -> None:
    assert names(tree) == ["a.jsonl", "b.jsonl", "c.csv.gz", "x/d.parquet", "x/deep/e.ndjson.zst"]
    assert names(tree, file_format="csv") == ["c.csv.gz"]


def test_a_feature_store_below_the_corpus_is_no_part_of_it(tree: Path) -> None:
    (tree / "store" / "parts").mkdir(parents=True)
    (tree / "store" / "parts" / "part-000000.parquet").write_bytes(b"")
    before = names(tree / "**/*.parquet")
    (tree / "store" / "store.json").write_text("{}")
    assert before == ["store/parts/part-000000.parquet", "x/d.parquet"]
    assert names(tree / "**/*.parquet") == ["d.parquet"]


def test_format_and_compression_are_told_by_the_name_or_the_job(tree: Path) -> None:
    found = {file.name: (file.format, file.compression) for file in find_files([str(tree)], None)}
    assert found == {
        "a.jsonl": ("jsonl", None),
        "b.jsonl": ("jsonl", None),
        "c.csv.gz": ("csv", "gzip"),
        "x/d.parquet": ("parquet", None),
        "x/deep/e.ndjson.zst": ("jsonl", "zstd"),
    }
    (file,) = find_files([str(tree / "README.md")], "csv")
    assert file.format == "csv"


def test_the_order_of_the_paths_is_kept_and_a_file_matched_twice_is_read_once(tree: Path) -> None:
    assert names(tree / "b.jsonl", tree / "*.jsonl") == ["b.jsonl", "a.jsonl"]


def test_a_name_with_glob_characters_that_exists_is_that_file(tree: Path) -> None:
    (tree / "a[1]*.jsonl").write_bytes(b"")
    assert names(tree / "a[1]*.jsonl") == ["a[1]*.jsonl"]


def test_names_are_relative_to_the_directory_that_all_files_share(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus-2").mkdir()
    (tmp_path / "corpus-2" / "a.jsonl").write_bytes(b"")
    assert names(tree / "a.jsonl", tmp_path / "corpus-2/a.jsonl") == ["corpus/a.jsonl", "corpus-2/a.jsonl"]


def test_names_with_blanks_percents_and_umlauts_are_kept(tree: Path) -> None:
    (tree / "a %20 ü#.jsonl").write_bytes(b"")
    assert names(tree / "a *.jsonl") == ["a %20 ü#.jsonl"]


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("*.csv", r"corpus/\*\.csv' matches no file"),
        ("nowhere/*.csv", r"nowhere/\*\.csv' matches no file"),
        ("a.jsnl", "does not exist, but 'a.jsonl' does"),
        ("nowhere/a.jsonl", "does not exist; check the path"),
        ("README.md", "its name does not tell the format; give corpus.format"),
        ("_temporary/empty", "is a directory without Parquet, JSONL or CSV files"),
        ("z.parquet.gz", "a Parquet file cannot be read through gzip"),
    ],
)
def test_what_gives_no_file_is_refused_in_a_sentence(tree: Path, path: str, refusal: str) -> None:
    (tree / "_temporary" / "empty").mkdir()
    if path.startswith("z"):
        (tree / path).write_bytes(b"")
    with pytest.raises(CorpusError, match=refusal):
        names(tree / path)


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="nonsense://"):
        names("nonsense://bucket/*.jsonl")


def test_a_url_keeps_its_query_for_opening_and_hides_it_in_messages() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/sources-of-test/a.jsonl", b"")
    (file,) = find_files(["memory://sources-of-test/*.jsonl"], None)
    assert (file.root, file.name) == ("memory://sources-of-test", "a.jsonl")
    assert file.uri == "memory://sources-of-test/a.jsonl"
    with pytest.raises(CorpusError) as refusal:
        names("file:///nowhere-at-all/*.jsonl?secret=hunter2")
    assert "hunter2" not in str(refusal.value)
