"""Reading a part: each row group once, checked, and never a Python object in the hands of Arrow's threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.checks.verify import verify_store
from featurestore.format import part
from featurestore.format.part import encode_part, open_part, read_group
from featurestore.format.part_file import PartFile
from featurestore.guard import parquet_limits
from featurestore.guard.thrift import CompactReader, put_number
from featurestore.index.lookup import feature_view
from featurestore.reader import FeatureStore
from featurestore.storage.files import filesystem
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store
from tests.interpreter import foreign_visits

OFTEN = 30  # whose thread lets go of a column last is chance, which goes against us once in two or three reads


class Counting:
    """A file that notes what is read of it."""

    def __init__(self, data: bytes) -> None:
        self._file = pa.BufferReader(data)
        self.reads: list[tuple[int, int]] = []

    def size(self) -> int:
        return self._file.size()

    def seek(self, position: int) -> None:
        self._file.seek(position)

    def readinto(self, view: memoryview) -> int:
        self.reads.append((self._file.tell(), len(view)))
        return self._file.readinto(view)


def many_groups(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A part of several row groups."""
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 3_000)
    return bytes(encode_part(plan_of([60]), 0, random_rows(SCHEMA, 60)))


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.matrix("l12_64", "max"),
        lambda store: list(store.batches("l12_64", "sum")),
        lambda store: store.dense("resid_post_9__hidden_mean"),
        lambda store: verify_store(store.uri),
        lambda store: feature_view(store, 3, 5, "l12_64"),
    ],
    ids=["matrix", "batches", "dense", "verify", "feature"],
)
def test_no_thread_of_arrows_lets_go_of_a_python_object(tmp_path: Path, read: Callable) -> None:
    """While the interpreter ends, that would abort the process."""
    write_store(tmp_path, (60, 60))
    store = FeatureStore.open(str(tmp_path))
    with foreign_visits() as visits:
        for _ in range(OFTEN):
            read(store)
    assert (visits.during, visits.late) == (0, 0)


def test_nor_where_the_file_itself_is_read_by_python() -> None:
    """Everything but disks, S3 and Google's storage goes through fsspec, which is Python."""
    uri = "memory://h/store"
    write_store(uri, (60, 60))
    store = FeatureStore.open(uri)
    with foreign_visits() as visits:
        for _ in range(OFTEN):
            store.matrix("l12_64", "max")
    fsspec.filesystem("memory").rm("/h", recursive=True)
    assert (visits.during, visits.late) == (0, 0)


def test_metadata_is_let_go_of_before_it_is_handed_over(tmp_path: Path) -> None:
    """polars asks for rows in a thread of its own; it must have done with Python when `collect` returns."""
    write_store(tmp_path, (60, 60))
    store = FeatureStore.open(str(tmp_path))
    for _ in range(OFTEN):
        with foreign_visits() as visits:
            store.documents().select("doc_id").head(70).collect()
        assert visits.late == 0


@pytest.mark.parametrize("columns", [None, ["doc_id", "l12_64__indices", "l12_64__max"], ["l9_8__sum"], ["error"]])
def test_row_groups_are_those_of_other_readers(monkeypatch: pytest.MonkeyPatch, columns: list[str] | None) -> None:
    data = many_groups(monkeypatch)
    file, theirs = PartFile(pa.BufferReader(data)), pq.ParquetFile(pa.BufferReader(data))
    assert file.num_row_groups == theirs.num_row_groups > 2
    for group in range(file.num_row_groups):
        expected = theirs.read_row_group(group, columns)
        assert file.read_row_group(group, columns).equals(expected)
        assert pa.Table.from_batches(file.iter_batches(4, group, columns)).equals(expected)


@pytest.mark.parametrize("options", [{"use_dictionary": True}, {"use_dictionary": True, "data_page_version": "2.0"}])
def test_dictionaries_of_other_writers_are_found_where_they_lie(tmp_path: Path, options: dict) -> None:
    """Their place is a second number in the footer, which may be that of the first byte of a row group."""
    path, rows = tmp_path / "part", [f"text {i % 7}" for i in range(1_000)]
    table = pa.table({"doc_id": rows, "a.b": range(1_000), "a": [[i] * (i % 3) for i in range(1_000)]})
    pq.write_table(table, path, row_group_size=300, **options)
    with open_part(*filesystem(path)) as file:
        for columns in (None, ["doc_id"], ["a"], ["a.b"]):
            read = pa.Table.from_batches([read_group(file, group, columns) for group in range(4)])
            assert read.equals(table if columns is None else table.select(read.column_names))
            assert columns is None or set(columns) <= set(read.column_names)


def test_columns_that_touch_are_one_request_and_others_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_groups(monkeypatch)
    monkeypatch.setattr("featurestore.format.part_file._TAIL_BYTES", 8)
    source = Counting(data)
    file = PartFile(source)
    chunk = {column["path_in_schema"].partition(".")[0]: column for column in _columns(data, 1)}
    source.reads.clear()
    file.read_row_group(1, ["doc_id", "l12_64__indices", "l12_64__max"])
    sizes = {name: chunk[name]["total_compressed_size"] for name in ("doc_id", "l12_64__indices", "l12_64__max")}
    assert source.reads == [
        (chunk["doc_id"]["data_page_offset"], sizes["doc_id"]),
        (chunk["l12_64__indices"]["data_page_offset"], sizes["l12_64__indices"] + sizes["l12_64__max"]),
    ]


def _columns(data: bytes, group: int) -> list[dict]:
    columns: list[dict] = pq.read_metadata(pa.BufferReader(data)).row_group(group).to_dict()["columns"]
    return columns


def test_a_row_group_takes_no_more_memory_than_it_does_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in the part it lies: its places are counted from its own start."""
    data = many_groups(monkeypatch)
    file = PartFile(pa.BufferReader(data))
    last = file.num_row_groups - 1
    before = pa.total_allocated_bytes()
    held = file.group(last)
    size = sum(column["total_compressed_size"] for column in _columns(data, last))
    assert size <= pa.total_allocated_bytes() - before < len(data) / 2
    assert held.metadata.row_group(last).column(0).data_page_offset == len(parquet_limits.MAGIC)


def test_a_row_group_scattered_over_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take as much memory as lies between its first and its last byte."""
    data = many_groups(monkeypatch)
    size = sum(column["total_compressed_size"] for column in _columns(data, 0))
    monkeypatch.setattr(parquet_limits, "MAX_GROUP_BYTES", size - 1)
    with pytest.raises(ValueError, match=r"row group \d (lies in|claims) [\d,]+ bytes"):
        PartFile(pa.BufferReader(data))


def test_a_file_cut_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_groups(monkeypatch)
    monkeypatch.setattr("featurestore.format.part_file._TAIL_BYTES", 8)
    (tmp_path / "part").write_bytes(data)
    with open_part(*filesystem(tmp_path / "part")) as file:
        (tmp_path / "part").write_bytes(data[:200])
        with pytest.raises(OSError, match="it ends at byte 200 instead of"):
            read_group(file, 0)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_number_is_written_over_a_larger_one_without_moving_anything(one: int, other: int) -> None:
    small, large = sorted((one, other))
    data = bytearray(_struct(large))
    fields = CompactReader(memoryview(bytes(data)), 0).struct()
    put_number(data, fields.places[9], small)
    again = CompactReader(memoryview(data), 0).struct()
    assert (again[9], again[10], len(data)) == (small, 5, len(_struct(large)))


def test_a_number_that_does_not_fit_is_refused() -> None:
    data = bytearray(_struct(3))
    place = CompactReader(memoryview(bytes(data)), 0).struct().places[9]
    with pytest.raises(ValueError, match="a number of another type"):
        put_number(data, place, 2**20)


def test_a_field_that_stands_twice_is_refused() -> None:
    """Arrow would take both structs for one, and read what was never checked."""
    twice = bytes([0x96, 2, 0x06, 18, 4, 0])  # field 9, and field 9 again by its full number
    with pytest.raises(ValueError, match="a field twice"):
        CompactReader(memoryview(twice), 0).struct()


def _struct(number: int) -> bytes:
    """Field 9 with this number, field 10 with a 5."""
    out, bits = bytearray([0x96]), number << 1
    while bits >= 0x80:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*out, bits, 0x16, 10, 0])


def test_the_matrix_of_a_store_of_many_row_groups_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 3_000)
    _, parts = write_store(tmp_path, (60, 60))
    X, _ = FeatureStore.open(str(tmp_path)).matrix("l12_64", "max")
    assert np.array_equal(X.indices, np.concatenate([rows.sparse["l12_64"].indices for rows in parts]))
