"""How a CSV file is written: what a user may set, and what is read off the file itself."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from featurestore.errors import CorpusError, TableError
from featurestore.finding.dialect import CsvSpec, Dialect
from featurestore.finding.files import find_files
from featurestore.tables.csv_head import with_dialect
from featurestore.tables.table import read_table


def dialect_of(path: Path, data: str | bytes, given: CsvSpec | None = None, wanted: tuple[str, ...] = ()) -> Dialect:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    dialect = with_dialect(find_files([str(path)], None)[0], given, wanted).dialect
    assert dialect is not None
    return dialect


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", "id,text\n1,a;b\n", 'comma, quotes ", utf-8'),
        ("a.csv", "id;text\n1;a, b\n", 'semicolon, quotes ", utf-8'),
        ("a.csv", "id|text\n1|a, b\n", 'pipe, quotes ", utf-8'),
        ("a.csv", "id\ttext\n1\ta, b\n", "tab, no quotes, utf-8"),
        ("a.tsv", "id\ttext\n1\ta, b\n", "tab, no quotes, utf-8"),
        ("a.tsv", "id,text\n1,a\n", 'comma, quotes ", utf-8'),
        ("a.csv", '"id;nr";"the, text"\n1;a\n', 'semicolon, quotes ", utf-8'),
        ("a.csv", '"the;text","id"\na,1\n', 'comma, quotes ", utf-8'),
        ("a.csv", "text\na;b\n", 'comma, quotes ", utf-8'),
        ("a.csv", "id;text|x\n1;a|2\n", 'comma, quotes ", utf-8'),
        ("a.csv", "\r\n\r\nid;text\r\n1;a\r\n", 'semicolon, quotes ", utf-8'),
        ("a.csv", "", 'comma, quotes ", utf-8'),
    ],
)
def test_the_delimiter_is_the_usual_one_or_the_only_other_one_of_the_header(
    tmp_path: Path, name: str, data: str, said: str
) -> None:
    assert str(dialect_of(tmp_path / name, data)) == said
    path = tmp_path / f"{name}.gz"
    assert str(dialect_of(path, gzip.compress(data.encode()))) == said


def test_a_delimiter_is_found_whatever_is_said_of_quotes(tmp_path: Path) -> None:
    for quote in ("none", "'"):
        assert dialect_of(tmp_path / "a.csv", "none;one;none\n1;2;3\n", CsvSpec(quote=quote)).delimiter == ";"


def test_a_column_that_has_a_semicolon_in_its_name_is_one_column(tmp_path: Path) -> None:
    assert dialect_of(tmp_path / "a.csv", "yes; or no\n1\n", wanted=("yes; or no",)).delimiter == ","


@pytest.mark.parametrize(
    ("data", "quote"),
    [
        ('id\ttext\n1\t"Hello there\n2\tgood bye\n3\tso long"\n4\tend\n', ""),
        ('id\ttext\n1\t"Hello"\n2\tsize 5" disk\n', ""),
        ('id\ttext\n1\t"He said ""x"""\n2\t"""doc"""\n', ""),
        ('id\ttext\n1\t"two\nlines"\n2\tb\n', '"'),
        ('id\ttext\n1\t"a\ttab"\n2\tb\n', '"'),
        ('id\ttext\n1\t"two\nlines"\n2\t"open\n3\tb\n', ""),
        ('id\ttext\n1\tmissing\tone\n2\t"quoted"\n', ""),
        ('"id"\t"text"\n1\t"Hello"\n', '"'),
        ('"id"\t"text"\n1\t"Hello\n2\tx\n', ""),
        ('"id"\t"text"\r\n1\t"Hel\r\nlo"\r\n', '"'),
    ],
)
def test_quotes_between_tabs_are_text_unless_rows_can_only_be_meant_with_them(
    tmp_path: Path, data: str, quote: str
) -> None:
    assert dialect_of(tmp_path / "a.tsv", data).quote == quote


def test_a_long_file_proves_its_quotes_in_its_first_part(tmp_path: Path) -> None:
    rows = "".join(f'{i}\t"two\nlines {"x" * 100}"\n' for i in range(20_000))
    assert dialect_of(tmp_path / "a.tsv", f"id\ttext\n{rows}").quote == '"'
    late = "".join(f"{i}\t{'x' * 100}\n" for i in range(8_000)) + '1\t"open\n1\ta\tb\n' + "1\ta\n" * 200_000
    assert dialect_of(tmp_path / "c.tsv", f"id\ttext\n{late}").quote == ""
    swallowing = '1\ta\tb\n2\t"open\n' + "".join(f"{i}\t{'x' * 100}\n" for i in range(20_000))
    assert dialect_of(tmp_path / "b.tsv", f"id\ttext\n{swallowing}").quote == ""


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_proof_of_an_encoding(tmp_path: Path, encoding: str) -> None:
    for given in (None, CsvSpec(encoding="cp1252")):
        found = dialect_of(tmp_path / "a.csv", "id;text\n1;ü\n".encode(encoding), given)
        assert found.encoding == {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]
        assert found.delimiter == ";"


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf16_without_a_mark_is_named_and_read_where_it_is_set(tmp_path: Path, order: str) -> None:
    data = ("id,text\n" + "1,some text\n" * 50).encode(f"utf-16-{order}")
    with pytest.raises(CorpusError, match=rf"a\.csv has a zero .* set csv\.encoding, to utf-16-{order} if"):
        dialect_of(tmp_path / "a.csv", data)
    assert dialect_of(tmp_path / "a.csv", data, CsvSpec(encoding="utf-16")).encoding == f"utf-16-{order}"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"delimiter": "tab"}, "\t"),
        ({"delimiter": "\\t"}, "\t"),
        ({"delimiter": "semicolon"}, ";"),
        ({"delimiter": "^"}, "^"),
        ({"quote": "none"}, "none"),
        ({"quote": None}, "none"),
        ({"quote": ""}, "none"),
        ({"quote": False}, "none"),
        ({"quote": "'"}, "'"),
        ({"encoding": "UTF8"}, "utf-8"),
        ({"encoding": "utf_8_sig"}, "utf-8"),
        ({"encoding": "windows-1252"}, "cp1252"),
        ({"encoding": "ISO-8859-1"}, "latin-1"),
        ({"encoding": "l1"}, "latin-1"),
        ({"encoding": "shift_jis"}, "shift_jis"),
        ({"encoding": "gb18030"}, "gb18030"),
        ({"encoding": "UTF-16LE"}, "utf-16-le"),
    ],
)
def test_settings_have_one_form(given: dict[str, Any], kept: str) -> None:
    spec = CsvSpec.model_validate(given)
    (name,) = given
    assert getattr(spec, name) == kept
    assert CsvSpec.model_validate(spec.model_dump(exclude_none=True)) == spec


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"delimiter": ";;"}, "must be one character or comma, semicolon, tab, pipe"),
        ({"delimiter": "\n"}, "must be one character"),
        ({"quote": "''"}, "must be one character, or none where quotes are text"),
        ({"quote": "'", "delimiter": "'"}, "delimiter and quote are the same character"),
        ({"encoding": "cp1522"}, "there is no encoding 'cp1522'; did you mean 'cp1252'?"),
        ({"encoding": "utf-9"}, "there is no encoding 'utf-9'; did you mean 'utf-"),
        ({"encoding": "hz"}, "does not contain ASCII"),
        ({"encoding": "rot13"}, "does not contain ASCII"),
        ({"encoding": "klingon"}, "there is no encoding 'klingon'"),
        ({"encoding": "cp037"}, "files in 'cp037' cannot be read, because it does not contain ASCII"),
        ({"encoding": "utf-7"}, "does not contain ASCII"),
        ({"encoding": "iso2022_jp"}, "does not contain ASCII"),
        ({"encoding": "base64"}, "does not contain ASCII"),
        ({"encoding": "idna"}, "does not contain ASCII"),
        ({"encoding": 8}, "there is no encoding '8'"),
        ({"seperator": ";"}, "Extra inputs"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_what_there_is(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        CsvSpec.model_validate(given)


@pytest.mark.parametrize(
    ("name", "data", "csv"),
    [
        ("l.csv", "id;label\n1;a\n2;b\n", None),
        ("l.tsv", 'id\tlabel\n1\t"a\n2\tb\n', None),
        ("l.csv", "id,label\n1,a\n2,b\n".encode("utf-16"), None),
        ("l.csv", "id^label\n1^é\n2^b\n".encode("cp1252"), CsvSpec(delimiter="^", encoding="cp1252")),
        ("l.csv", "id,label\n1,'a, b'\n2,b\n", CsvSpec(quote="'")),
    ],
)
def test_label_tables_are_read_like_corpora(tmp_path: Path, name: str, data: Any, csv: CsvSpec | None) -> None:
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    table = read_table(str(tmp_path / name), ["label"], id="id", csv=csv)
    assert list(table.columns["id"]) == ["1", "2"]
    assert table.columns["label"][0] in {"a", '"a', "é", "a, b"}
    assert table.columns["label"][1] == "b"
    assert table.notes() == []


def test_a_label_table_says_how_it_was_read_and_where_a_quote_is_not_closed(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('id,label\nd1,"a\nd2,b\nd3,c"\nd4,d\n')
    table = read_table(str(tmp_path / "l.csv"), ["label"], id="id")
    (note,) = table.notes()
    assert note.startswith("l.csv row 0 holds 3 lines that look like rows of their own; close the quote there, or set")
    (tmp_path / "m.csv").write_text("id;x|label\n1;2|a\n")
    with pytest.raises(TableError, match='it is read as comma, quotes ", utf-8: set csv if that is not'):
        read_table(str(tmp_path / "m.csv"), ["label"], id="id")
