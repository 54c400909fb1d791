"""The name that was meant: slips first, then shared words, and nothing that is only spelt a little alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.base.did_you_mean import did_you_mean, nearest
from featurestore.errors import JobSpecError, StoreError
from featurestore.format.store_plan import read_plan
from featurestore.specs.spec_file import load_mapping


@pytest.mark.parametrize(
    ("name", "names", "meant"),
    [
        ("text", ["id", "threat", "comment_text", "review_text"], ["comment_text", "review_text"]),
        ("text", ["id", "threat", "toxic"], []),
        ("text", ["title", "fulltext"], ["fulltext"]),
        ("Text", ["context", "text"], ["text"]),
        ("texts", ["comment_texts", "text"], ["text"]),
        ("commentText", ["text", "comment_text"], ["comment_text"]),
        ("comment", ["id", "comment_text"], ["comment_text"]),
        ("id", ["lang", "doc_id", "comment_id"], ["doc_id", "comment_id"]),
        ("lang", ["label", "language"], ["language"]),
        ("label", ["text", "labels_v2"], ["labels_v2"]),
        ("lable", ["lang", "label"], ["label"]),
        ("sea", ["store", "sae"], ["sae"]),
        ("l12", ["l9_16k", "l12_16k"], ["l12_16k"]),
        ("l12_16", ["l5_16k", "l12_16k"], ["l12_16k"]),
        ("maxtokens", ["tokens", "max_tokens"], ["max_tokens"]),
        ("exract", ["explain", "export", "extract"], ["extract"]),
        ("h10", ["l4", "h200", "h100"], ["h100"]),
        ("reviews.jsnl", ["reviews.csv", "reviews.jsonl"], ["reviews.jsonl"]),
        ("文本", ["标签", "文本_a"], ["文本_a"]),
        ("", ["a"], []),
        ("run", ["extract", "prepare"], []),
    ],
)
def test_what_was_meant_is_found_by_slip_and_by_word_and_not_by_letters_alone(
    name: str, names: list[str], meant: list[str]
) -> None:
    assert nearest(name, names) == meant


def test_a_hint_names_every_name_that_is_as_likely() -> None:
    assert did_you_mean("labl", ["text", "label"]) == "; did you mean 'label'?"
    assert did_you_mean("text", ["text_a", "text_b", "text_c"]) == "; did you mean 'text_a', 'text_b' or 'text_c'?"
    assert did_you_mean("x", ["label"]) == ""


def test_files_and_stores_that_are_not_there_are_told_from_what_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").touch()
    (tmp_path / "reviews").mkdir()
    with pytest.raises(JobSpecError, match=r"there is no such file; did you mean 'job\.yaml'\?"):
        load_mapping(tmp_path / "jbo.yaml", JobSpecError)
    with pytest.raises(StoreError, match=r"give the directory that 'extract' wrote; did you mean 'reviews'\?"):
        read_plan(str(tmp_path / "revews"))
