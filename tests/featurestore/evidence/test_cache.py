"""Evidence beside a study: found again by content, never trusted, and not there where text must not be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featurestore.evidence.cache import EvidenceCache, source, text_sha256
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence
from tests.featurestore.evidence.test_records import DOCUMENT, FIRES, SILENT, TOKENS

TEXT = text_sha256("I love🙂")
HERE, THERE = source({"bundle": "a"}), source({"bundle": "b"})


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    EvidenceCache(tmp_path / "evidence").write(DOCUMENT, TEXT, HERE)
    cache = EvidenceCache(tmp_path / "evidence")
    assert cache.read("d1", TEXT, [("l9", 7), ("l9", 3)], HERE) == DOCUMENT
    assert cache.find("d1", "l9", 3) == replace(DOCUMENT, features=(SILENT,))


def test_what_is_missing_or_of_something_else_is_not_found(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path)
    assert cache.read("d1", TEXT, [("l9", 7)]) is None
    cache.write(DOCUMENT, TEXT, HERE)
    assert cache.read("d1", TEXT, [("l9", 7), ("l9", 8)]) is None
    assert cache.read("d1", text_sha256("another text"), [("l9", 7)]) is None
    assert cache.read("d1", TEXT, [("l9", 7)], THERE) is None
    assert cache.find("d2", "l9", 7) is None
    assert cache.find("d1", "l12", 7) is None


def test_evidence_of_two_sources_lies_side_by_side(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path)
    other = replace(DOCUMENT, features=(FeatureEvidence("l9", 7, (0.0,) * 5, 0.0, 0.0),))
    cache.write(DOCUMENT, TEXT, HERE)
    cache.write(other, TEXT, THERE)
    assert cache.find("d1", "l9", 7, HERE) == replace(DOCUMENT, features=(FIRES,))
    assert cache.find("d1", "l9", 7, THERE) == other


def test_the_order_of_writing_leaves_no_trace_in_the_bytes(tmp_path: Path) -> None:
    one, other = (replace(DOCUMENT, features=(feature,)) for feature in (FIRES, SILENT))
    for name, documents in (("a", [one, other]), ("b", [other, one]), ("c", [DOCUMENT, DOCUMENT])):
        for document in documents:
            EvidenceCache(tmp_path / name).write(document, TEXT, HERE)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"]
    assert files[0] == files[1] == files[2]
    assert len(files[0]) == 1


def test_evidence_of_another_text_makes_way(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path)
    cache.write(DOCUMENT, TEXT, HERE)
    cache.write(replace(DOCUMENT, tokens=TOKENS, features=(FIRES,)), text_sha256("changed"), HERE)
    assert cache.find("d1", "l9", 3) is None
    assert cache.find("d1", "l9", 7) is not None


def test_a_private_cache_writes_nothing(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path / "evidence", private=True)
    cache.write(DOCUMENT, TEXT, HERE)
    assert list(tmp_path.iterdir()) == []
    assert cache.find("d1", "l9", 7) is None


def test_ids_that_look_like_paths_stay_in_the_directory(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path / "evidence")
    for doc_id in ("../../etc/passwd", "a/b", "", "C:\\x", "é" * 300):
        document = replace(DOCUMENT, doc_id=doc_id)
        cache.write(document, TEXT, HERE)
        assert cache.read(doc_id, TEXT, [("l9", 7), ("l9", 3)]) == document
    assert [path.name for path in tmp_path.iterdir()] == ["evidence"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"version": 2},
        {"source": None},
        {"source": "../" * 20},
        {"text_sha256": 7},
        {"document": None},
        {"document": {}},
        {"document": {"doc_id": "d2", "tokens": [], "features": []}},
        {"document": {"doc_id": "d1", "tokens": [{}], "features": []}},
    ],
)
def test_a_file_that_holds_something_else_counts_as_missing(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = EvidenceCache(tmp_path)
    cache.write(DOCUMENT, TEXT, HERE)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert cache.find("d1", "l9", 7) is None
    cache.write(DOCUMENT, TEXT, HERE)
    assert cache.find("d1", "l9", 7) is not None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": "sparsemill.evidence"}', b"1e999"]
)
def test_a_file_of_any_bytes_counts_as_missing(tmp_path: Path, data: bytes) -> None:
    cache = EvidenceCache(tmp_path)
    cache.write(DOCUMENT, TEXT, HERE)
    (path,) = tmp_path.iterdir()
    path.write_bytes(data)
    assert cache.find("d1", "l9", 7) is None


def test_a_directory_that_is_none_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("a file")
    assert EvidenceCache(tmp_path / "evidence").find("d1", "l9", 7) is None


def test_a_file_that_gives_itself_out_for_another_documents_is_not_believed(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path)
    cache.write(DOCUMENT, TEXT, HERE)
    (path,) = tmp_path.iterdir()
    other = replace(DOCUMENT, doc_id="d2")
    EvidenceCache(tmp_path).write(other, TEXT, HERE)
    (place,) = set(tmp_path.iterdir()) - {path}
    place.write_bytes(path.read_bytes())
    assert EvidenceCache(tmp_path).find("d2", "l9", 7) is None


def test_problems_of_what_is_put_together_are_kept(tmp_path: Path) -> None:
    cache = EvidenceCache(tmp_path)
    cache.write(DocumentEvidence("d1", TOKENS, (FIRES,), "its max differs"), TEXT, HERE)
    cache.write(replace(DOCUMENT, features=(SILENT,)), TEXT, HERE)
    found = cache.find("d1", "l9", 3)
    assert found is not None and found.problem == "its max differs"
