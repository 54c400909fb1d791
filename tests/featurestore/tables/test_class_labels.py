"""Columns that the `datasets` library calls ClassLabel are the names of their classes, wherever the file is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.tables.class_labels import class_names
from featurestore.tables.table import read_table
from ray_jobs.corpus.scan import scan
from tests.ray_jobs.corpora import documents, spec


@pytest.fixture
def hub_file(tmp_path: Path) -> Path:
    """A file as `datasets` writes it to the hub."""
    from datasets import ClassLabel, Dataset, Features, Value

    columns = {"text": ["a", "b", "c", "d"], "label": [0, 1, -1, None]}
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    return tmp_path / "train-00000-of-00001.parquet"


def test_a_kept_class_label_is_its_name(hub_file: Path) -> None:
    corpus = spec(str(hub_file), keep="label")
    assert scan(corpus).keep_types == {"label": "string"}
    assert documents(corpus).keep == {"label": ["neg", "pos", None, None]}


def test_a_label_table_has_the_names_too(hub_file: Path) -> None:
    assert read_table(str(hub_file), ["label"]).columns["label"] == ["neg", "pos", None, None]


def test_files_that_number_classes_differently_agree_on_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    for name, names in (("a", ["neg", "pos"]), ("b", ["pos", "neg"])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        Dataset.from_dict({"text": ["x"], "label": [0]}, features=features).to_parquet(tmp_path / f"{name}.parquet")
    assert documents(spec(str(tmp_path), keep="label")).keep == {"label": ["neg", "pos"]}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"huggingface": "no JSON"},
        {"huggingface": "[]"},
        {"huggingface": '{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'},
        {"huggingface": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}'},
        {"huggingface": '{"info": {"features": {"text": {"_type": "ClassLabel", "names": ["a"]}}}}'},
        {"huggingface": '{"info": {"features": {"gone": {"_type": "ClassLabel", "names": ["a"]}}}}'},
    ],
)
def test_metadata_that_names_no_classes_changes_nothing(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "a.parquet")
    assert class_names(table.schema) == {}
    assert documents(spec(str(tmp_path / "a.parquet"), keep="label")).keep == {"label": [0, 1]}


def test_a_number_without_a_name_stays_one(tmp_path: Path) -> None:
    info = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a"]}}}}'
    table = pa.table({"text": ["x", "y"], "label": [0, 7]}).replace_schema_metadata({"huggingface": info})
    pq.write_table(table, tmp_path / "a.parquet")
    assert documents(spec(str(tmp_path / "a.parquet"), keep="label")).keep == {"label": ["a", "7"]}
