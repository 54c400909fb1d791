"""Reading rows of a corpus: every row of the input is one row of the output, in order."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import tempfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import CorpusError
from featurestore.tables import json_and_csv as text_format
from ray_jobs.corpus.read import read_rows
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.slices import slices
from tests.ray_jobs.corpora import documents, encoded, jsonl, spec, written, zstd

texts = st.text(max_size=40)


table_rows = st.lists(
    st.tuples(
        texts,
        st.sampled_from(["a", "b, c", 'd "e"', "f\ng", "ü"]),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=80)
@given(
    rows=table_rows,
    kind=st.sampled_from(["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst"]),
    row_group=st.integers(1, 7),
    block=st.integers(1, 64),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    n_files=st.integers(1, 3),
)
def test_any_partition_of_any_format_gives_every_row_in_order(
    rows: list[tuple[str, str, float | None]], kind: str, row_group: int, block: int, cuts: list[int], n_files: int
) -> None:
    file_format, _, compression = kind.partition(".")
    compress = {"": bytes, "gz": gzip.compress, "zst": zstd}[compression]
    shares = [rows[len(rows) * i // n_files : len(rows) * (i + 1) // n_files] for i in range(n_files)]
    # Small blocks and marks, so that short texts cross many boundaries.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(text_format, "BLOCK_BYTES", block)
        patch.setattr("ray_jobs.corpus.slices.MARK_ROWS", 3)
        patch.setattr("ray_jobs.corpus.scan.MARK_ROWS", 3)
        for i, share in enumerate(shares):
            written(Path(folder, f"{i}.{kind}"), compress(encoded(share, file_format, row_group)))
        corpus = spec(f"{folder}/*.{kind}", keep=("label", "score"))
        scanned = scan(corpus)
        bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
        parts = [
            read_rows(slices(scanned, start, stop), corpus, scanned.keep_types) for start, stop in pairwise(bounds)
        ]
    assert scanned.rows == len(rows)
    assert [text for part in parts for text in part.text] == [row[0] for row in rows]
    assert [label for part in parts for label in part.keep["label"]] == [row[1] for row in rows]
    assert [score for part in parts for score in part.keep["score"]] == [row[2] for row in rows]
    assert [doc_id for part in parts for doc_id in part.doc_id] == [
        f"{i}.{kind}:{row}" for i, share in enumerate(shares) for row in range(len(share))
    ]
    assert not any(error for part in parts for error in part.error)


@settings(max_examples=60)
@given(
    data=st.lists(st.binary(max_size=12) | st.sampled_from([b'{"text":"a"}', b'"', b"\n", b"\r\n", b","]), max_size=30)
)
@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
def test_arbitrary_bytes_give_rows_or_one_refusal_and_marks_agree_with_a_whole_read(
    file_format: str, data: list[bytes]
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(text_format, "BLOCK_BYTES", 5)
        path = written(Path(folder, f"a.{file_format}"), b"text,x\nfirst,1\n" + b"".join(data))
        corpus = spec(path)
        try:
            whole = documents(corpus)
        except CorpusError:
            return
        patch.setattr("ray_jobs.corpus.slices.MARK_ROWS", 1)
        patch.setattr("ray_jobs.corpus.scan.MARK_ROWS", 1)
        scanned = scan(corpus)
        single = [read_rows(slices(scanned, i, i + 1), corpus, {}) for i in range(scanned.rows)]
    assert [row.text[0] for row in single] == whole.text
    assert [row.error[0] for row in single] == whole.error


def test_two_marks_apart_only_the_bytes_between_are_read(tmp_path: Path) -> None:
    data = jsonl(*({"text": f"number {i}"} for i in range(3000)))
    corpus = spec(written(tmp_path / "a.jsonl", data))
    scanned = scan(corpus)
    (part,) = slices(scanned, 1100, 1500)
    assert part.mark_row == 1024
    assert part.mark_offset == data.index('{"text": "number 1024"}')
    assert part.end_offset == data.index('{"text": "number 1536"}')
    # What lies outside is not looked at: zero it out, and the slice still reads.
    (tmp_path / "a.jsonl").write_bytes(
        b"\0" * part.mark_offset
        + data[part.mark_offset : part.end_offset].encode()
        + b"\0" * (len(data) - part.end_offset)
    )
    assert read_rows([part], corpus, {}).text == [f"number {i}" for i in range(1100, 1500)]


def test_derived_ids_are_the_file_name_and_the_row_and_survive_moving_the_corpus(tmp_path: Path) -> None:
    for place in ("here", "there/deeper"):
        for name in ("x/a.jsonl", "y/b.jsonl"):
            written(tmp_path / place / name, jsonl({"text": "1"}, {"text": "2"}))
    ids = [documents(spec(str(tmp_path / place / "*" / "*.jsonl"))).doc_id for place in ("here", "there/deeper")]
    assert ids[0] == ids[1] == ["x/a.jsonl:0", "x/a.jsonl:1", "y/b.jsonl:0", "y/b.jsonl:1"]


def test_numbers_are_ids_as_their_text(tmp_path: Path) -> None:
    big = 10**30
    path = written(tmp_path / "a.jsonl", jsonl(*({"text": "t", "id": i} for i in (7, "x", 1.5, big))))
    assert documents(spec(path, id="id")).doc_id == ["7", "x", "1.5", str(big)]
    path = written(tmp_path / "b.parquet", pa.table({"text": ["a", "b"], "id": pa.array([1, 2], pa.uint16())}))
    assert documents(spec(path, id="id")).doc_id == ["1", "2"]


def test_whole_numbers_that_pandas_made_floats_beside_a_null_are_ids_as_whole_numbers(tmp_path: Path) -> None:
    for i, ids in enumerate(([1.0, 2.0, None], [3, 4.0, "05"])):
        if i == 0:
            path = written(tmp_path / "a.parquet", pa.table({"text": ["a", "b", "c"], "id": ids}))
        else:
            path = written(tmp_path / "a.jsonl", jsonl(*({"text": "t", "id": id_} for id_ in ids)))
        found = documents(spec(path, id="id"))
        assert found.doc_id == (["1", "2", "a.parquet:2"], ["3", "4", "05"])[i]
        assert found.error == ([None, None, "the id in 'id' is null"], [None] * 3)[i]


def test_an_unusable_id_is_an_error_with_the_derived_id(tmp_path: Path) -> None:
    rows = ({"text": "t", "id": i} for i in (None, "", True, [1], "\ud800", math.nan))
    path = written(tmp_path / "a.jsonl", jsonl({"text": "t"}, *rows, {"text": "t", "id": "fine"}))
    found = documents(spec(path, id="id"))
    assert found.doc_id == [*(f"a.jsonl:{i}" for i in range(7)), "fine"]
    assert found.error == [
        "the row has no id 'id'",
        "the id in 'id' is null",
        "the id in 'id' is empty",
        "the id in 'id' is a truth value",
        "the id in 'id' is a list",
        "the id in 'id' holds a lone surrogate",
        "the id in 'id' is no number",
        None,
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"text": "cut off', "the line is not JSON (Unterminated string starting, column 10)"),
        (b"{'text': 1}", "the line is not JSON (Expecting property name enclosed in double quotes, column 2)"),
        (b"[1, 2]", "the line is a list, not a JSON object"),
        (b'"just text"', "the line is a text, not a JSON object"),
        (b"null", "the line is null, not a JSON object"),
        (b'{"text": "\xff"}', "the line is not UTF-8 (byte 0xff at position 10)"),
        (b'{"text": "\xed\xa0\x80"}', "the line is not UTF-8 (byte 0xed at position 10)"),
        (b'{"text": "\\ud800"}', "the text in 'text' holds a lone surrogate"),
        (b'{"text": null}', "the text in 'text' is null"),
        (b'{"text": 5}', "the text in 'text' is a number"),
        (b'{"text": true}', "the text in 'text' is a truth value"),
        (b'{"text": ["a"]}', "the text in 'text' is a list"),
        (b'{"txet": "a"}', "the row has no text 'text'"),
        (b"[" * 100_000, "the line is nested more than 100 deep"),
        (b'{"text": "a", "x": ' + b"[" * 101 + b"]" * 101 + b"}", "the line is nested more than 100 deep"),
        (b'{"text": "a", "n": ' + b"9" * 10_000 + b"}", "the line holds a number of more digits than can be read"),
    ],
)
def test_a_bad_json_line_is_a_row_with_an_error_and_leaves_its_neighbours_alone(
    tmp_path: Path, line: bytes, error: str
) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    found = documents(spec(path))
    assert found.doc_id == ["a.jsonl:0", "a.jsonl:1", "a.jsonl:2"]
    assert found.text == ["before", None, "after"]
    assert found.error == [None, error, None]


def test_an_empty_text_is_no_error_and_a_text_that_looks_like_a_number_is_text(tmp_path: Path) -> None:
    assert documents(spec(written(tmp_path / "a.jsonl", jsonl({"text": ""}, {"text": "12"})))).text == ["", "12"]
    assert documents(spec(written(tmp_path / "a.csv", "text,x\n,1\n12,2\n"))).text == ["", "12"]


def test_a_line_of_200_000_characters_is_a_document(tmp_path: Path) -> None:
    long = "wörd " * 40_000
    assert documents(spec(written(tmp_path / "a.jsonl", jsonl({"text": long})))).text == [long]
    assert documents(spec(written(tmp_path / "a.csv", f'text,x\n"{long}",1\n'))).text == [long]


def test_a_line_beyond_the_limit_is_an_error_and_is_never_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_format, "MAX_ROW_BYTES", 1 << 20)
    monkeypatch.setattr(text_format, "BLOCK_BYTES", 1 << 16)
    path = written(tmp_path / "a.jsonl", jsonl({"text": "a"}, {"text": "b" * (3 << 20)}, {"text": "c"}))
    assert documents(spec(path)).error == [None, "the line is longer than 1 MiB", None]
    with pytest.raises(CorpusError, match="the row at byte 11 has no end within 1 MiB"):
        scan(spec(written(tmp_path / "a.csv", "text,x\na,1\n" + "b" * (3 << 20))))


def test_many_brackets_inside_a_text_are_no_nesting(tmp_path: Path) -> None:
    text = '[{"' * 1000 + '\\" ['
    assert documents(spec(written(tmp_path / "a.jsonl", jsonl({"text": text})))).text == [text]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '\n  \n{"text": "a"}\r\n\t\n{"text": "b"}')
    assert documents(spec(path)).doc_id == ["a.jsonl:0", "a.jsonl:1"]
    assert documents(spec(written(tmp_path / "a.csv", "\ntext,x\n\na,1\n\r\nb,2\n\n"))).text == ["a", "b"]


def test_a_byte_order_mark_and_crlf_are_no_part_of_the_data(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert documents(spec(path)).text == ["a", "b"]
    path = written(tmp_path / "a.csv", b'\xef\xbb\xbftext,label\r\n"a\r\nb",1\r\nc,2\r\n')
    found = documents(spec(path, keep="label"))
    assert found.text == ["a\r\nb", "c"]
    assert found.keep == {"label": [1, 2]}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (b"only", "the row has 1 fields where the header has 2"),
        (b"a,b,c", "the row has 3 fields where the header has 2"),
        (b"\xff,1", "the row is not UTF-8"),
        (b'"a"b,1', "the row is not CSV (',' expected after '\"')"),
    ],
)
def test_a_bad_csv_row_is_a_row_with_an_error_and_leaves_its_neighbours_alone(
    tmp_path: Path, row: bytes, error: str
) -> None:
    path = written(tmp_path / "a.csv", b'text,x\n"be\nfore",1\n' + row + b"\nafter,2\n")
    found = documents(spec(path))
    assert found.text == ["be\nfore", None, "after"]
    assert found.error == [None, error, None]


def test_a_carriage_return_within_a_csv_field_is_text_even_outside_quotes(tmp_path: Path) -> None:
    assert documents(spec(written(tmp_path / "a.csv", b'text,x\na\rb,1\n"c\rd",2\r\n'))).text == ["a\rb", "c\rd"]


def test_a_csv_quote_that_is_never_closed_is_refused_because_rows_would_be_lost(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'text,x\na,1\n"b,2\nc,3\nd,4\n')
    with pytest.raises(CorpusError, match=r"a\.csv: the row at byte 11 has no end .*; close its quote"):
        scan(spec(path))


def test_tabs_separate_the_fields_of_a_tsv(tmp_path: Path) -> None:
    assert documents(spec(written(tmp_path / "a.tsv.gz", gzip.compress(b"text\tx\na, b\t1\n")))).text == ["a, b"]


@settings(max_examples=80)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.sampled_from("aé\n\r\t,;|\"'漢🙂 \u0a0a\u0a00\ufeff\u2028"), max_size=12),
            st.sampled_from(["a", "b", "ü", "\u0a0a"]),
        ),
        min_size=1,
        max_size=30,
    ),
    delimiter=st.sampled_from(",;|\t^"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]),
    quote=st.sampled_from(['"', "'"]),
    line_break=st.sampled_from(["\n", "\r\n"]),
    compression=st.sampled_from(["", ".gz"]),
    block=st.integers(1, 64),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_any_partition_of_any_dialect_gives_every_row_in_order(
    rows: list[tuple[str, str]],
    delimiter: str,
    encoding: str,
    quote: str,
    line_break: str,
    compression: str,
    block: int,
    cuts: list[int],
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, delimiter=delimiter, quotechar=quote, lineterminator=line_break, quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writerows([["text", "label"], *rows])
    data = text.getvalue().encode(encoding)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(text_format, "BLOCK_BYTES", block)
        patch.setattr("ray_jobs.corpus.slices.MARK_ROWS", 3)
        patch.setattr("ray_jobs.corpus.scan.MARK_ROWS", 3)
        path = written(Path(folder, f"a.csv{compression}"), gzip.compress(data) if compression else data)
        corpus = spec(path, keep="label", csv={"delimiter": delimiter, "quote": quote, "encoding": encoding})
        scanned = scan(corpus)
        bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
        parts = [
            read_rows(slices(scanned, start, stop), corpus, scanned.keep_types) for start, stop in pairwise(bounds)
        ]
    assert scanned.rows == len(rows)
    assert [text for part in parts for text in part.text] == [row[0] for row in rows]
    assert [label for part in parts for label in part.keep["label"]] == [row[1] for row in rows]
    assert not any(error for part in parts for error in part.error)


def test_quotes_in_a_tsv_are_text_and_every_line_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'id\ttext\n1\t"Hello there\n2\tgood bye\n3\tso long"\n4\tend\n')
    assert documents(spec(path, id="id")).text == ['"Hello there', "good bye", 'so long"', "end"]


def test_a_semicolon_file_is_recognised_and_its_dialect_known(tmp_path: Path) -> None:
    corpus = spec(written(tmp_path / "a.csv", 'id;text\n1;"a; b"\n2;c, d\n'), id="id")
    assert documents(corpus).text == ["a; b", "c, d"]
    assert str(scan(corpus).files[0].dialect) == 'semicolon, quotes ", utf-8'


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "café “naïve” €"),
        ("latin-1", "café \x85"),
        ("utf-16", "café 🙂"),
        ("shift_jis", "表ソ|能"),
        ("koi8_r", "привет"),
    ],
)
def test_rows_in_other_encodings_are_text(tmp_path: Path, encoding: str, text: str) -> None:
    path = written(tmp_path / "a.csv", f"id,text\n1,{text}\n2,plain\n".encode(encoding))
    assert documents(spec(path, csv={"encoding": encoding})).text == [text, "plain"]


@pytest.mark.parametrize(
    ("encoding", "row", "error"),
    [
        ("cp1252", b"\x81,1", "the row is not cp1252"),
        ("ascii", b"\xe9,1", "the row is not ascii"),
        ("shift_jis", b"\x83,1", "the row is not shift_jis"),
        ("utf-16-le", "x,1".encode("utf-16-le") + b"\x00\xd8", "the row is not utf-16-le"),
    ],
)
def test_a_row_that_is_not_in_the_encoding_is_an_error_and_leaves_its_neighbours_alone(
    tmp_path: Path, encoding: str, row: bytes, error: str
) -> None:
    before, after = ("text,x\nbefore,1\n".encode(encoding), "\nafter,2\n".encode(encoding))
    found = documents(spec(written(tmp_path / "a.csv", before + row + after), csv={"encoding": encoding}))
    assert found.text == ["before", None, "after"]
    assert found.error == [None, error, None]


def test_utf16_that_is_cut_off_loses_its_last_row_to_an_error_and_no_other(tmp_path: Path) -> None:
    data = "text,x\na,1\nb,2\nc,3".encode("utf-16")[:-1]
    found = documents(spec(written(tmp_path / "a.csv", data)))
    assert found.text == ["a", "b", None]
    assert found.error[-1] == "the row is not utf-16-le"


@pytest.mark.parametrize(
    ("data", "fused"),
    [
        ('id,text\nd1,"open\nd2,b\nd3,closed"\nd4,e\n', (1, 0, 3)),
        ('id,text,label\n1,a,x\n2,"open,y\n3,b,x\n4,c,z\n5,closed",x\n', (1, 1, 4)),
        ('text,label\na,pos\n"open,neg\nb,pos\nclosed",neg\n', (1, 1, 3)),
        ('id,text\nd1,"one\ntwo, three\nfour"\n', (0, -1, 0)),
        ('id,text\nd1,"Dear John, \nI came, I saw, I left, \nbye, you"\n', (0, -1, 0)),
        ('id,text\nd1,"Dear John\nI came, I saw"\n', (0, -1, 0)),
        ('text\n"one\ntwo\nthree"\n', (0, -1, 0)),
    ],
)
def test_rows_that_a_quote_swallowed_are_noted_and_texts_of_several_lines_are_not(
    tmp_path: Path, data: str, fused: tuple[int, int, int]
) -> None:
    (file,) = scan(spec(written(tmp_path / "a.csv", data))).files
    assert (file.fused.count, file.fused.row, file.fused.lines) == fused


def test_text_columns_of_parquet_may_be_dictionaries_large_views_or_bytes(tmp_path: Path) -> None:
    values = ["a", None, "ü", ""]
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
    for kind in kinds:
        column = pa.array(values, pa.string()).cast(kind) if kind != kinds[-1] else pa.array(values).dictionary_encode()
        found = documents(spec(written(tmp_path / "a.parquet", pa.table({"text": column}))))
        assert found.text == values, kind
        assert found.error == [None, "the text in 'text' is null", None, None]


def test_parquet_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe"])
    for column in (raw, pa.StringArray.from_buffers(2, *raw.buffers()[1:])):
        found = documents(spec(written(tmp_path / "a.parquet", pa.table({"text": column}))))
        assert found.error == [None, "the text in 'text' is not UTF-8"]


def test_parquet_columns_of_any_type_can_be_kept(tmp_path: Path) -> None:
    import datetime
    import decimal

    table = pa.table(
        {
            "text": ["t"],
            "int": pa.array([3], pa.int8()),
            "uint64": pa.array([2**64 - 1], pa.uint64()),
            "half": pa.array([0.5], pa.float32()),
            "bool": [True],
            "null": pa.nulls(1),
            "dict": pa.array(["d"]).dictionary_encode(),
            "date": [datetime.date(2024, 5, 1)],
            "time": pa.array([1], pa.timestamp("ns", tz="UTC")),
            "span": pa.array([1], pa.duration("ns")),
            "money": [decimal.Decimal("1.50")],
            "nested": [{"a.b": [1, None], "c": "ü"}],
            "a.b": ["dotted"],
        }
    )
    keep = tuple(table.column_names[1:])
    corpus = spec(written(tmp_path / "a.parquet", table), keep=keep)
    assert set(documents(corpus).error) == {None}
    kept = {name: values[0] for name, values in documents(corpus).keep.items()}
    assert kept["time"].startswith("1970-01-01 00:00:00.000000001")
    assert kept["span"] is not None
    assert {name: kept[name] for name in keep if name not in ("time", "span")} == {
        "int": 3,
        "uint64": str(2**64 - 1),
        "half": 0.5,
        "bool": True,
        "null": None,
        "dict": "d",
        "date": "2024-05-01",
        "money": "1.50",
        "nested": '{"a.b": [1, null], "c": "ü"}',
        "a.b": "dotted",
    }


def test_a_kept_value_that_cannot_be_stored_is_null_and_its_document_none_the_worse(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl({"text": "t", "x": "\udfff"}, {"text": "t", "x": ["\udfff"]}))
    found = documents(spec(path, keep="x"))
    assert (found.text, found.error) == (["t", "t"], [None, None])
    assert found.keep == {"x": [None, None]}


def test_a_row_with_a_bad_text_keeps_its_id_and_its_other_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl({"text": None, "id": "i", "x": 1}))
    found = documents(spec(path, id="id", keep="x"))
    assert (found.doc_id, found.keep, found.error) == (["i"], {"x": [1]}, ["the text in 'text' is null"])


def test_files_of_different_formats_and_schemas_make_one_corpus(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "label,text\n1,one\n")
    written(tmp_path / "b.jsonl", jsonl({"text": "two"}))
    written(tmp_path / "c.parquet", pa.table({"other": [0], "text": ["three"], "label": [2.5]}))
    found = documents(spec(str(tmp_path), keep="label"))
    assert found.text == ["one", "two", "three"]
    assert found.keep == {"label": [1.0, None, 2.5]}


def test_several_compressed_members_in_one_file_are_one_text(tmp_path: Path) -> None:
    lines = [jsonl({"text": "a"}).encode(), jsonl({"text": "b"}).encode()]
    for name, compress in (("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)):
        path = written(tmp_path / name, b"".join(compress(line) for line in lines))
        assert documents(spec(path)).text == ["a", "b"]


def test_a_file_that_changed_or_went_since_the_scan_is_refused(tmp_path: Path) -> None:
    corpus = spec(written(tmp_path / "a.jsonl", jsonl({"text": "a"}, {"text": "b"})))
    parts = slices(scan(corpus), 0, 2)
    written(tmp_path / "a.jsonl", jsonl({"text": "a"}))
    with pytest.raises(CorpusError, match=r"a\.jsonl has changed since the corpus was scanned"):
        read_rows(parts, corpus, {})
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"a\.jsonl"):
        read_rows(parts, corpus, {})


def test_a_corpus_behind_a_url_reads_like_a_local_one() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus-of-test/x/a.jsonl", jsonl({"text": "a", "id": 1}, {"text": "b", "id": 2}).encode())
    memory.pipe("/corpus-of-test/y/b.csv.gz", gzip.compress(b"id,text\n3,c\n"))
    memory.pipe("/corpus-of-test/y/c.parquet", encoded([("d", "l", 1.0)], "parquet", 1))
    corpus = spec("memory://corpus-of-test/*/*", id="id")
    scanned = scan(corpus)
    assert [file.name for file in scanned.files] == ["x/a.jsonl", "y/b.csv.gz", "y/c.parquet"]
    assert scanned.files[0].uri == "memory://corpus-of-test/x/a.jsonl"
    rows = read_rows(slices(scanned, 1, 4), corpus, {})
    assert rows.doc_id == ["2", "3", "doc 0"]
    assert rows.text == ["b", "c", "d"]


def test_an_array_of_objects_is_read_by_ranges_as_its_lines_would_be(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "text": f'ü {i} "[{{', "x": i} for i in range(1300)]
    lines = spec(written(tmp_path / "a.jsonl", jsonl(*rows)), id="id", keep="x")
    expected = documents(lines)
    contents = {
        "one.json": json.dumps(rows, ensure_ascii=False).encode(),
        "pretty.json": json.dumps(rows, indent=2).encode(),
        "packed.json.gz": gzip.compress(json.dumps(rows).encode()),
        "named.jsonl": json.dumps(rows).encode(),
    }
    for name, data in contents.items():
        corpus = spec(written(tmp_path / name, data), id="id", keep="x")
        scanned = scan(corpus)
        assert documents(corpus) == expected
        for start, stop in ((0, 5), (511, 514), (700, 1300), (1299, 1300)):
            found = read_rows(slices(scanned, start, stop), corpus, scanned.keep_types)
            assert (found.doc_id, found.text) == (expected.doc_id[start:stop], expected.text[start:stop])


def test_what_is_no_object_in_an_array_is_a_row_with_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '[{"text": "a"}, 5, {"text" "b"}, {"text": "c"}]')
    assert documents(spec(path)).error == [
        None,
        "the element is a number, not a JSON object",
        "the element is not JSON (Expecting ':' delimiter, column 9)",
        None,
    ]
