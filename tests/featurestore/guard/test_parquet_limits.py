"""Hostile parts: what they promise is refused before it is decoded, in one sentence and in bounded memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.checks.verify import verify_store
from featurestore.errors import StoreError
from featurestore.format import part_file
from featurestore.format.part import READ_ERRORS, encode_part, open_part, read_group
from featurestore.format.part_file import PartFile
from featurestore.format.rows import PartRows, SparseColumn
from featurestore.format.schema import SaeColumns, StoreSchema
from featurestore.format.store_plan import StorePlan, create_store, read_plan
from featurestore.guard import parquet_limits
from featurestore.guard.parquet_limits import ColumnChunk, check_pages
from featurestore.guard.thrift import CompactReader
from featurestore.reader import FeatureStore
from featurestore.storage.files import filesystem
from featurestore.writing.writer import finish_store, write_part
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store

ROOT = Path(__file__).parents[3]
TEXT = StoreSchema((("text", "string"),), (SaeColumns("s", 8, ("max",)),), ())
BOMB_ROWS = 1000


def text_plan(n: int) -> StorePlan:
    return StorePlan(TEXT, {}, {}, [(0, n)], n, {})


def text_rows(texts: list[str], features: int = 0) -> PartRows:
    n = len(texts)
    indptr = np.arange(n + 1, dtype=np.int64) * features
    indices = np.tile(np.arange(features, dtype=np.uint32), n)
    sparse = SparseColumn(indptr, indices, {"max": np.ones(n * features, np.float32)})
    ids = [f"d{i}" for i in range(n)]
    return PartRows(ids, {"text": texts}, np.full(n, 3, np.uint32), np.zeros(n, bool), [None] * n, {"s": sparse}, {})


def hostile(root: Path, n: int, change: dict[str, pa.Array], **options: object) -> Path:
    """A finished store of n documents whose only part was swapped for Parquet with other columns; its path."""
    plan = text_plan(n)
    create_store(str(root), plan)
    finish_store(str(root), [write_part(str(root), plan, 0, text_rows(["x"] * n))])
    path = root / "parts/part-000000.parquet"
    file = pq.ParquetFile(path)
    table, footer = file.read(), {k: v for k, v in file.metadata.metadata.items() if k.startswith(b"sparsemill.")}
    for name, column in change.items():
        field = pa.field(name, column.type, nullable=table.schema.field(name).nullable)
        table = table.set_column(table.schema.get_field_index(name), field, column)
    table = table.replace_schema_metadata(None)
    with pq.ParquetWriter(path, table.schema, store_schema=False, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key.decode(): value.decode() for key, value in footer.items()})
    return path


def dictionary_bomb(root: Path, text_bytes: int = 10_000_000) -> Path:
    """A few kilobytes on disk; decoded, a thousand rows of ten million bytes each."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(BOMB_ROWS, np.int32)), pa.array(["a" * text_bytes]))
    return hostile(root, BOMB_ROWS, {"text": texts}, compression="zstd", dictionary_pagesize_limit=1 << 30)


def problems_of(root: Path) -> str:
    return "\n".join(verify_store(str(root)).problems)


def test_a_dictionary_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = dictionary_bomb(tmp_path)
    assert path.stat().st_size < 100_000
    assert "a dictionary unpacks to as much as 10,000,000,000 bytes" in problems_of(tmp_path)


def test_a_bomb_costs_no_memory_and_no_traceback(tmp_path: Path) -> None:
    dictionary_bomb(tmp_path)
    code = (
        "import sys, sparsemill\n"
        "code = sparsemill.main(['verify', sys.argv[1]])\n"
        # of this program alone: rusage also counts what the process was before it became this program
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(code, peak.split()[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    exit_code, kilobytes = done.stdout.splitlines()[-1].split()
    assert exit_code == "1" and done.stderr == ""
    assert int(kilobytes) < 600_000  # 200,000 of them are Python with Arrow and polars


def test_a_page_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile(tmp_path, 2, {"text": pa.array(["a" * 3_000_000, "b"])}, compression="zstd", use_dictionary=False)
    assert "cannot be read" not in problems_of(tmp_path)
    monkeypatch.setattr(parquet_limits, "MAX_GROUP_BYTES", 1 << 20)
    assert "row group 0 claims 3," in problems_of(tmp_path)
    with pytest.raises(StoreError, match="1,048,576 are the limit"):
        FeatureStore.open(str(tmp_path)).matrix("s")


def test_a_run_of_a_million_entries_in_a_few_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = pa.list_(pa.field("element", pa.uint32(), nullable=False))
    lists = pa.ListArray.from_arrays(
        pa.array([0, 5_000_000], pa.int32()), pa.array(np.zeros(5_000_000, np.uint32)), item
    )
    path = hostile(tmp_path, 1, {"s__indices": lists}, compression="zstd")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet_limits, "MAX_GROUP_BYTES", 10 << 20)
    assert "row group 0 claims 20," in problems_of(tmp_path)


def test_a_page_that_promises_more_than_the_footer_is_refused() -> None:
    data = pages_of([1.0] * 100)
    check_pages(memoryview(data), ColumnChunk("x", 0, len(data), 100, False, "zstd"))
    with pytest.raises(ValueError, match="its pages hold 100 values and the footer says 99"):
        check_pages(memoryview(data), ColumnChunk("x", 0, len(data), 99, False, "zstd"))
    with pytest.raises(ValueError, match=r"x: a page|a header is cut off"):
        check_pages(memoryview(data), ColumnChunk("x", 0, len(data), 101, False, "zstd"))


def pages_of(values: list[float]) -> bytes:
    """The bytes of a column chunk."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": pa.array(values, pa.float32())}), sink, compression="zstd", use_dictionary=False)
    column = pq.read_metadata(io.BytesIO(sink.getvalue())).row_group(0).column(0)
    return sink.getvalue()[column.data_page_offset :][: column.total_compressed_size]


@pytest.mark.parametrize("field", [1, 2, 3])
@given(number=st.integers(-(2**63), 2**63 - 1))
@example(number=2**31 - 1)
@example(number=-1)
@settings(max_examples=60)
def test_a_forged_page_header_is_refused_or_true(field: int, number: int) -> None:
    """Type, unpacked size and packed size of the first page, replaced by any number."""
    data = pages_of([1.0] * 100)
    forged = forge(data, field, number)
    honest = number == header_numbers(data)[field - 1]
    chunk = ColumnChunk("x", 0, len(forged), 100, False, "zstd")
    try:
        check_pages(memoryview(forged), chunk)
    except ValueError as exc:
        assert not honest and "\n" not in str(exc)
    else:
        assert honest or (field == 2 and 0 <= number <= parquet_limits.MAX_GROUP_BYTES) or (field == 3 and number >= 0)


def header_numbers(data: bytes) -> list[int]:
    reader = CompactReader(memoryview(data), 0)
    numbers, number = [], 0
    for _ in range(3):
        number, _kind = reader.field(number)
        numbers.append(reader.zigzag())
    return numbers


def forge(data: bytes, field: int, number: int) -> bytes:
    reader = CompactReader(memoryview(data), 0)
    out, before = bytearray(), 0
    for i in range(1, 4):
        before, kind = reader.field(before)
        old = reader.zigzag()
        value = number if i == field else old
        out += bytes([1 << 4 | (6 if i == field else kind)])
        unsigned = (value << 1) ^ (value >> 63)
        unsigned &= 2**64 - 1
        while unsigned >= 0x80:
            out.append(unsigned & 0x7F | 0x80)
            unsigned >>= 7
        out.append(unsigned)
    return bytes(out) + data[reader.position :]


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_refused_in_one_sentence(data: bytes) -> None:
    for text in (False, True):
        with pytest.raises(ValueError, match=r"^[^\n]*$"):
            check_pages(memoryview(data), ColumnChunk("x", 0, len(data), 2**40, text, "zstd"))
    with pytest.raises((ValueError, OSError)):
        PartFile(pa.BufferReader(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1"))


@pytest.mark.parametrize("claim", [0, 5, 2**20, 2**31, 2**32 - 1])
def test_a_footer_that_claims_another_length_is_refused(tmp_path: Path, claim: int) -> None:
    data = bytes(encode_part(plan_of([9]), 0, random_rows(SCHEMA, 9)))
    (tmp_path / "part").write_bytes(data[:-8] + claim.to_bytes(4, "little") + b"PAR1")
    with pytest.raises(READ_ERRORS), open_part(*filesystem(tmp_path / "part")):
        pass


def test_a_schema_nested_beyond_reason_is_refused_before_arrow_sees_it(tmp_path: Path) -> None:
    deep: pa.Array = pa.array([1] * 2)
    for _ in range(60):
        deep = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), deep)
    hostile(tmp_path, 2, {"text": deep})
    assert "its schema is nested more than 8 deep" in problems_of(tmp_path)


def test_text_coded_by_prefixes_is_refused(tmp_path: Path) -> None:
    hostile(tmp_path, 2, {}, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    assert "text must not be coded by prefixes" in problems_of(tmp_path)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "snappy"}, {"data_page_version": "2.0"}, {"compression": "none"}]
)
def test_the_usual_encodings_of_other_writers_pass(tmp_path: Path, options: dict) -> None:
    hostile(tmp_path, 3, {"text": pa.array(["a", None, "größe"])}, **options)
    assert problems_of(tmp_path).count("\n") == 0  # only that the manifest vouches for other bytes
    assert "manifest.json" in problems_of(tmp_path)


@pytest.mark.parametrize("whole", [True, False], ids=["row group", "batches"])
def test_every_read_goes_through_the_guard(whole: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Were Arrow to read column chunks in pieces some day, nothing would be checked, and this would notice."""
    write_store(tmp_path)
    checked: list[str] = []
    monkeypatch.setattr(part_file, "check_pages", lambda data, chunk: checked.append(chunk.where))
    with open_part(*filesystem(tmp_path / "parts/part-000000.parquet")) as file:
        columns = [file.metadata.row_group(0).column(i).path_in_schema for i in range(file.metadata.num_columns)]
        checked.clear()
        read_group(file, 0) if whole else list(file.iter_batches(3, 0))
    assert set(checked) == {f"row group 0, column '{column}'" for column in columns}


def test_the_writer_refuses_a_row_that_readers_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurestore.format import part

    monkeypatch.setattr(part, "MAX_GROUP_BYTES", 50)
    create_store(str(tmp_path), text_plan(2))
    with pytest.raises(StoreError, match="row 1 takes 61 bytes; a row may take 50, so keep less"):
        write_part(str(tmp_path), text_plan(2), 0, text_rows(["a", "b" * 60]))


@pytest.mark.parametrize("name", ["store.json", "manifest.json"])
@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "nul", "[]", "7", '"x"', ""])
def test_json_that_is_hostile_is_an_error_in_one_sentence(tmp_path: Path, name: str, text: str) -> None:
    write_store(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(StoreError, match=r"^[^\n]*(damaged|belongs to another job)[^\n]*$"):
        FeatureStore.open(str(tmp_path))
    if name == "manifest.json":
        assert any("manifest.json: is damaged" in problem for problem in verify_store(str(tmp_path)).problems)


def test_identity_nested_beyond_reason_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    write_store(tmp_path)
    text = (tmp_path / "store.json").read_text()
    (tmp_path / "store.json").write_text(
        text.replace('"identity": {', '"identity": {"x": ' + "[" * 900 + "]" * 900 + ",")
    )
    with pytest.raises(StoreError, match=r"^[^\n]*$"):
        read_plan(str(tmp_path))


@pytest.mark.parametrize("name", ["store.json", "parts/part-000001.parquet"])
def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path, name: str) -> None:
    write_store(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    if name == "store.json":
        with pytest.raises(StoreError, match="no regular file"):
            FeatureStore.open(str(tmp_path))
    else:
        assert "parts/part-000001.parquet: cannot be read as a part" in problems_of(tmp_path)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/passwd", "s/../../x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """SAE names become file names of indexes; a stranger's store.json must not choose where they lie."""
    write_store(tmp_path)
    text = (tmp_path / "store.json").read_text()
    (tmp_path / "store.json").write_text(text.replace('"l12_64"', f'"{name}"'))
    with pytest.raises(StoreError, match=r"store\.json is damaged or not a store's \(SAE name"):
        FeatureStore.open(str(tmp_path))


@pytest.mark.slow
def test_a_real_bomb_stays_within_the_address_space_of_a_small_machine(tmp_path: Path) -> None:
    """1.2 GB of zeros in a page of some kilobytes, opened by a process that may have 4 GiB of addresses."""
    path = hostile(tmp_path, 1, {"text": pa.array(["\0" * 1_200_000_000])}, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 200_000
    code = (
        "import resource, sys, sparsemill, pyarrow, polars, scipy.sparse\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "sys.exit(sparsemill.main(['verify', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "" and "row group 0 claims 1,2" in done.stdout
