"""Links below a corpus: nothing is read twice, nothing is missing in silence, and every walk ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurestore.errors import CorpusError
from featurestore.finding.files import look_up


def file(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def link(path: Path, target: str | Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def found(*paths: object) -> list[str]:
    return [file.path for file in look_up([str(path) for path in paths], None).files]


PATTERNS = ["", "**/*.jsonl", "**", "*/**/*.jsonl", "{**,**/**}/*.jsonl"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_file_that_links_reach_again_is_read_once_under_the_first_name(tmp_path: Path, pattern: str) -> None:
    file(tmp_path / "sub/a.jsonl")
    link(tmp_path / "latest", "sub")
    link(tmp_path / "sub/up", "..")
    assert found(tmp_path / pattern) == [f"{tmp_path}/latest/a.jsonl"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_links_in_two_folders_that_lead_to_each_others_parent_end(tmp_path: Path, pattern: str) -> None:
    for name, other in (("p", "q"), ("q", "p")):
        for i in range(20):
            file(tmp_path / name / "in" / f"{i:02}" / "x.jsonl")
            link(tmp_path / name / "in" / f"{i:02}" / "across", f"../../../{other}")
            link(tmp_path / name / "in" / f"{i:02}" / "up", "..")
    assert len(found(tmp_path / pattern)) == 40


@pytest.mark.parametrize("pattern", PATTERNS)
def test_folders_that_all_lead_to_each_other_are_walked_once_each_and_not_over_endless_chains(
    tmp_path: Path, pattern: str
) -> None:
    for i in range(50):  # a path over more than forty links is none for the kernel
        file(tmp_path / f"{i:02}/x.jsonl")
        for j in range(50):
            link(tmp_path / f"{i:02}" / f"to-{j:02}", f"../{j:02}")
    names = found(tmp_path / pattern)
    assert len(names) == 50
    assert max(name.count("to-") for name in names) <= 2


def test_a_link_to_its_own_folder_adds_nothing(tmp_path: Path) -> None:
    file(tmp_path / "a.jsonl")
    link(tmp_path / "self", ".")
    assert found(tmp_path) == found(tmp_path / "**/*.jsonl") == [f"{tmp_path}/a.jsonl"]
    assert found(tmp_path / "*/*.jsonl") == [f"{tmp_path}/self/a.jsonl"]


@pytest.mark.parametrize("pattern", ["", "**/*.jsonl"])
def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path, pattern: str) -> None:
    file(tmp_path / "elsewhere/deep/a.jsonl")
    file(tmp_path / "corpus/b.jsonl")
    link(tmp_path / "corpus/more", tmp_path / "elsewhere")
    assert found(tmp_path / "corpus" / pattern) == [
        f"{tmp_path}/corpus/b.jsonl",
        f"{tmp_path}/corpus/more/deep/a.jsonl",
    ]


@pytest.mark.parametrize("target", ["/", "..", "../.."])
def test_a_link_out_to_what_holds_the_corpus_is_refused_instead_of_walking_the_disk(
    tmp_path: Path, target: str
) -> None:
    file(tmp_path / "corpus/a.jsonl")
    link(tmp_path / "corpus/out", target)
    for path in (tmp_path / "corpus", tmp_path / "corpus/**/*.jsonl"):
        with pytest.raises(CorpusError, match=r"corpus/out is a link to /.*, which holds .*corpus itself"):
            found(path)
    assert found(tmp_path / "corpus/*.jsonl") == [f"{tmp_path}/corpus/a.jsonl"]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("gone", ""),
        ("gone.jsonl", ""),
        ("gone", "**/*.jsonl"),
        ("gone.jsonl", "*.jsonl"),
        ("gone.jsonl", "{a,gone}.jsonl"),
        ("gone", "gone*/*"),
        ("gone", "gone/a.jsonl"),
        ("gone", "gone"),
        ("gone.jsonl", "gone.jsonl"),
    ],
)
def test_a_dangling_link_is_refused_by_name_wherever_it_could_matter(tmp_path: Path, name: str, pattern: str) -> None:
    file(tmp_path / "a.jsonl")
    link(tmp_path / name, "nowhere/at/all")
    with pytest.raises(CorpusError, match=rf"/{name} is a link to nowhere/at/all, which is not there; mend or remove"):
        found(tmp_path / pattern)


def test_a_dangling_link_is_no_trouble_where_the_pattern_leaves_it_out(tmp_path: Path) -> None:
    file(tmp_path / "a.jsonl")
    link(tmp_path / "gone.csv", "nowhere")
    link(tmp_path / ".#a.jsonl", "user@host.1234")  # as editors lock what they have open
    assert found(tmp_path / "*.jsonl") == found(tmp_path / "?.*") == [f"{tmp_path}/a.jsonl"]


def test_links_that_lead_to_themselves_are_refused_by_name(tmp_path: Path) -> None:
    file(tmp_path / "a.jsonl")
    link(tmp_path / "x", "y")
    link(tmp_path / "y", "x")
    for path in (tmp_path, tmp_path / "x", tmp_path / "x/a.jsonl", tmp_path / "?/*.jsonl"):
        with pytest.raises(CorpusError, match="/x is a link to y, which leads back to itself; mend or remove"):
            found(path)


def test_two_names_of_one_file_are_one_file_and_equal_files_are_two(tmp_path: Path) -> None:
    file(tmp_path / "a.jsonl")
    os.link(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    link(tmp_path / "c.jsonl", "b.jsonl")
    file(tmp_path / "d.jsonl")
    assert found(tmp_path) == [f"{tmp_path}/a.jsonl", f"{tmp_path}/d.jsonl"]


def test_what_was_reached_again_is_told_with_the_name_that_counts(tmp_path: Path) -> None:
    file(tmp_path / "c/sub/a.jsonl")
    file(tmp_path / "c/b.jsonl")
    link(tmp_path / "c/tub", "sub")
    link(tmp_path / "c/z.jsonl", "b.jsonl")
    assert look_up([str(tmp_path / "c")], None).again == (("tub", "sub"), ("z.jsonl", "b.jsonl"))
    paths = [f"{tmp_path}/c/sub/*.jsonl", f"{tmp_path}/c"]
    assert look_up(paths, None).again == (("tub", "sub"), ("sub/a.jsonl", "sub/a.jsonl"), ("z.jsonl", "b.jsonl"))


def test_the_first_name_is_first_in_the_order_of_whole_names(tmp_path: Path) -> None:
    file(tmp_path / "real/x.jsonl")
    link(tmp_path / "a", "real")
    link(tmp_path / "a-b", "real")  # "a-b/x" comes before "a/x", although "a" comes before "a-b"
    assert found(tmp_path) == [f"{tmp_path}/a-b/x.jsonl"]
    assert found(tmp_path / "*/x.jsonl") == [f"{tmp_path}/a-b/x.jsonl"]


def test_pipes_and_sockets_are_no_files_of_a_corpus(tmp_path: Path) -> None:
    file(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    assert found(tmp_path) == found(tmp_path / "*.jsonl") == [f"{tmp_path}/a.jsonl"]
