"""Any Parquet reader sees the same values: pyarrow, polars, DuckDB and datasets, none of them told anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.dataset
import pytest

from featurestore.format import part
from featurestore.reader import FeatureStore
from tests.featurestore.stores import POOLS, write_store

COLUMNS = ["doc_id", "label", "n_tokens", "error", "l12_64__indices", *(f"l12_64__{pool}" for pool in POOLS)]
DENSE = "resid_post_9__hidden_mean"
Rows = list[dict[str, Any]]


def by_pyarrow(folder: Path, scratch: Path) -> Rows:
    return pyarrow.dataset.dataset(folder).to_table(columns=[*COLUMNS, DENSE]).to_pylist()


def by_polars(folder: Path, scratch: Path) -> Rows:
    frame = pl.scan_parquet(folder / "*.parquet").select(*COLUMNS, DENSE).collect()
    return [{k: v.to_list() if isinstance(v, pl.Series) else v for k, v in row.items()} for row in frame.to_dicts()]


def by_duckdb(folder: Path, scratch: Path) -> Rows:
    with duckdb.connect() as connection:
        names = ", ".join(f'"{name}"' for name in [*COLUMNS, DENSE])
        found = connection.execute(
            f"SELECT {names} FROM read_parquet('{folder}/*.parquet') ORDER BY filename, file_row_number"
        )
        return [dict(zip([*COLUMNS, DENSE], row, strict=True)) for row in found.fetchall()]


def by_datasets(folder: Path, scratch: Path) -> Rows:
    """In a process of its own: where it caches and that it stays offline is read when it is imported."""
    code = f"""
import datasets, json
data = datasets.load_dataset("parquet", data_files={str(folder)!r} + "/*.parquet", split="train")
print(json.dumps(list(data.select_columns({[*COLUMNS, DENSE]!r}))))
"""
    environment = {**os.environ, "HF_HOME": str(scratch), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    rows: Rows = json.loads(done.stdout)
    return rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root: Path = tmp_path_factory.mktemp("readers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "ROW_GROUP_BYTES", 2000)
        write_store(root, (20, 11, 20))
    return FeatureStore.open(str(root))


@pytest.mark.parametrize("read", [by_pyarrow, by_polars, by_duckdb, by_datasets])
def test_another_reader_sees_the_same_values(
    store: FeatureStore, tmp_path: Path, read: Callable[[Path, Path], Rows]
) -> None:
    rows = read(Path(store.uri) / "parts", tmp_path)
    documents = store.documents().collect()
    for name in ("doc_id", "label", "n_tokens", "error"):
        assert [row[name] for row in rows] == documents[name].to_list()
    for pool in POOLS:
        dense = np.zeros((len(rows), 64), dtype=np.float32)
        for i, row in enumerate(rows):
            dense[i, row["l12_64__indices"]] = row[f"l12_64__{pool}"]
        assert np.array_equal(dense, store.matrix("l12_64", pool).X.toarray())
    vectors = store.dense(DENSE)
    for row, vector in zip(rows, vectors, strict=True):
        assert row[DENSE] is None if np.isnan(vector[0]) else np.array_equal(np.float32(row[DENSE]), vector)
