"""A table of names: kept by the encoder, every name of every explainer, never shown without its source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import NamesError
from featurestore.names.merging import MOST_CHARACTERS, keep_names
from featurestore.names.table import FeatureName, NameRow, NameTable, table_path, table_schema

SHA = "a1" * 32


def row(feature: int, text: str, explainer: str | None = "gpt", source: str = "imported", **more: str) -> NameRow:
    return NameRow(feature, text, source, explainer, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "names"


def test_nothing_is_named_where_no_table_is(folder: Path) -> None:
    table = NameTable.open(SHA, 8, folder)
    assert len(table) == 0 and table.best([1, 2]) == {} and table.features() == [] and table.explainers() == {}
    assert list(table.names()) == [] and not folder.exists()


def test_tables_lie_in_this_machines_cache(cache: Path) -> None:
    keep_names(SHA.upper(), 8, [row(1, "dogs")])
    assert (cache / "names" / f"{SHA}.parquet").is_file()
    assert NameTable.open(SHA, 8).best([1])[1].text == "dogs"


def test_names_come_back_with_all_that_is_known_of_them(folder: Path) -> None:
    whole = row(5, "x", method="m", licence="CC0", origin="f.csv")
    keep_names(SHA, 8, [row(1, "\u202edogs\x00 <b>\n"), whole, row(1, "cats", None, "generated")], folder)
    table = NameTable.open(SHA, 8, folder)
    assert list(table.names()) == [row(1, "\u202edogs\x00 <b>\n"), row(1, "cats", None, "generated"), whole]
    assert table.best([5, 1, 7, 99, -1]) == {
        1: FeatureName(1, "\u202edogs\x00 <b>\n", "imported", "gpt"),
        5: FeatureName(5, "x", "imported", "gpt"),
    }
    assert table.explainers() == {
        ("generated", None, None): 1,
        ("imported", "gpt", None): 1,
        ("imported", "gpt", "m"): 1,
    }


def test_imported_names_come_before_generated_ones_and_keywords_last(folder: Path) -> None:
    keep_names(
        SHA,
        8,
        [row(1, "k", "keywords", "evidence"), row(1, "g", "small", "generated"), row(2, "k", "keywords", "evidence")],
        folder,
    )
    keep_names(SHA, 8, [row(1, "b", "b"), row(1, "a", "a")], folder)
    table = NameTable.open(SHA, 8, folder)
    assert [name.text for name in table.names([1])] == ["a", "b", "g", "k"]
    assert table.best([1, 2])[2].text == "k"


@pytest.mark.parametrize(
    ("prefer", "text"), [(["b"], "b"), (["none", "keywords", "b"], "k"), (["act"], "m"), (["generated"], "g")]
)
def test_explainers_methods_and_sources_can_be_preferred(folder: Path, prefer: list[str], text: str) -> None:
    rows = [row(1, "k", "keywords", "evidence"), row(1, "g", "small", "generated"), row(1, "a", "a"), row(1, "b", "b")]
    keep_names(SHA, 8, [*rows, row(1, "m", "z", method="act")], folder)
    assert NameTable.open(SHA, 8, folder).best([1], prefer)[1].text == text
    keep_names(SHA, 8, [], folder, prefer=prefer)
    assert NameTable.open(SHA, 8, folder).best([1])[1].text == text
    assert NameTable.open(SHA, 8, folder).best([1], ["a"])[1].text == "a"


def test_a_later_name_of_the_same_explainer_replaces_the_earlier_and_nothing_else(folder: Path) -> None:
    keep_names(
        SHA, 8, [row(1, "old"), row(1, "other", "z"), row(2, "two"), row(1, "by method", method="m")], folder, ["z"]
    )
    kept = keep_names(SHA, 8, [row(1, "newer"), row(1, "newest"), row(3, "three")], folder)
    assert (kept.added, kept.replaced, kept.names, kept.features) == (1, 1, 5, 3)
    table = NameTable.open(SHA, 8, folder)
    assert {name.text for name in table.names()} == {"newest", "other", "two", "by method", "three"}
    assert table.prefer == ("z",)


@pytest.mark.parametrize("bad", [row(8, "beyond"), row(-1, "before"), row(1, ""), row(1, "x" * (MOST_CHARACTERS + 1))])
def test_what_is_no_name_is_refused_and_the_table_stays(folder: Path, bad: NameRow) -> None:
    keep_names(SHA, 8, [row(1, "dogs")], folder)
    before = table_path(SHA, folder).read_bytes()
    with pytest.raises(NamesError, match="cannot be named so"):
        keep_names(SHA, 8, [row(2, "cats"), bad], folder)
    assert table_path(SHA, folder).read_bytes() == before


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_a_hash_that_is_none_names_no_file(sha256: str, folder: Path) -> None:
    with pytest.raises(NamesError, match="is no sha256 of an encoder"):
        NameTable.open(sha256, 8, folder)


def test_a_table_of_another_width_is_refused(folder: Path) -> None:
    keep_names(SHA, 8, [row(1, "dogs")], folder)
    for ask in (lambda: NameTable.open(SHA, 16, folder), lambda: keep_names(SHA, 16, [row(9, "x")], folder)):
        with pytest.raises(NamesError, match=r"names an SAE of 8 features, and this one has 16"):
            ask()


def spoil(path: Path, **metadata: str) -> None:
    """Write the table again with other metadata."""
    table = pq.read_table(path)
    changed = {f"sparsemill.{key}".encode(): value.encode() for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **changed}), path)


def test_what_is_no_table_is_one_sentence_and_is_not_replaced(folder: Path) -> None:
    keep_names(SHA, 8, [row(1, "dogs"), row(7, "cats")], folder)
    path = table_path(SHA, folder)
    good = path.read_bytes()

    def broken() -> list[bytes]:
        found = [b"", b"PAR1", good[:-20], good[:4] + b"\0" * 60 + good[64:]]
        for metadata in (
            {"names_version": "2"},
            {"sha256": "b" * 64},
            {"d_sae": "7"},
            {"d_sae": "x"},
            {"prefer": "[" * 9999},
        ):
            path.write_bytes(good)
            spoil(path, **metadata)
            found.append(path.read_bytes())
        wrong = pa.table({"feature": [1]}).replace_schema_metadata(pq.read_table(path).schema.metadata)
        pq.write_table(wrong, path)
        odd = pa.Table.from_pylist([{"feature": 1, "text": "x", "source": "guessed"}], schema=table_schema())
        found.append(path.read_bytes())
        path.write_bytes(good)
        pq.write_table(odd.replace_schema_metadata(pq.read_table(path).schema.metadata), path)
        return [*found, path.read_bytes()]

    for data in broken():
        path.write_bytes(data)
        with pytest.raises(NamesError, match="cannot be read as a table of names"):
            NameTable.open(SHA, 8, folder)
        with pytest.raises(NamesError):
            keep_names(SHA, 8, [row(2, "x")], folder)
        assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (FeatureName(1, "dogs", "imported", "gpt-4o-mini"), "dogs [imported, gpt-4o-mini]"),
        (FeatureName(1, "dogs", "imported", None), "dogs [imported]"),
        (
            FeatureName(1, "a\u202e\x1b[31mb\n\nc\u200b", "generated", "m\x07"),
            r"a\u202e\x1b[31mb c\u200b [generated, m\x07]",
        ),
        (FeatureName(1, "<script>alert(1)</script>", "imported", None), "<script>alert(1)</script> [imported]"),
        (FeatureName(1, "x" * 500, "imported", None), f"{'x' * 120}... [imported]"),
        (FeatureName(1, " " * 9000 + "x", "imported", None), "... [imported]"),
    ],
)
def test_a_name_is_shown_in_one_safe_line_with_its_source(name: FeatureName, shown: str) -> None:
    assert name.shown() == shown


def test_two_processes_lose_nothing_of_each_other(folder: Path) -> None:
    code = """
import sys
from featurestore.names.merging import keep_names
from featurestore.names.table import NameRow
first = int(sys.argv[2])
for n in range(first, first + 10):
    keep_names("a1" * 32, 64, [NameRow(n, str(n), "imported", None)], sys.argv[1])
"""
    started = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(first)]) for first in (0, 20)]
    assert [process.wait() for process in started] == [0, 0]
    assert NameTable.open(SHA, 64, folder).features() == [*range(10), *range(20, 30)]
    assert json.loads(pq.read_schema(table_path(SHA, folder)).metadata[b"sparsemill.prefer"]) == []
