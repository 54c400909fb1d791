"""The pass over a corpus before a run: what it finds out, and what it refuses in one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import CorpusError
from ray_jobs.scan import scan
from tests.ray_jobs.corpora import documents, encoded, jsonl, spec, written, zstd


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_duplicate_ids_are_refused_naming_both_places(tmp_path: Path, kind: str) -> None:
    columns = [("1", "a"), ("2", "b"), ("1", "c")], [("2", "d"), ("5", "e")]
    for name, rows in zip(("x", "y"), columns, strict=True):
        table = pa.table({"id": [row[0] for row in rows], "text": [row[1] for row in rows]})
        if kind == "parquet":
            written(tmp_path / f"{name}.parquet", table)
        elif kind == "jsonl":
            written(tmp_path / f"{name}.jsonl", jsonl(*table.to_pylist()))
        else:
            written(tmp_path / f"{name}.csv", "id,text\n" + "".join(f"{i},{text}\n" for i, text in rows))
    with pytest.raises(CorpusError) as refusal:
        scan(spec(str(tmp_path / f"*.{kind}"), id="id"))
    assert f"'1' in x.{kind}:0 and x.{kind}:2" in str(refusal.value)
    assert f"'2' in x.{kind}:1 and y.{kind}:0" in str(refusal.value)


def test_a_number_and_its_text_are_the_same_id(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl({"text": "t", "id": 1}, {"text": "t", "id": "1"}))
    with pytest.raises(CorpusError, match=r"'1' in a\.jsonl:0 and a\.jsonl:1"):
        scan(spec(path, id="id"))


def test_a_given_id_that_equals_a_derived_one_is_a_duplicate(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl({"text": "t", "id": "a.jsonl:1"}, {"text": "t", "id": None}))
    with pytest.raises(CorpusError, match="ids must be unique"):
        scan(spec(path, id="id"))


def test_ids_that_merely_share_a_hash_are_not_accused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.duplicates.hash", lambda _: 1, raising=False)
    path = written(tmp_path / "a.jsonl", jsonl(*({"text": "t", "id": i} for i in range(10))))
    assert documents(spec(path, id="id")).doc_id == [str(i) for i in range(10)]


@pytest.mark.parametrize(
    ("values", "kept_type", "kept"),
    [
        ([1, None, 2], "int64", [1, None, 2]),
        ([1, 2.5], "float64", [1.0, 2.5]),
        ([True, None], "bool", [True, None]),
        (["a", None], "string", ["a", None]),
        ([None, None], "string", [None, None]),
        ([True, 1], "string", ["true", "1"]),
        ([1, "a", 2.5], "string", ["1", "a", "2.5"]),
        ([2**63 - 1, 1], "int64", [2**63 - 1, 1]),
        ([2**63, 1], "string", [str(2**63), "1"]),
        ([2**53 + 1, 0.5], "string", [str(2**53 + 1), "0.5"]),
        ([{"b": [1, "ü"]}, None], "string", ['{"b": [1, "ü"]}', None]),
    ],
)
def test_a_kept_column_gets_the_narrowest_type_that_loses_nothing(
    tmp_path: Path, values: list[Any], kept_type: str, kept: list[Any]
) -> None:
    # A value in each of several files: the type is the corpus', not the file's.
    for i, value in enumerate(values):
        written(tmp_path / f"{i}.jsonl", jsonl({"text": "t", "x": value}))
    corpus = spec(str(tmp_path / "*.jsonl"), keep=("x",))
    assert scan(corpus).keep_types == {"x": kept_type}
    assert documents(corpus).keep == {"x": kept}


@pytest.mark.parametrize(
    ("fields", "kept_type", "kept"),
    [
        (["1", "", "-2"], "int64", [1, None, -2]),
        (["1", "2.5"], "float64", [1.0, 2.5]),
        (["true", "False"], "bool", [True, False]),
        (["007", "1"], "string", ["007", "1"]),
        (["1.10", "1.1"], "string", ["1.10", "1.1"]),
        (["nan", "1.5"], "string", ["nan", "1.5"]),
        (["1_0", "2"], "string", ["1_0", "2"]),
        (["x", ""], "string", ["x", None]),
    ],
)
def test_csv_fields_become_numbers_only_where_nothing_is_lost(
    tmp_path: Path, fields: list[str], kept_type: str, kept: list[Any]
) -> None:
    corpus = spec(written(tmp_path / "a.csv", "text,x\n" + "".join(f"t,{x}\n" for x in fields)), keep=("x",))
    assert scan(corpus).keep_types == {"x": kept_type}
    assert documents(corpus).keep == {"x": kept}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("keys", "setting", "near"),
    [
        ({"text": "txt"}, "corpus.text", "text"),
        ({"id": "labl"}, "corpus.id", "label"),
        ({"keep": ("label", "texts")}, "corpus.keep", "text"),
    ],
)
def test_a_missing_column_is_refused_with_the_nearest_name(
    tmp_path: Path, kind: str, keys: dict[str, Any], setting: str, near: str
) -> None:
    table = pa.table({"text": ["a"], "label": ["b"]})
    data = {"jsonl": jsonl(*table.to_pylist()), "csv": "text,label\na,b\n", "parquet": table}[kind]
    path = written(tmp_path / f"a.{kind}", data)
    with pytest.raises(CorpusError) as refusal:
        scan(spec(path, **keys))
    assert f"({setting}); did you mean '{near}'? (columns: 'text', 'label')" in str(refusal.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="has 2 columns named 'text'"):
        scan(spec(written(tmp_path / "a.csv", "text,text\na,b\n")))


@pytest.mark.parametrize(
    ("kind", "damage"),
    [(kind, damage) for kind in ("jsonl.gz", "jsonl.zst", "csv.gz", "csv.zst") for damage in ("cut off", "plain")]
    + [("jsonl.gz", "flipped"), ("csv.gz", "flipped")],  # Arrow writes zstd frames without a checksum
)
def test_a_damaged_compressed_file_is_refused_by_name(tmp_path: Path, kind: str, damage: str) -> None:
    rows = [{"text": f"{i * 7919}"} for i in range(20_000)]
    plain = (
        jsonl(*rows).encode() if "jsonl" in kind else b"text\n" + b"".join(b"%d\n" % (i * 7919) for i in range(20_000))
    )
    whole = gzip.compress(plain) if kind.endswith("gz") else zstd(plain)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :]
    data = {"cut off": whole[:middle], "plain": plain, "flipped": flipped}[damage]
    path = written(tmp_path / f"a.{kind}", data)
    with pytest.raises(CorpusError, match=rf"a\.{kind} is no whole (gzip|zstd) file"):
        scan(spec(path))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all, just text", b"PAR1" + b"\xff" * 64 + b"PAR1"])
def test_a_parquet_file_that_is_none_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path / "a.parquet", data)
    with pytest.raises(CorpusError, match=r"a\.parquet is no whole Parquet file"):
        scan(spec(path))


def test_a_parquet_column_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", pa.table({"text": [1], "id": [[1]]}))
    with pytest.raises(CorpusError, match=r"column 'text' \(corpus.text\) holds int64, not text"):
        scan(spec(path))
    path = written(tmp_path / "a.parquet", pa.table({"text": ["a"], "id": [[1]]}))
    with pytest.raises(CorpusError, match=r"column 'id' \(corpus.id\) holds list"):
        scan(spec(path, id="id"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n\n"),
        ("a.csv", b""),
        ("a.csv", b"text,x\n"),
        ("a.jsonl.gz", gzip.compress(b"")),
    ],
)
def test_a_corpus_without_documents_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(CorpusError, match="without a single document"):
        scan(spec(written(tmp_path / name, data)))


def test_an_empty_file_among_others_is_no_trouble(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", b"")
    written(tmp_path / "b.csv", b"")
    written(tmp_path / "c.parquet", pa.table({"text": pa.array([], pa.string())}))
    written(tmp_path / "d.jsonl", jsonl({"text": "t"}))
    assert documents(spec(str(tmp_path))).doc_id == ["d.jsonl:0"]


def test_a_corpus_of_which_no_row_can_be_read_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", json.dumps([{"text": "an array"}, {"text": "is no JSONL"}], indent=1))
    with pytest.raises(CorpusError, match=r"no row .* can be read .*a\.jsonl row 0, .*check corpus\.format"):
        scan(spec(path))


def test_json_lines_in_utf16_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is UTF-16 text; save it as UTF-8"):
        scan(spec(written(tmp_path / "a.jsonl", '{"text": "a"}\n'.encode("utf-16"))))


def test_the_scan_knows_each_files_bytes_by_their_sha256(tmp_path: Path) -> None:
    import hashlib

    contents = {
        "a.jsonl": jsonl({"text": "a"}).encode(),
        "b.jsonl.gz": gzip.compress(jsonl({"text": "b"}).encode()),
        "c.jsonl.zst": zstd(jsonl({"text": "c"}).encode()),
        "d.csv": b"text,x\nd,1\n",
        "e.parquet": encoded([("e", "l", None)], "parquet", 1),
    }
    for name, data in contents.items():
        written(tmp_path / name, data)
    seen: list[tuple[int, int]] = []
    files = scan(spec(str(tmp_path)), progress=lambda done, total: seen.append((done, total))).files
    assert {file.name: file.sha256 for file in files} == {n: hashlib.sha256(d).hexdigest() for n, d in contents.items()}
    assert [file.size for file in files] == [len(data) for data in contents.values()]
    assert seen[-1] == (sum(map(len, contents.values())),) * 2


def test_many_parquet_files_hashed_side_by_side_keep_their_order_and_the_first_bad_one_is_named(tmp_path: Path) -> None:
    import hashlib

    contents = {f"{n:02d}.parquet": encoded([(f"text {n}", "l", None)] * (40 - n), "parquet", 3) for n in range(40)}
    for name, data in contents.items():
        written(tmp_path / name, data)
    seen: list[tuple[int, int]] = []
    found = scan(spec(str(tmp_path)), progress=lambda done, total: seen.append((done, total)))
    assert {file.name: file.sha256 for file in found.files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in contents.items()
    }
    assert [file.rows for file in found.files] == [40 - n for n in range(40)]
    assert sorted(seen) == seen
    assert seen[-1] == (sum(map(len, contents.values())),) * 2
    for bad in (31, 17):
        written(tmp_path / f"{bad:02d}.parquet", b"PAR1")
        with pytest.raises(CorpusError, match=rf"{bad:02d}\.parquet is no whole Parquet file"):
            scan(spec(str(tmp_path)))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_sample_is_spread_evenly_over_the_corpus(tmp_path: Path, kind: str) -> None:
    n = 5000
    table = pa.table({"text": [f"{i:04}" for i in range(n)]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=300)
    else:
        written(path, jsonl(*table.to_pylist()))
    scanned = scan(spec(str(path)))
    numbers = [int(text) for text in scanned.sample]
    assert 250 <= len(numbers) <= 1024
    assert sum(numbers) / len(numbers) == pytest.approx(n / 2, rel=0.15)
    assert scanned.mean_text_bytes == 4


def test_a_sampled_text_is_cut_but_counted_whole(tmp_path: Path) -> None:
    scanned = scan(spec(written(tmp_path / "a.jsonl", jsonl({"text": "ü" * 150_000}))))
    assert len(scanned.sample[0]) == 100_000
    assert scanned.mean_text_bytes == 300_000
