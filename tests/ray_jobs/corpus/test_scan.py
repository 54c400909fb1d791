"""The pass over a corpus before a run: what it finds out, and what it refuses in one sentence."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import CorpusError
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.scanned import UnkeptValues
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
    monkeypatch.setattr("ray_jobs.corpus.unique_ids.hash", lambda _: 1, raising=False)
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
        ([2**53 + 1, 1.0], "int64", [2**53 + 1, 1]),
        ([2**53, 1.0], "float64", [2.0**53, 1.0]),
        ([2**53 + 1, 1.0, 0.5], "string", [str(2**53 + 1), "1", "0.5"]),
        ([2**53 + 1, 1e300], "string", [str(2**53 + 1), str(int(1e300))]),
        ([2**53 + 1, math.nan], "int64", [2**53 + 1, None]),
        ([True, math.nan], "bool", [True, None]),
        (["a", math.nan, 2.0], "string", ["a", None, "2"]),
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


whole_numbers = st.integers(-5, 5) | st.integers(2**53 - 1, 2**53 + 2) | st.sampled_from([-(2**63), 2**63 - 1, 2**63])
shards = st.lists(
    st.tuples(
        st.sampled_from(["jsonl", "csv", "int64", "uint64", "double", "float"]),
        st.lists(st.none() | whole_numbers | st.sampled_from([0.5, -1.0, 1e18, 1e300, 7.0]), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150)
@given(shards)
def test_no_digit_of_a_number_is_lost_whatever_it_stands_beside(shards: list[tuple[str, list[Any]]]) -> None:
    given: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (kind, values) in enumerate(shards):
            if kind in ("int64", "uint64"):
                least, most = (0, 2**64) if kind == "uint64" else (-(2**63), 2**63)
                values = [value if isinstance(value, int) and least <= value < most else None for value in values]
            elif kind in ("double", "float"):
                narrow = np.float32 if kind == "float" else np.float64
                with np.errstate(over="ignore"):
                    values = [None if value is None else float(narrow(value)) for value in values]
            given += values
            if kind == "jsonl":
                written(Path(folder, f"{i}.jsonl"), jsonl(*({"text": "t", "x": value} for value in values)))
            elif kind == "csv":
                rows = "".join(f"t,{'' if value is None else value}\n" for value in values)
                written(Path(folder, f"{i}.csv"), f"text,x\n{rows}")
            else:
                column = pa.array(values, getattr(pa, {"double": "float64", "float": "float32"}.get(kind, kind))())
                written(Path(folder, f"{i}.parquet"), pa.table({"text": ["t"] * len(values), "x": column}))
        corpus = spec(f"{folder}/*", keep="x")
        kept_type = scan(corpus).keep_types["x"]
        kept = documents(corpus).keep["x"]
    assert [value is None for value in kept] == [value is None for value in given]
    numbers = [(value, stored) for value, stored in zip(given, kept, strict=True) if value is not None]
    for value, stored in numbers:  # Python compares a whole number with a float exactly
        assert (stored if kept_type != "string" else type(value)(stored)) == value
    is_long = any(isinstance(value, int) and abs(value) > 2**53 for value, _ in numbers)
    fits_int64 = all(value == inf or (value == int(value) and -(2**63) <= value < 2**63) for value, _ in numbers)
    assert kept_type == "string" or not is_long or (kept_type == "int64" and fits_int64)
    assert kept_type != "string" or not numbers or (is_long and not (fits_int64 and inf not in given))


def test_int64_beside_float64_in_parquet_looks_at_the_values(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", pa.table({"text": ["a", "b"], "user": [2**53 + 1, 7]}))
    written(tmp_path / "b.parquet", pa.table({"text": ["c", "d"], "user": [1.0, None]}))
    corpus = spec(str(tmp_path), keep="user")
    assert scan(corpus).keep_types == {"user": "int64"}
    assert documents(corpus).keep == {"user": [2**53 + 1, 7, 1, None]}
    written(tmp_path / "c.jsonl", jsonl({"text": "e", "user": 0.5}))
    assert documents(corpus).keep == {"user": [str(2**53 + 1), "7", "1", None, "0.5"]}


def test_small_int64_beside_float64_stays_float64_and_uint64_within_int64_is_int64(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", pa.table({"text": ["a"], "x": [2**53], "y": pa.array([3], pa.uint64())}))
    written(tmp_path / "b.parquet", pa.table({"text": ["c"], "x": [1.0], "y": pa.array([2**63 - 1], pa.uint64())}))
    assert scan(spec(str(tmp_path), keep=("x", "y"))).keep_types == {"x": "float64", "y": "int64"}


def test_numbers_of_parquet_are_read_in_the_pass_only_where_the_type_depends_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr("ray_jobs.corpus.scan.number_kinds", lambda parquet, name: looked.append(name) or {"int"})
    numbers = {"a": [1], "b": [1.5], "c": [1], "d": [1]}
    written(tmp_path / "a.parquet", pa.table({"text": ["t"], **numbers}))
    written(tmp_path / "b.parquet", pa.table({"text": ["t"], **numbers, "d": [2.0], "c": ["x"]}))
    assert scan(spec(str(tmp_path), keep=("a", "b", "c"))).keep_types == {"a": "int64", "b": "float64", "c": "string"}
    assert looked == []
    scan(spec(str(tmp_path), keep=("a", "d")))
    assert looked == ["d", "d"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_values_that_cannot_be_kept_are_counted_and_the_first_is_named(tmp_path: Path, kind: str) -> None:
    if kind == "jsonl":
        rows = [{"text": "t", "img": value, "fine": "a"} for value in ("a", "\udfff", None, ["\ud800"])]
        path, said = written(tmp_path / "a.jsonl", jsonl(*rows)), "the value of 'img' holds a lone surrogate"
    else:
        images = pa.array([b"a", b"\xff\xd8", None, b"\x89PNG"], pa.binary())
        table = pa.table({"text": ["t"] * 4, "img": images, "fine": ["a"] * 4})
        path, said = written(tmp_path / "a.parquet", table), "the value of 'img' is not UTF-8"
    scanned = scan(spec(path, keep=("fine", "img")))
    assert scanned.unkept == (UnkeptValues("img", 2, 4, f"a.{kind} row 1, {said}"),)
    found = documents(spec(path, keep=("fine", "img")))
    assert found.text == ["t"] * 4 and found.keep["img"] == ["a", None, None, None]


def test_of_many_parquet_rows_some_are_looked_at(tmp_path: Path) -> None:
    n = 20_000
    table = pa.table({"text": ["t"] * n, "img": pa.array([b"\xff"] * n, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    (unkept,) = scan(spec(str(tmp_path), keep="img")).unkept
    assert (unkept.count, unkept.looked_at) == (4096, 4096)


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
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
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
    path = written(tmp_path / "a.jsonl", json.dumps({"text": "an object", "over": "several lines"}, indent=1))
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
    assert scanned.sample_times == (1.5,)
    assert scanned.mean_text_bytes == 300_000


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_of_a_long_conversation_that_is_sampled_every_turn_is_cut(tmp_path: Path, kind: str) -> None:
    chat = [{"role": "user", "content": 'a "b"' * 60_000}, {"role": "assistant", "content": "c" * 200_000}]
    silent = [{"role": "user", "content": ""}] * 4_000
    table = pa.table({"chat": [chat, chat[:1], [{"role": "user", "content": "short"}], silent]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        written(path, jsonl(*table.to_pylist()))
    scanned = scan(spec(str(path), text="chat", messages="chat"))
    turns, one, short, still = (json.loads(text) for text in scanned.sample)
    assert [(turn["role"], len(turn["content"])) for turn in turns] == [("user", 60_000), ("assistant", 40_000)]
    assert [len(turn["content"]) for turn in one] == [100_000]
    assert short[0]["content"] == "short"
    assert still == silent
    assert scanned.sample_times == (5, 3, 1, 1)
