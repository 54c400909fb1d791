"""Small corpora for the tests of reading them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.read import DocumentRows, read_rows
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.slices import slices
from ray_jobs.spec import CorpusSpec


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def written(path: Path, data: str | bytes | pa.Table) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, pa.Table):
        pq.write_table(data, path)
    else:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def spec(path: Any, **keys: Any) -> CorpusSpec:
    return CorpusSpec(path=path, **keys)


def documents(corpus: CorpusSpec) -> DocumentRows:
    scanned = scan(corpus)
    rows = read_rows(slices(scanned, 0, scanned.rows), corpus, scanned.keep_types)
    assert len(rows.doc_id) == len(rows.text) == len(rows.error) == scanned.rows
    assert all((text is None) == (error is not None) for text, error in zip(rows.text, rows.error, strict=True))
    return rows


def errors_of(corpus: CorpusSpec) -> list[str | None]:
    return documents(corpus).error


def encoded(rows: list[tuple[str, str, float | None]], file_format: str, row_group: int) -> bytes:
    columns = {
        "id": [f"doc {i}" for i in range(len(rows))],
        "text": [row[0] for row in rows],
        "label": [row[1] for row in rows],
        "score": [row[2] for row in rows],
    }
    if file_format == "parquet":
        sink = io.BytesIO()
        score = pa.array(columns["score"], pa.float64())
        pq.write_table(pa.table({**columns, "score": score}), sink, row_group_size=row_group)
        return sink.getvalue()
    if file_format == "jsonl":
        lines = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return "".join(json.dumps(line, ensure_ascii=row_group % 2 == 0) + "\n" for line in lines).encode()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n" if row_group % 2 else "\n")
    writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return text.getvalue().encode()
