"""What docs/python.md says one can do from Python can be done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from docs.tooling.blocks import blocks_of
from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema
from featurestore.writing.writer import create_store, finish_store, write_part
from tests.featurestore.stores import plan_of, random_rows

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"reviews.jsonl:{i}" for i in range(20)]
    for store, sae, layer in (("reviews-gemma-2-2b", "l12_16k", 12), ("reviews-gemma-2-9b", "l20_16k", 20)):
        dense = (DenseColumn(f"resid_post_{layer}__hidden_mean", 3),)
        schema = StoreSchema((("lang", "string"),), (SaeColumns(sae, 16_384, ("max", "sum", "count")),), dense)
        plan, root = plan_of([20], schema), str(tmp_path / store)
        rows = replace(random_rows(schema, 20), doc_id=ids, keep={"lang": ["de", "en"] * 10})
        create_store(root, plan)
        finish_store(root, [write_part(root, plan, 0, rows)])
    pl.DataFrame({"id": ids[:15], "topic": ["a", "b", "c"] * 5}).write_csv(tmp_path / "labels.csv")
    monkeypatch.chdir(tmp_path)
    (code,) = (block.code for block in blocks_of(PAGE) if block.reason.startswith("run by"))
    names: dict = {}
    exec(code, names)
    assert names["X"].shape == (20, 2 * 16_384) and names["hidden"].shape == (20, 3)
    assert names["both"].doc_id.tolist() == ids and names["doc_id"].tolist() == ["reviews.jsonl:17"]
    assert names["report"].missing.tolist() == ids[15:] and names["seen"].classes == ("a", "b", "c")
