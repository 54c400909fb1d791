"""Joining by id: values follow their document whatever the order, and what does not match is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from featurestore.errors import StoreError
from featurestore.reader import FeatureStore
from tests.featurestore.stores import write_store


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
