"""Columns whose names polars takes for patterns, `*` and `^...$`, are columns like all others wherever one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore.aligned import align
from featurestore.convert.export import export_store
from featurestore.errors import StoreError
from featurestore.reader import FeatureStore
from featurestore.reading.metadata import exact_columns
from sparsemill import main
from tests.training.conftest import make_spec
from tests.training.stores import SAE, build_store, make_documents
from training.study import run_study

STAR, CARET, DOTS, GROUP = "*", "^l.*$", "^.*$", "^g.*$"  # the others match `label`, everything and `group`
N = 60


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    documents = make_documents(n=N)
    documents.extra = {
        STAR: documents.label,
        CARET: [f"part {i // 2 % 2}" for i in range(N)],
        DOTS: documents.text,
        GROUP: [f"g{i // 2}" for i in range(N)],
        "odd": [[1.0, float("inf"), 1e300, float("nan")][i % 4] for i in range(N)],
    }
    documents.extra_types = {"odd": "float64"}
    return build_store(tmp_path_factory.mktemp("names") / "store", documents)


@pytest.fixture(scope="module")
def store(uri: str) -> FeatureStore:
    return FeatureStore.open(uri)


def known(store: FeatureStore) -> dict[str, list[Any]]:
    return store.documents().collect().to_dict(as_series=False)


def test_columns_are_read_by_exact_names_in_the_order_asked_for(store: FeatureStore) -> None:
    found = exact_columns(store.documents(), [DOTS, STAR, "doc_id", CARET])
    assert list(found) == [DOTS, STAR, "doc_id", CARET]
    assert {name: column.to_list() for name, column in found.items()} == {name: known(store)[name] for name in found}


@pytest.mark.parametrize("name", [STAR, CARET])
def test_statistics_and_exports_take_such_a_label(store: FeatureStore, name: str, tmp_path: Path) -> None:
    classes = sorted(set(known(store)[name]))
    assert store.statistics(SAE, labels=name).classes == tuple(classes)
    export_store(store, str(tmp_path / "x.svm"), "svmlight", label=name)
    targets = [line.split(" ", 1)[0] for line in (tmp_path / "x.svm").read_text().splitlines()]
    assert targets == [str(classes.index(value)) for value in known(store)[name]]
    beside = pl.read_parquet(tmp_path / "x.svm.documents.parquet", use_pyarrow=True)
    assert beside.columns == store.metadata_columns


@pytest.mark.parametrize("name", ["+", "^d.*$", "^.+$"])
def test_tables_with_such_columns_are_joined_and_aligned(store: FeatureStore, name: str, tmp_path: Path) -> None:
    columns = {"doc_id": [f"doc-{i}" for i in range(N)], name: [i % 3 for i in range(N)]}
    table = pl.DataFrame(columns)
    table.write_csv(tmp_path / "t.csv")
    for given in (table, str(tmp_path / "t.csv")):
        joined, report = store.join(given)
        assert report.same and joined.documents().collect().columns == [*store.metadata_columns, name]
        assert joined.statistics(SAE, labels=name).classes == ("0", "1", "2")
        twice, _ = joined.join(pl.DataFrame({"doc_id": columns["doc_id"], f"^{name}x$": columns[name]}))
        assert twice.statistics(SAE, labels=f"^{name}x$").classes == ("0", "1", "2")
        assert twice.statistics(SAE, labels=name).classes == ("0", "1", "2")
    by, report = store.join(pl.DataFrame({STAR: columns["doc_id"], "new": columns[name]}), id=STAR)
    assert report.same and by.documents().collect()["new"].to_list() == [i % 3 for i in range(N)]
    assert len(align({STAR: store, CARET: by}).doc_id) == N


def test_show_has_such_columns_under_their_names(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", store.uri, "--top", "3", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["documents"]
    assert [document[CARET] for document in first] == ["part 0", "part 0", "part 1"]
    assert main(["show", store.uri, "--feature", f"{SAE}:17"]) == 0
    assert "^l.*$=part " in capsys.readouterr().out and main(["show", store.uri]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"label": STAR},
        {"label": CARET},
        {"label": STAR, "text": DOTS, "baselines": ["tfidf"]},
        {"label": "label", "split": {"seeds": 1, "folds": 2, "group": GROUP}},
        {"label": STAR, "split": {"seeds": 1, "folds": 2, "column": {"name": CARET, "test": ["part 1"]}}},
        {"label": STAR, "transfer": {"by": CARET}},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_a_study_goes_by_such_columns(uri: str, tmp_path: Path, changes: Mapping[str, Any]) -> None:
    spec = {"baselines": [], "split": {"seeds": 1, "folds": 2}, "bootstrap": 100, **changes}
    assert run_study(make_spec(uri, tmp_path / "study", **spec)).rows


@pytest.mark.parametrize(
    "labels",
    ["odd", [float("inf"), 1e300] * (N // 2), np.array([np.inf, 1.0] * (N // 2)), [1.5, 2.5] * (N // 2)],
    ids=["column", "list", "array", "halves"],
)
def test_float_labels_that_are_measurements_are_refused_in_one_sentence(store: FeatureStore, labels: Any) -> None:
    with pytest.raises(StoreError, match=r"^labels hold measurements such as [^ ]*, not classes; bin them first$"):
        store.statistics(SAE, labels=labels)


def test_float_labels_that_are_whole_numbers_are_classes(store: FeatureStore) -> None:
    labels = np.array([1.0, 2.0, np.nan, 10.0] * (N // 4))
    found = store.statistics(SAE, labels=labels)
    assert found.classes == ("1", "2", "10") and found.class_documents.tolist() == [N // 4] * 3


@pytest.mark.parametrize("name", [STAR, CARET])
def test_series_with_such_names_are_ids_and_classes(store: FeatureStore, name: str) -> None:
    ids, classes = pl.Series(name, ["doc-3", "doc-1", "doc-3"]), pl.Series(name, ["a", "b", None] * (N // 3))
    assert store.take(ids, SAE).doc_id.tolist() == ids.to_list()
    assert store.statistics(SAE, labels=classes, rows=np.arange(N) < 30).class_documents.tolist() == [10, 10]


@pytest.mark.parametrize("ids", [[356], np.array([356]), pl.Series([356]), [1.5], [float("inf")], [1e300], [None]])
def test_ids_that_are_not_there_are_one_sentence(store: FeatureStore, ids: Any) -> None:
    with pytest.raises(StoreError, match=r"^no document .* `documents\(\)` and `show` list the ids there are$"):
        store.take(ids, SAE)
