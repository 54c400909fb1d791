"""Stores of other format versions: the first one is read for ever, an unknown one is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore.checks.verify import verify_store
from featurestore.errors import StoreError
from featurestore.reader import FeatureStore
from tests.featurestore.stores import POOLS, edit_json, write_store

# Written by the first version of the writer (counts delta-packed): two parts of 6 and 4 documents, and what they hold.
FIRST = Path(__file__).parent / "store-version-1"


def test_a_store_of_the_first_writer_is_read_and_verifies() -> None:
    assert verify_store(str(FIRST)).problems == ()
    store = FeatureStore.open(str(FIRST))
    expected = json.loads((FIRST / "expected.json").read_text(encoding="utf-8"))
    assert store.documents().collect().to_dicts() == expected["documents"]
    for pool in POOLS:
        X = store.matrix("l12_64", pool).X
        rows = [dict(zip(map(str, row.indices.tolist()), row.data.tolist(), strict=True)) for row in X]
        assert rows == expected["l12_64"][pool]


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version_of_a_store_is_refused_by_name(tmp_path: Path, version: object) -> None:
    shutil.copytree(FIRST, tmp_path / "store")
    edit_json(tmp_path / "store/store.json", format_version=version)
    with pytest.raises(StoreError, match=f"has store format version {version}; this sparsemill reads only 1"):
        FeatureStore.open(str(tmp_path / "store"))
    with pytest.raises(StoreError, match=f"format version {version}"):
        verify_store(str(tmp_path / "store"))


def test_an_unknown_version_of_a_manifest_is_found(tmp_path: Path) -> None:
    write_store(tmp_path)
    edit_json(tmp_path / "manifest.json", format_version=2)
    assert verify_store(str(tmp_path)).problems == ("manifest.json: has format version 2, not 1",)


def test_an_unknown_version_of_a_part_is_refused_by_name(tmp_path: Path) -> None:
    write_store(tmp_path)
    path = tmp_path / "parts/part-000001.parquet"
    file = pq.ParquetFile(path)
    footer = {key: value for key, value in file.metadata.metadata.items() if key.startswith(b"sparsemill.")}
    pq.write_table(file.read().replace_schema_metadata({**footer, b"sparsemill.format_version": b"7"}), path)
    assert any("has format version 7, not 1" in problem for problem in verify_store(str(tmp_path)).problems)
    with pytest.raises(StoreError, match="part 1 has format version 7, not 1"):
        FeatureStore.open(str(tmp_path)).matrix("l12_64")
