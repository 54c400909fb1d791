"""Documents come in order and in batches, each with an id, and what cannot be read is one with an error."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from featurestore.errors import CorpusError, UsageError
from ray_jobs.corpus.read import DocumentRows
from ray_jobs.scoring import documents
from ray_jobs.scoring.documents import of_files, of_lines, of_texts


def rows(batches: list[DocumentRows]) -> list[tuple[str, str | None, str | None]]:
    return [row for batch in batches for row in zip(batch.doc_id, batch.text, batch.error, strict=True)]


def lines(data: bytes) -> list[tuple[str, str | None, str | None]]:
    return rows(list(of_lines(io.BytesIO(data))))


def test_texts_are_numbered_from_one() -> None:
    assert rows(list(of_texts(["a", ""]))) == [("1", "a", None), ("2", "", None)]
    assert rows(list(of_texts(["caf\udce9"]))) == [("1", None, "the text is not UTF-8")]


def test_a_line_is_a_document_and_its_number_the_id() -> None:
    assert lines("one\r\n\nthree é\u2028still three\nfour".encode()) == [
        ("1", "one", None),
        ("2", "", None),
        ("3", "three é\u2028still three", None),
        ("4", "four", None),
    ]
    assert lines(b"\xef\xbb\xbfone\n") == [("1", "one", None)]


def test_a_line_that_is_not_utf8_costs_itself_only() -> None:
    assert lines(b"one\ncaf\xe9\nthree\n") == [
        ("1", "one", None),
        ("2", None, "the line is not UTF-8"),
        ("3", "three", None),
    ]


def test_a_line_beyond_all_measure_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LINE_BYTES", 8)
    found = lines(b"1234567\n" + 30 * b"x" + b"\nlast" + b"\n1234567890123456\nend\n")
    assert [text for _, text, _ in found] == ["1234567", None, "last", None, "end"]
    assert [doc_id for doc_id, _, _ in found] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [(b"", "standard input is empty"), ("text".encode("utf-16"), "no UTF-8 text"), (b"PK\0\0", "no UTF-8 text")],
)
def test_what_is_no_text_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        lines(data)


def test_batches_are_bounded_by_documents_and_by_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BATCH_DOCUMENTS", 3)
    monkeypatch.setattr(documents, "BATCH_CHARACTERS", 10)
    data = b"a\n" * 7 + b"x" * 12 + b"\n" + b"b\n"
    assert [len(batch.doc_id) for batch in of_lines(io.BytesIO(data))] == [3, 3, 2, 1]


def test_files_are_read_as_a_corpus_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(documents, "BATCH_DOCUMENTS", 2)
    content = "".join(json.dumps({"body": f"text {n}", "key": n}) + "\n" for n in range(4)) + "{broken\n"
    Path("[a].jsonl").write_text(content)
    found = list(of_files(["[a].jsonl"], text="body", id="key"))
    assert [len(batch.doc_id) for batch in found] == [2, 2, 1]
    assert rows(found)[:4] == [(str(n), f"text {n}", None) for n in range(4)]
    assert rows(found)[4][0] == "[a].jsonl:4" and rows(found)[4][2] is not None
    assert rows(list(of_files(["[a].jsonl"], text="body")))[0][0] == "[a].jsonl:0"


def test_a_column_that_is_not_there_is_named_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,n\nx,1\n")
    with pytest.raises(CorpusError, match="--text-column"):
        list(of_files([str(tmp_path / "a.csv")]))
    with pytest.raises(CorpusError, match="--input"):
        list(of_files([str(tmp_path / "none.csv")]))
