"""Joining by id: values follow their document whatever the order, and what does not match is reported."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore.aligned import align
from featurestore.errors import StoreError
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, finish_store, write_part
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root: Path = tmp_path_factory.mktemp("documents")
    write_store(root, (7, 5, 9))
    return FeatureStore.open(str(root))


TABLE = pl.DataFrame({"id": ["u2-8", "u0-1", "stranger", "u1-4"], "topic": ["c", "a", "x", "b"]})


def test_joined_values_stand_beside_their_documents(store: FeatureStore) -> None:
    joined, report = store.join(TABLE, "id")
    documents = joined.documents().collect()
    assert documents["doc_id"].to_list() == store.documents().collect()["doc_id"].to_list()
    topics = dict(documents.select("doc_id", "topic").iter_rows())
    assert {key: value for key, value in topics.items() if value} == {"u2-8": "c", "u0-1": "a", "u1-4": "b"}
    assert report.extra.tolist() == ["stranger"] and len(report.missing) == 18 and report.missing[0] == "u0-0"
    assert not report.same and str(report) == "18 missing ('u0-0', ...) and 1 extra ('stranger')"


def test_the_store_itself_stays_as_it_was(store: FeatureStore) -> None:
    store.join(TABLE, "id")
    assert "topic" not in store.documents().collect_schema().names()


def test_joined_columns_select_rows_and_are_classes(store: FeatureStore) -> None:
    joined, _ = store.join(TABLE, "id")
    assert joined.matrix("l12_64", rows=pl.col("topic").is_in(["a", "c"])).doc_id.tolist() == ["u0-1", "u2-8"]
    assert joined.statistics("l12_64", labels="topic").class_documents.tolist() == [1, 1, 1]


def test_a_second_table_joins_the_first(store: FeatureStore) -> None:
    more = pl.LazyFrame({"doc_id": ["u0-1", "u0-0"], "score2": [1.0, 2.0]})
    joined, _ = store.join(TABLE, "id")[0].join(more)
    documents = joined.documents().collect()
    assert documents["score2"].head(2).to_list() == [2.0, 1.0] and documents["topic"][1] == "a"
    assert documents.height == 21 and documents["doc_id"][20] == "u2-8" and documents["topic"][20] == "c"


def test_all_ids_in_common_are_the_same_ids(store: FeatureStore) -> None:
    ids = store.documents().select("doc_id").collect().reverse().with_columns(n=1)
    _, report = store.join(ids)
    assert report.same and str(report) == "the same ids"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE.rename({"id": "key"}), "join: the table has no column 'id'; it has: key, topic"),
        (pl.concat([TABLE, TABLE.head(1)]), "join: id 'u2-8' stands in the table more than once"),
        (TABLE.rename({"topic": "label"}), "has a column 'label' already; rename the table's"),
        (TABLE.head(3).tail(1), "join: no value of 'id' is a doc_id of "),
        (pl.DataFrame({"id": [["u0-1"]]}), "join: column 'id' holds lists, not ids"),
        (pl.scan_parquet("/nowhere/labels.parquet"), "join: the table cannot be read"),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(store: FeatureStore, table: pl.DataFrame, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        store.join(table, "id")


def store_of(root: Path, ids: list[str]) -> FeatureStore:
    plan = plan_of((len(ids),))
    create_store(str(root), plan)
    finish_store(str(root), [write_part(str(root), plan, 0, replace(random_rows(SCHEMA, len(ids)), doc_id=ids))])
    return FeatureStore.open(str(root))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store whose documents are called 0, 1, ..., and one that is called 9007199254740993."""
    return store_of(tmp_path_factory.mktemp("numbered"), [*map(str, range(20)), str(2**53 + 1)])


def test_a_store_with_ids_as_floats_aligns_with_one_with_ids_as_whole_numbers(
    numbered: FeatureStore, tmp_path: Path
) -> None:
    floats = store_of(tmp_path / "floats", [*(f"{number}.0" for number in reversed(range(20))), str(2**53 + 1)])
    both = align({"whole": numbered, "floats": floats})
    assert both.reports["floats"].same and both.doc_id.tolist() == numbered.documents().collect()["doc_id"].to_list()
    assert both.position["floats"].tolist() == [*reversed(range(20)), 20]
    twice = store_of(tmp_path / "twice", ["1.0", "1.00"])
    with pytest.raises(StoreError, match=r"ids '1\.0' and '1\.00' would both be 1"):
        align({"whole": numbered, "twice": twice}, common=True)


@pytest.mark.parametrize(
    "ids",
    [
        [3, 2**53 + 1],
        np.array([3, 2**53 + 1]),
        pl.Series([3, 2**53 + 1], dtype=pl.UInt64),
        pd.Series([3, 2**53 + 1], dtype="Int64"),
        pa.array(["3", str(2**53 + 1)]),
        ["3.0", Decimal(2**53 + 1)],
    ],
    ids=lambda ids: f"{type(ids).__module__}.{type(ids).__name__}",
)
def test_documents_are_taken_by_numbers_of_any_type(numbered: FeatureStore, ids: Any) -> None:
    assert numbered.positions(ids).tolist() == [3, 20]
    assert numbered.take(ids, "l12_64").doc_id.tolist() == ["3", str(2**53 + 1)]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([356], "no document '356' in .*`documents\\(\\)` and `show` list the ids there are"),
        (["003"], "no document '003' in "),
        ([3, None], r"no document \(null\) in "),
        ([[3]], "ids are text or numbers, not lists"),
        ("u0-1", r"ids are text or numbers, not str \(give a list, or one column of a table\)"),
        (3, r"ids are text or numbers, not int \(give a list"),
        (pl.DataFrame({"id": [3]}), r"not DataFrame \(give a list, or one column of a table\)"),
        (["3.0", "3.00"], "ids '3.0' and '3.00' would both be 3 in "),
    ],
)
def test_ids_that_cannot_be_taken_are_one_sentence(numbered: FeatureStore, ids: Any, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        numbered.take(ids, "l12_64")


TOPICS = {"id": [3, 5, 2**53 + 1], "topic": ["c", "e", "z"]}


@pytest.mark.parametrize(
    "table",
    [
        pl.DataFrame(TOPICS),
        pl.DataFrame(TOPICS).with_columns(pl.col("id").cast(pl.Decimal(38, 0))),
        pl.DataFrame(TOPICS).with_columns(pl.col("id").cast(pl.String).cast(pl.Categorical)),
        pd.DataFrame(TOPICS),
        pd.DataFrame(TOPICS).convert_dtypes(),
        pd.DataFrame(TOPICS).set_index("id"),
        pd.DataFrame(TOPICS).astype({"id": object, "topic": "category"}),
        pa.table(TOPICS),
        pa.table(TOPICS).to_batches()[0],
    ],
    ids=lambda table: f"{type(table).__module__}.{type(table).__name__}",
)
def test_a_table_of_any_library_joins_by_numbers_of_any_type(numbered: FeatureStore, table: Any) -> None:
    joined, report = numbered.join(table, "id")
    topics = dict(joined.documents().select("doc_id", "topic").collect().iter_rows())
    assert {key: value for key, value in topics.items() if value} == {"3": "c", "5": "e", str(2**53 + 1): "z"}
    assert len(report.missing) == 18 and not len(report.extra)


def test_a_float_beside_a_missing_id_and_its_text_join_as_the_number(numbered: FeatureStore) -> None:
    floats = pd.DataFrame({"id": [3.0, np.nan, 99.0], "topic": ["c", "?", "x"]})
    for table in (floats, floats.assign(id=floats["id"].astype(str))):  # "3.0", "nan", "99.0"
        joined, report = numbered.join(table, "id")
        assert joined.documents().filter(pl.col("topic") == "c").collect()["doc_id"].to_list() == ["3"]
        assert report.extra.tolist()[-1] in ("99", "99.0") and "3" not in report.missing.tolist()


def test_a_table_file_joins_with_its_ids_as_they_stand_there(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "topics.csv"
    path.write_text("id,topic,rank,code\nu2-8,c,1,001\nbroken\nu0-1,a,2,\n,x,3,\n")
    joined, report = store.join(path, "id")
    documents = joined.documents().filter(pl.col("topic").is_not_null()).collect()
    assert documents.select("doc_id", "topic", "rank", "code").rows() == [
        ("u0-1", "a", 2, None),
        ("u2-8", "c", 1, "001"),
    ]
    assert "topics.csv: 1 row cannot be read (topics.csv row 1, the row has 1 fields" in str(report)
    assert "topics.csv: 1 row without an id that can be used (row 2, the id in 'id' is null)" in str(report)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"id": ["0003"], "x": [1]}, r"\(ids look like '0' in the store and '0003' in the table\)"),
        ({"id": ["3.0", "3.00"], "x": [1, 2]}, r"join: ids '3.0' and '3.00' would both be 3; write each id"),
        ({"id": [3, 3], "x": [1, 2]}, "id '3' stands in the table more than once"),
        ({"id": [None, None], "x": [1, 2]}, "there are no ids in the table"),
    ],
)
def test_ids_that_cannot_be_joined_are_shown(numbered: FeatureStore, table: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        numbered.join(pl.DataFrame(table), "id")


def test_classes_of_statistics_are_called_as_everywhere(numbered: FeatureStore) -> None:
    table = pl.DataFrame({"id": [1, 2, 3], "yes": [True, False, None], "grade": [1.0, 2.0, 2.0]})
    joined, _ = numbered.join(table, "id")
    assert joined.statistics("l12_64", labels="yes").classes == ("false", "true")
    assert joined.statistics("l12_64", labels="grade").classes == ("1", "2")
    for labels in (
        [None, "a", 1] * 7,
        pd.Series(["a", None, 1] * 7),
        pa.array(["a", "1", None] * 7).dictionary_encode(),
    ):
        assert joined.statistics("l12_64", labels=labels).classes == ("1", "a")


def test_positions_are_rows_of_documents_in_the_order_asked_for(store: FeatureStore) -> None:
    position = store.positions(["u2-8", "u0-0", "u2-8"])
    assert position.tolist() == [20, 0, 20] and position.dtype == np.int64


def test_a_partial_store_has_the_rows_that_are_there(tmp_path: Path) -> None:
    _, parts = write_store(tmp_path, (4, 3, 5))
    whole = FeatureStore.open(str(tmp_path)).matrix("l12_64").X.toarray()
    (tmp_path / "parts/part-000001.parquet").unlink()
    (tmp_path / "manifest.json").unlink()
    store = FeatureStore.open(str(tmp_path), partial=True)
    assert len(store) == 9 and store.units == (0, 2) and not store.complete
    assert np.array_equal(store.matrix("l12_64").X.toarray(), whole[[0, 1, 2, 3, 7, 8, 9, 10, 11]])
    X, doc_id = store.matrix("l12_64", rows=pl.col("doc_id").str.starts_with("u2"))
    assert doc_id.tolist() == parts[2].doc_id and np.array_equal(X.toarray(), whole[7:])
    assert store.positions(["u2-0"]).tolist() == [4]
    assert np.array_equal(store.take(["u2-0"], "l12_64").X.toarray(), whole[[7]])
    assert store.statistics("l12_64", labels="label").n_documents == 9
    with pytest.raises(StoreError, match="no document 'u1-0'"):
        store.take(["u1-0"], "l12_64")
