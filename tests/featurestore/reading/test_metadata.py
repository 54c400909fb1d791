"""Metadata as a lazy frame: what was written, only the columns asked for, and nothing that a part merely claims."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from featurestore.errors import StoreError
from featurestore.format import part
from featurestore.reader import FeatureStore
from tests.featurestore.guard.test_parquet_limits import ROOT, dictionary_bomb, hostile
from tests.featurestore.stores import write_store

QUERIES: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "all": lambda frame: frame,
    "one column": lambda frame: frame.select("label"),
    "other order": lambda frame: frame.select("error", "doc_id"),
    "length": lambda frame: frame.select(pl.len()),
    "filter": lambda frame: frame.filter(pl.col("score") > 1).select("doc_id"),
    "head": lambda frame: frame.head(8),
    "filter, then head": lambda frame: frame.filter(pl.col("group") < -2).head(3),
    "head, then filter": lambda frame: frame.head(9).filter(pl.col("group") < -2),
    "slice": lambda frame: frame.slice(6, 7),
    "tail": lambda frame: frame.tail(4),
    "numbers alone": lambda frame: frame.with_row_index("row").filter(pl.lit(True)).select("row"),
    "numbered": lambda frame: frame.with_row_index("row").filter(pl.col("flag")).select("row"),
    "grouped": lambda frame: frame.group_by("label", maintain_order=True).agg(pl.col("n_tokens").sum()),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts of several row groups each."""
    root = tmp_path_factory.mktemp("metadata")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "ROW_GROUP_BYTES", 600)
        write_store(root, (7, 5, 9))
    return root


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("query", QUERIES)
def test_any_query_gives_what_polars_own_reader_gives(root: Path, query: str, engine: str) -> None:
    store = FeatureStore.open(str(root))
    own = pl.scan_parquet(sorted((root / "parts").glob("*.parquet"))).select(store.metadata_columns)
    assert_frame_equal(
        QUERIES[query](store.documents()).collect(engine=engine),  # type: ignore[call-overload]
        QUERIES[query](own).collect(),
    )


def test_only_the_columns_that_count_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.open(str(root))
    read: list[set[str]] = []
    groups = store._parts.groups
    monkeypatch.setattr(store._parts, "groups", lambda columns: (read.append(set(columns)), groups(columns))[1])
    frame = store.documents().filter(pl.col("group") < 0).select("doc_id")
    assert not read
    frame.collect()
    assert read == [{"doc_id", "group"}]


def test_a_frame_can_be_written_without_holding_it(root: Path, tmp_path: Path) -> None:
    documents = FeatureStore.open(str(root)).documents()
    documents.sink_parquet(tmp_path / "documents.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "documents.parquet"), documents.collect())


ASK: dict[str, Callable[[FeatureStore], object]] = {
    "documents": lambda store: store.documents().collect(),
    "rows": lambda store: store.matrix("s", rows=pl.col("text") == "a"),
    "labels": lambda store: store.statistics("s", labels="text"),
    "join": lambda store: store.join(pl.DataFrame({"doc_id": ["d0"], "topic": ["x"]}))[0].documents().collect(),
}


@pytest.mark.parametrize("ask", ASK)
def test_a_bomb_among_the_metadata_is_refused_by_name(tmp_path: Path, ask: str) -> None:
    dictionary_bomb(tmp_path)
    with pytest.raises(StoreError, match=r"part 0 cannot be read .*a dictionary unpacks to as much as 10,000,000,000"):
        ASK[ask](FeatureStore.open(str(tmp_path)))


def test_a_bomb_among_the_metadata_costs_no_memory(tmp_path: Path) -> None:
    dictionary_bomb(tmp_path)
    code = (
        "import sys, sparsemill\n"
        "code = sparsemill.main(['show', sys.argv[1]])\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(code, peak.split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    exit_code, kilobytes = done.stdout.splitlines()[-1].split()
    assert exit_code == "2" and done.stderr.count("\n") == 1 and "a dictionary unpacks" in done.stderr
    assert int(kilobytes) < 600_000  # 200,000 of them are Python with Arrow and polars


def test_text_coded_by_prefixes_is_refused(tmp_path: Path) -> None:
    hostile(tmp_path, 2, {}, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    with pytest.raises(StoreError, match=r"part 0 cannot be read .*must not be coded by prefixes"):
        FeatureStore.open(str(tmp_path)).documents().collect()


def test_a_flipped_byte_in_an_id_is_found_while_reading(tmp_path: Path) -> None:
    write_store(tmp_path, (7, 5))
    path = tmp_path / "parts/part-000001.parquet"
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data[chunk.data_page_offset + chunk.total_compressed_size - 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="part 1 cannot be read"):
        FeatureStore.open(str(tmp_path)).documents().select("doc_id").collect()


def test_a_part_of_another_job_is_named(tmp_path: Path) -> None:
    write_store(tmp_path / "a", (7, 5))
    write_store(tmp_path / "b", (5, 7))
    (tmp_path / "a/parts/part-000000.parquet").write_bytes((tmp_path / "b/parts/part-000001.parquet").read_bytes())
    with pytest.raises(StoreError, match="part 0 carries the fingerprint of another job"):
        FeatureStore.open(str(tmp_path / "a")).documents().collect()
