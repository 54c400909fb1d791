"""Which parts of a path are patterns, and which are names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import CorpusError
from featurestore.finding.patterns import alternatives, escaped, is_pattern, joined, matches, unescaped

names = st.text(st.sampled_from("ab1.-*?[]{},! "), min_size=1, max_size=12)


@given(name=names, other=names)
def test_an_escaped_name_matches_itself_and_nothing_else(name: str, other: str) -> None:
    assert matches(name, escaped(name))
    assert matches(other, escaped(name)) == (other == name)
    assert not is_pattern(escaped(name))
    assert unescaped(escaped(name)) == name
    assert alternatives(escaped(name)) == [escaped(name)]


@pytest.mark.parametrize(
    ("path", "base", "result"),
    [
        ("data/*.jsonl", "/jobs/run[12]", "/jobs/run[[]12]/data/*.jsonl"),
        ("../{a,b}/x", "/jobs/{c,d}/e*", "/jobs/[{]c,d}/{a,b}/x"),
        ("/abs/*.csv", "/jobs/run[12]", "/abs/*.csv"),
        ("s3://bucket/run[12]/*.csv", "/jobs/run[12]", "s3://bucket/run[12]/*.csv"),
        ("~/x[1].csv", "/jobs", "/home/a[[]b]/x[1].csv"),
    ],
)
def test_only_what_stands_in_front_of_a_users_path_is_escaped(
    monkeypatch: pytest.MonkeyPatch, path: str, base: str, result: str
) -> None:
    monkeypatch.setenv("HOME", "/home/a[b]")
    assert joined(path, base) == result
    assert joined(result, "/elsewhere[0]") == result


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{a,b}.jsonl", ["a.jsonl", "b.jsonl"]),
        ("{a,b{c,d}}-{1,2}", ["a-1", "a-2", "bc-1", "bc-2", "bd-1", "bd-2"]),
        ("{x/a,y}/*", ["x/a/*", "y/*"]),
        ("part-{08..11}.csv", ["part-08.csv", "part-09.csv", "part-10.csv", "part-11.csv"]),
        ("{3..1}", ["3", "2", "1"]),
        ("a{,.old}", ["a", "a.old"]),
        ("{a}", ["{a}"]),
        ("{a,b", ["{a,b"]),
        ("a,b}", ["a,b}"]),
        ("{{a,b}", ["{a", "{b"]),
    ],
)
def test_braces_stand_for_what_a_shell_takes_them_for(path: str, found: list[str]) -> None:
    assert alternatives(path) == found


@pytest.mark.parametrize("path", ["{1..1000000}", "{0..999}{0..999}", "{a,b}" * 60, "{" * 2000 + "}" * 2000])
def test_braces_for_more_names_than_anybody_means_are_refused(path: str) -> None:
    with pytest.raises(CorpusError, match=r"more than 10,000 names; use \* instead"):
        alternatives(path)
