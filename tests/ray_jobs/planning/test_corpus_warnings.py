"""What a scan saw is said: rows that cannot be read, values that cannot be kept, and what the directories tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs.corpus.scan import scan
from ray_jobs.planning.corpus_warnings import corpus_notes, corpus_warnings
from tests.ray_jobs.corpora import documents, jsonl, spec, written

GOOD = [{"text": f"text {i}", "id": f"d{i}"} for i in range(20)]


def warned(path: Any, **keys: Any) -> list[str]:
    """The warnings of a corpus; what they count as unreadable is what a run finds so."""
    corpus = spec(path, **keys)
    scanned = scan(corpus)
    errors = sum(error is not None for error in documents(corpus).error)
    counted = sum(file.unreadable for file in scanned.files)
    warnings = corpus_warnings(scanned, max_errors=scanned.rows)
    assert counted == errors or any("sampled" in sentence for sentence in warnings)
    return warnings


def test_a_sound_corpus_needs_no_words(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl(*GOOD))
    assert warned(path, id="id") == []
    assert corpus_notes(scan(spec(path, id="id")), ()) == ()


def test_unreadable_rows_are_counted_by_file_and_kind_with_an_example(tmp_path: Path) -> None:
    bad = [*GOOD, {"text": None}, {"text": None}, {"x": 1}]
    written(tmp_path / "a.jsonl", jsonl(*bad) + "broken\n")
    written(tmp_path / "b.jsonl", jsonl(*GOOD, {"text": 5}))
    written(tmp_path / "c.jsonl", jsonl(*GOOD))
    (sentence,) = warned(str(tmp_path))
    assert sentence.startswith("5 of 65 documents (7.7%) cannot be read and get an error instead of features (")
    assert "a.jsonl: 2 such as row 20, the text in 'text' is null, 1 such as row 22, the row has no text" in sentence
    assert "1 such as row 23, the line is not JSON" in sentence
    assert "b.jsonl: 1 such as row 20, the text in 'text' is a number" in sentence
    assert "c.jsonl" not in sentence
    assert sentence.endswith("mend the rows, or check corpus.format and corpus.text")


def test_of_many_files_with_unreadable_rows_the_worst_are_named(tmp_path: Path) -> None:
    for n in range(1, 6):
        written(tmp_path / f"{n}.jsonl", jsonl(*GOOD) + "broken\n" * n)
    (sentence,) = warned(str(tmp_path))
    assert [f"{n}.jsonl: {n} such as row 20" in sentence for n in range(1, 6)] == [False, False, True, True, True]
    assert "; and 2 more files)" in sentence


def test_rows_in_another_encoding_are_said_with_the_key_that_names_it(tmp_path: Path) -> None:
    rows = "".join(f"{i},caf\u00e9 number {i}\n" for i in range(9))
    (sentence,) = warned(written(tmp_path / "latin.csv", f"id,text\n{rows}9,plain\n".encode("cp1252")))
    assert "9 of 10 documents (90.0%)" in sentence
    assert "latin.csv: 9 such as row 0, the row is not UTF-8" in sentence
    assert "check corpus.csv.encoding" in sentence


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_corpus_without_a_single_text_is_said(tmp_path: Path, kind: str) -> None:
    rows = {"id": ["a", "b", "c"], "text": [None, None, None]}
    data = jsonl(*({"id": i, "text": None} for i in "abc")) if kind == "jsonl" else pa.table(rows)
    (sentence,) = warned(written(tmp_path / f"a.{kind}", data))
    assert sentence.startswith("all 3 documents cannot be read")
    assert f"a.{kind}: 3 such as row 0, the text in 'text' is null" in sentence


def test_a_parquet_files_nulls_are_told_by_its_statistics_with_a_row_that_is_one(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", None, "c"] * 25, "id": [str(i) for i in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    (sentence,) = warned(str(tmp_path / "a.parquet"), id="id")
    assert "25 of 100 documents (25.0%)" in sentence
    assert "25 such as row 2, the text in 'text' is null" in sentence


def test_rows_of_parquet_without_id_or_text_are_at_least_so_many(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "c"] * 10, "id": [str(i) if i % 5 else None for i in range(30)]})
    pq.write_table(table, tmp_path / "a.parquet")
    (sentence,) = corpus_warnings(scan(spec(str(tmp_path / "a.parquet"), id="id")), max_errors=2**31)
    assert sentence.startswith("at least 10 of 30 documents")
    assert "6 such as row 0, the id in 'id' is null" in sentence


def test_texts_of_parquet_that_are_no_utf8_are_said_of_the_sample(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([b"ok", b"\xff\xfe"] * 10)}), tmp_path / "a.parquet")
    (sentence,) = warned(str(tmp_path / "a.parquet"))
    assert "10 of 20 sampled rows of a.parquet cannot be read (row 1, the text in 'text' is not UTF-8)" in sentence


def test_texts_that_are_all_empty_are_said(tmp_path: Path) -> None:
    (sentence,) = warned(written(tmp_path / "a.jsonl", jsonl({"text": ""}, {"text": "  "})))
    assert "all 2 sampled texts are empty" in sentence


def test_kept_values_that_cannot_be_kept_are_said_and_cost_no_text(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "img": pa.array([b"\x89PNG\xff", b"\x89PNG\xff"])})
    (sentence,) = warned(written(tmp_path / "a.parquet", table), keep="img")
    assert sentence.startswith(
        "2 of 2 values of 'img' that were looked at cannot be kept and will be null (a.parquet row 0"
    )


def test_what_spark_has_not_finished_is_said(tmp_path: Path) -> None:
    for name in ("done", "half"):
        written(tmp_path / f"{name}.parquet" / "lang=de" / "part-00000-x.snappy.parquet", pa.table({"text": ["a"]}))
    (tmp_path / "done.parquet" / "_SUCCESS").touch()
    (tmp_path / "half.parquet" / "_temporary").mkdir()
    (sentence,) = warned(str(tmp_path / "*.parquet"))
    assert sentence.startswith(f"{tmp_path}/half.parquet has _temporary and no _SUCCESS")


def test_directories_that_tell_a_column_are_offered_and_named_when_they_are_kept(tmp_path: Path) -> None:
    for lang in ("de", "en"):
        written(tmp_path / f"lang={lang}" / "year=2024" / "a.jsonl", jsonl({"text": "x"}))
    scanned = scan(spec(str(tmp_path)))
    assert corpus_notes(scanned, ()) == (
        "the directories of the corpus tell lang (2 values), year (1 value); corpus.keep can name them",
    )
    kept = scan(spec(str(tmp_path), keep="lang"))
    assert corpus_notes(kept, ("lang",)) == (
        "'lang' is kept as the directories of the files have it",
        "the directories of the corpus tell year (1 value); corpus.keep can name them",
    )


def test_names_of_classes_are_said(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["neg", "pos"]}}}}
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({"huggingface": json.dumps(info)})
    scanned = scan(spec(written(tmp_path / "a.parquet", table), keep="label"))
    assert corpus_notes(scanned, ("label",)) == (
        "'label' is kept as the names that the files have for its numbers (neg, pos)",
    )
