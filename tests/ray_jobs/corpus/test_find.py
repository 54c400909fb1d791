"""Single rows of a corpus, found again in every format without a scan, and refused where they have changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import CorpusError
from ray_jobs.corpus.find import find_texts
from ray_jobs.corpus.scan import scan
from ray_jobs.spec import CorpusSpec
from tests.ray_jobs.corpora import jsonl, spec, zstd

N = 40
ROWS = [{"id": f"d{i}", "text": f'text {i}, with "quotes"\nand ümläuts'} for i in range(N)]


def as_csv(delimiter: str) -> bytes:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["id", "text"], *([row["id"], row["text"]] for row in ROWS)])
    return text.getvalue().encode()


def as_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


FORMATS: dict[str, Callable[[], bytes]] = {
    "c.jsonl": lambda: jsonl(*ROWS).encode(),
    "array.jsonl": lambda: json.dumps(ROWS, indent=1).encode(),
    "c.jsonl.gz": lambda: gzip.compress(jsonl(*ROWS).encode()),
    "c.jsonl.zst": lambda: zstd(jsonl(*ROWS).encode()),
    "c.csv": lambda: as_csv(","),
    "semicolons.csv": lambda: as_csv(";"),
    "c.parquet": as_parquet,
}


def scanned(corpus: CorpusSpec) -> list[dict[str, Any]]:
    """The files as a store's identity has them."""
    return [{"name": f.name, "size": f.size, "sha256": f.sha256, "rows": f.rows} for f in scan(corpus).files]


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_every_format_are_found_in_the_order_asked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]())
    corpus = spec(str(tmp_path / name), id="id")
    rows = [31, 0, 6, 7, 39, 8]
    found = find_texts(corpus, scanned(corpus), rows, [f"d{row}" for row in rows])
    assert found == [ROWS[row]["text"] for row in rows]


def test_rows_of_several_files_are_found_by_their_global_number(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text(jsonl(*({"text": f"{number} {row}"} for row in range(5))))
    corpus = spec(str(tmp_path / "*.jsonl"))
    files = scanned(corpus)
    (tmp_path / "9.jsonl").write_text(jsonl({"text": "came later"}))
    assert find_texts(corpus, files, [12, 0, 5], ["2.jsonl:2", "0.jsonl:0", "1.jsonl:0"]) == ["2 2", "0 0", "1 0"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), r"no longer has its file c.jsonl"),
        (lambda path: path.write_text(path.read_text() + "\n{}"), r"has changed .* bytes instead of"),
        (
            lambda path: path.write_text(path.read_text().replace('"d3"', '"x3"')),
            "row 3 is no longer the document 'd3'",
        ),
        (lambda path: path.write_text(path.read_text().replace("\n", " ")), "is no longer the document|fewer rows"),
    ],
)
def test_a_corpus_that_has_changed_is_refused(tmp_path: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(jsonl(*({"id": f"d{i}", "text": f"text {i}"} for i in range(6))))
    (tmp_path / "d.jsonl").write_text(jsonl({"id": "other", "text": "other"}))
    corpus = spec(str(tmp_path / "*.jsonl"), id="id")
    files = scanned(corpus)
    spoil(path)
    with pytest.raises(CorpusError, match=sentence):
        find_texts(corpus, files, [3], ["d3"])
