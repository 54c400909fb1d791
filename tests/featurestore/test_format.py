"""FORMAT.md keeps its word: its reader reads our stores, its example is what we write, and polars sees real values."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from featurestore.format.rows import PartRows, SparseColumn
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.reader import FeatureStore
from featurestore.writing.writer import StorePlan, create_store, finish_store, write_part
from tests.featurestore.stores import POOLS, write_store

PAGE = (Path(__file__).parents[2] / "featurestore" / "FORMAT.md").read_text(encoding="utf-8")


def test_the_reader_on_the_page_reads_what_we_write(tmp_path: Path) -> None:
    write_store(tmp_path, (7, 5, 9))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len([line for line in code.splitlines() if line.strip() and "import" not in line]) <= 10
    page: dict = {}
    exec(code, page)
    store = FeatureStore.open(str(tmp_path))
    for pool in POOLS:
        theirs, ours = page["read"](str(tmp_path), "l12_64", pool), store.matrix("l12_64", pool).X
        assert theirs.shape == ours.shape and (theirs != ours).nnz == 0


def test_polars_reads_the_same_values_without_us(tmp_path: Path) -> None:
    _, parts = write_store(tmp_path, (7, 5, 9))
    frame = pl.read_parquet(tmp_path / "parts" / "*.parquet")
    X, doc_id = FeatureStore.open(str(tmp_path)).matrix("l12_64", "max")
    assert frame["doc_id"].to_list() == doc_id.tolist()
    for row, (indices, values) in enumerate(zip(frame["l12_64__indices"], frame["l12_64__max"], strict=True)):
        assert indices.to_list() == X[row].indices.tolist()
        assert values.to_list() == X[row].data.tolist()
    dense = np.concatenate([rows.dense["resid_post_9__hidden_mean"] for rows in parts])
    for row, vector in enumerate(frame["resid_post_9__hidden_mean"]):
        assert vector is None or vector.to_list() == dense[row].tolist()
    empty = np.concatenate([rows.n_tokens for rows in parts]) == 0
    assert frame["resid_post_9__hidden_mean"].is_null().to_list() == empty.tolist()


def example(name: str) -> str:
    (text,) = re.findall(rf"<!-- example: {name} -->\n```json\n(.*?)```", PAGE, re.S)
    return text


def example_plan() -> StorePlan:
    schema = StoreSchema(
        keep=(("label", "string"),),
        saes=(SaeColumns("l9_8", 8, ("max", "count")),),
        dense=(DenseColumn("resid_post_9__hidden_mean", 2),),
    )
    return StorePlan(schema, {"model": "demo"}, {}, [(0, 2), (2, 3)], 3, {})


def test_the_fingerprint_on_the_page_is_that_of_the_example() -> None:
    fingerprint = hashlib.sha256(example("canonical").strip().encode()).hexdigest()
    assert fingerprint == example_plan().fingerprint
    assert f"`{fingerprint}`" in PAGE


def test_the_example_on_the_page_is_what_we_write(tmp_path: Path) -> None:
    plan = example_plan()
    none = {"max": np.float32([]), "count": np.uint32([])}
    first = PartRows(
        doc_id=["a.jsonl:0", "a.jsonl:1"],
        keep={"label": ["spam", None]},
        n_tokens=np.uint32([3, 0]),
        truncated=np.array([False, False]),
        error=[None, "the line is not valid JSON"],
        sparse={
            "l9_8": SparseColumn(
                np.int64([0, 2, 2]), np.uint32([1, 5]), {"max": np.float32([2.5, 0.3]), "count": np.uint32([2, 1])}
            )
        },
        dense={"resid_post_9__hidden_mean": np.float32([[0.1, -4], [0, 0]])},
    )
    second = PartRows(
        doc_id=["a.jsonl:2"],
        keep={"label": ["ham"]},
        n_tokens=np.uint32([0]),
        truncated=np.array([False]),
        error=[None],
        sparse={"l9_8": SparseColumn(np.int64([0, 0]), np.uint32([]), none)},
        dense={"resid_post_9__hidden_mean": np.float32([[0, 0]])},
    )
    create_store(str(tmp_path), plan)
    finish_store(
        str(tmp_path), [write_part(str(tmp_path), plan, unit, rows) for unit, rows in enumerate((first, second))]
    )
    written = [row for path in sorted((tmp_path / "parts").iterdir()) for row in pq.read_table(path).to_pylist()]
    expected = json.loads(example("rows"))
    expected[0]["resid_post_9__hidden_mean"][0] = float(np.float32(0.1))  # dense float32 values are not rounded further
    assert written == expected
