"""What stands in the way to a file can be kept like a column of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore.errors import CorpusError
from featurestore.finding.files import find_files
from ray_jobs.corpus.scan import scan
from tests.ray_jobs.corpora import documents, jsonl, spec, written


def write_partitions(directory: Path, kind: str) -> None:
    for lang in ("de", "en"):
        for year in (2023, 2024):
            data: Any = {"jsonl": jsonl({"text": "a"}, {"text": "b"}), "csv": "text\na\nb\n"}.get(kind)
            if data is None:
                data = pa.table({"text": ["a", "b"]})
            written(directory / f"lang={lang}" / f"year={year}" / f"part-0.{kind}", data)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("pattern", ["", "lang=*", "**/*.*", "lang=*/year=*"])
def test_directories_give_kept_columns_of_the_type_that_fits(tmp_path: Path, kind: str, pattern: str) -> None:
    write_partitions(tmp_path / "c", kind)
    corpus = spec(f"{tmp_path}/c/{pattern}".rstrip("/"), keep=["year", "lang"])
    assert scan(corpus).keep_types == {"year": "int64", "lang": "string"}
    rows = documents(corpus)
    assert rows.text == ["a", "b"] * 4
    assert rows.keep == {"year": [2023, 2023, 2024, 2024] * 2, "lang": ["de"] * 4 + ["en"] * 4}


def test_a_file_in_one_partition_alone_knows_it(tmp_path: Path) -> None:
    write_partitions(tmp_path, "parquet")
    corpus = spec(str(tmp_path / "lang=de" / "year=2024" / "part-0.parquet"), keep="lang")
    assert documents(corpus).keep == {"lang": ["de", "de"]}
    assert scan(corpus).files[0].told == (("lang", "de"),)


def test_what_the_file_has_comes_before_its_directory(tmp_path: Path) -> None:
    written(
        tmp_path / "lang=de" / "a.jsonl", jsonl({"text": "x", "lang": "fr"}, {"text": "y"}, {"text": "z", "lang": None})
    )
    written(tmp_path / "lang=en" / "b.parquet", pa.table({"text": ["p"], "lang": ["it"]}))
    rows = documents(spec(str(tmp_path), keep="lang"))
    assert rows.keep == {"lang": ["fr", "de", None, "it"]}


def test_values_are_spelled_as_hive_spells_them(tmp_path: Path) -> None:
    for name in ("a=x%2Fy%20z", "a=__HIVE_DEFAULT_PARTITION__", "a=007", "a=b=c"):
        written(tmp_path / name / "f.csv", "text\nt\n")
    assert documents(spec(str(tmp_path), keep="a")).keep == {"a": ["007", None, "b=c", "x/y z"]}


def test_an_error_row_keeps_what_its_directory_tells(tmp_path: Path) -> None:
    written(tmp_path / "lang=de" / "a.csv", "text,x\nt,1\nonly one field\n")
    rows = documents(spec(str(tmp_path), keep="lang"))
    assert (rows.keep, rows.error[0]) == ({"lang": ["de", "de"]}, None)
    assert rows.error[1] is not None


def test_a_column_that_neither_file_nor_directory_has_is_refused_with_both_names(tmp_path: Path) -> None:
    write_partitions(tmp_path, "csv")
    with pytest.raises(
        CorpusError, match=r"no column 'lnag' .*did you mean 'lang'\? \(columns: 'text', 'lang', 'year'\)"
    ):
        scan(spec(str(tmp_path), keep="lnag"))


@pytest.mark.parametrize("pattern", ["*", "*.parquet", "**", "**/*"])
def test_what_spark_writes_beside_the_data_is_no_corpus(tmp_path: Path, pattern: str) -> None:
    data = pa.table({"text": ["a"]})
    written(tmp_path / "t.parquet" / "part-00000-abc.c000.snappy.parquet", data)
    (tmp_path / "t.parquet" / "_SUCCESS").touch()
    (tmp_path / "t.parquet" / "._SUCCESS.crc").touch()
    written(tmp_path / "t.parquet" / "_delta_log" / "00000.json", '{"commitInfo": {}}')
    (tmp_path / "_SUCCESS").touch()
    written(tmp_path / "_committed_123", "{}")
    assert [file.name for file in find_files([f"{tmp_path}/{pattern}"], None)] == ["part-00000-abc.c000.snappy.parquet"]


def test_a_directory_that_spark_has_finished_is_taken_whole_by_a_pattern(tmp_path: Path) -> None:
    for day in ("2024-01", "2024-02"):
        written(tmp_path / day / "part-00000.json", jsonl({"text": day}))
        (tmp_path / day / "_SUCCESS").touch()
    assert documents(spec(str(tmp_path / "2024-*"))).text == ["2024-01", "2024-02"]
