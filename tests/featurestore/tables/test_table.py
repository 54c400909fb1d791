"""Tables that are joined to documents: read like a corpus, whatever file or library they come from."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.errors import TableError
from featurestore.finding.patterns import escaped
from featurestore.tables.keyed import kept_series, keyed
from featurestore.tables.table import read_table, table_ids
from tests.ray_jobs.corpora import jsonl, written, zstd

ROWS = [{"id": "001", "y": "01"}, {"id": "002", "y": "1"}, {"id": "003", "y": None}]


def encoded(kind: str) -> bytes | pa.Table:
    name, _, compression = kind.partition(".")
    compress = {"": bytes, "gz": gzip.compress, "zst": zstd}[compression]
    if name in ("parquet", "pq"):
        return pa.Table.from_pylist(ROWS)
    if name in ("csv", "tsv"):
        separator = "," if name == "csv" else "\t"
        lines = ["id" + separator + "y", *(f"{row['id']}{separator}{row['y'] or ''}" for row in ROWS)]
        return compress("".join(f"{line}\n" for line in lines).encode())
    return compress(jsonl(*ROWS).encode())


KINDS = [
    "parquet",
    "pq",
    *(f"{name}{end}" for name in ("jsonl", "ndjson", "csv", "tsv") for end in ("", ".gz", ".zst")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_and_compression_of_a_corpus_reads_alike(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / f"labels.{kind}", encoded(kind))
    for table in (read_table(path, ["y"], id="id"), read_table(path)):
        assert table.columns == {"id": ["001", "002", "003"], "y": ["01", "1", None]}
        assert table.from_csv == kind.startswith(("csv", "tsv"))
        assert table_ids(table, "id").text.to_list() == ["001", "002", "003"]
    joined = keyed(path, "id")
    assert joined.ids.to_list() == ["001", "002", "003"]
    assert kept_series("y", joined.columns["y"], []).to_list() == ["01", "1", None]


def test_a_table_may_be_several_files_of_several_formats(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "id,y\n1,x\n")
    written(tmp_path / "b.jsonl", jsonl({"id": 2, "y": "z"}, {"id": 3}))
    written(tmp_path / "c.parquet", pa.table({"y": ["w"], "id": [4.0]}))
    for path in (tmp_path, tmp_path / "*"):
        table = read_table(str(path), ["y"], id="id")
        assert table.columns["y"] == ["x", "z", None, "w"]
        assert not table.from_csv
        assert table_ids(table, "id").text.to_list() == ["1", "2", "3", "4"]


def test_all_columns_are_those_of_all_files_and_of_the_last_json_line(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "id,x\n1,2\n")
    written(tmp_path / "b.jsonl", jsonl(*({"id": i} for i in range(2, 203)), {"id": 203, "late": True}))
    table = read_table(str(tmp_path))
    assert list(table.columns) == ["id", "x", "late"]
    assert {name: len(values) for name, values in table.columns.items()} == {"id": 203, "x": 203, "late": 203}
    assert table.columns["x"][:2] == ["2", None] and table.columns["late"][-2:] == [None, True]


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    written(tmp_path / "labels2.csv", "id,y\n1,wrong\n")
    path = written(tmp_path / "labels[2].csv", "id,y\n1,right\n")
    for asked in (path, escaped(path)):
        table = read_table(asked, ["y"])
        assert (table.name, table.columns) == (path, {"y": ["right"]})


def test_a_table_behind_a_url_reads_like_a_local_one() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/tables-of-test/labels.csv.gz", gzip.compress(b"id,y\n01,a\n"))
    assert read_table("memory://tables-of-test/labels.csv.gz", ["y"], id="id").columns == {"id": ["01"], "y": ["a"]}
    with pytest.raises(
        TableError, match=r"memory://tables-of-test/no\.csv: cannot be read as a table \(.*does not exist"
    ):
        read_table("memory://tables-of-test/no.csv", ["y"])


def test_rows_that_cannot_be_read_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,y\n1,x\n2\n3,z,z\n4,w\n")
    table = read_table(path, ["y"], id="id")
    assert table.columns == {"id": ["1", "4"], "y": ["x", "w"]}
    (note,) = table.notes()
    assert note == f"{path}: 2 rows cannot be read (a.csv row 1, the row has 1 fields where the header has 2)"


def test_ids_that_cannot_be_used_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl({"id": 1}, {"id": None}, {"id": ""}, {"x": 1}, {"id": True}))
    ids = table_ids(read_table(path, [], id="id"), "id")
    assert ids.text.to_list() == ["1", None, None, None, "true"]
    assert (ids.unusable, ids.first_unusable) == (3, "row 1, the id in 'id' is null")


def test_an_id_of_hundreds_of_digits_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl({"id": 10**400}, {"id": -(10**400)}, {"id": 1}))
    ids = table_ids(read_table(path, [], id="id"), "id")
    assert ids.text.to_list() == [str(10**400), str(-(10**400)), "1"] and not ids.unusable


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("no.parquet", None, "there is no such file; check the path"),
        ("no", None, "there is no such file; check the path"),
        (
            "labels.xlsx",
            b"PK",
            r"not a known kind of table; give a file ending in \.parquet, .*\.csv, \.tsv \(also \.gz",
        ),
        ("labels", b"id,y\n", "not a known kind of table"),
        ("*.xlsx", None, r"cannot be read as a table \('.*' matches no file"),
        ("a.parquet", b"PAR0", r"cannot be read as a table \(.*is no whole Parquet file"),
        ("a.csv.gz", b"id,y\n", r"cannot be read as a table \(.*is no whole gzip file"),
        ("a.jsonl", '{"id": 1, "y": 2}\n'.encode("utf-16"), r"cannot be read as a table \(.*is UTF-16"),
        ("a.csv", b"id,label\n1,a\n", r"a\.csv has no column 'y'; it has: id, label"),
        ("a.csv", b"id,y_true\n1,a\n", r"a\.csv has no column 'y'; did you mean 'y_true'\? it has: id, y_true"),
        ("a.csv", b"id,y,y\n1,a,b\n", r"a\.csv has 2 columns named 'y'; rename all but one"),
        ("a.jsonl", b'{"id": 1}\n', r"a\.jsonl has no column 'y'; it has: id"),
        ("a.jsonl", b"no json\n", r"not one row can be read \(a\.jsonl row 0, the line is not JSON"),
        ("a.jsonl", b'{"id": [1], "y": 1}\n', "column 'id' holds lists, not ids; name another"),
        ("a.jsonl", b'{"id": {"a": 1}, "y": 1}\n', "column 'id' holds objects, not ids; name another"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    if data is not None:
        written(tmp_path / name, data)
    with pytest.raises(TableError, match=said) as refusal:
        table_ids(read_table(str(tmp_path / name), ["y"], id="id"), "id")
    assert "\n" not in str(refusal.value) and "corpus" not in str(refusal.value)
