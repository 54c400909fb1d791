"""Which documents take part, and the sentence when none can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from featurestore import FeatureStore
from featurestore.errors import StoreError, StudyError
from tests.training.conftest import make_spec
from tests.training.stores import Documents, build_store, make_documents
from training.labels import StudyData, describe_left_out, load_documents


def load(tmp_path: Path, documents: Documents, keep_text: bool = True, **changes: Any) -> StudyData:
    path = tmp_path / "store"
    store = str(path) if path.exists() else build_store(path, documents, keep_text=keep_text)
    return load_documents(FeatureStore.open(store), make_spec(store, tmp_path / "out", **changes))


def test_documents_that_cannot_take_part_are_left_out_and_counted_by_reason(tmp_path: Path) -> None:
    documents = make_documents(40)
    documents.error[0], documents.features[0], documents.n_tokens[0] = "the line is not JSON", {}, 0
    documents.label[1], documents.label[2] = None, ""
    documents.group[3] = None
    documents.features[4], documents.n_tokens[4] = {}, 0
    documents.text[5] = None
    data = load(tmp_path, documents, split={"group": "group"})
    assert data.left_out == {"error": 1, "no_label": 2, "no_group": 1, "no_tokens": 1, "no_text": 1}
    assert sorted(data.doc_id) == sorted(documents.ids[6:])
    said = describe_left_out(data.left_out, data.rows)
    assert "left out of 40 documents" in said
    assert "2 because they have no label" in said


def test_order_depends_on_ids_and_not_on_the_store(tmp_path: Path) -> None:
    documents = make_documents(30)
    first = load(tmp_path / "a", documents)
    shuffled = build_store(tmp_path / "b", documents, order=np.random.default_rng(1).permutation(30).tolist())
    second = load_documents(FeatureStore.open(shuffled), make_spec(shuffled, tmp_path / "out"))
    assert first.doc_id.tolist() == second.doc_id.tolist() != documents.ids
    assert first.y.tolist() == second.y.tolist()
    assert first.text == second.text


def test_whole_numbers_become_classes_in_numeric_order(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.label, documents.label_type = [float(i % 3 * 5) for i in range(30)], "float64"
    documents.label[7] = float("nan")
    data = load(tmp_path, documents)
    assert data.classes == ("0", "5", "10")
    assert data.left_out["no_label"] == 1


def test_booleans_become_two_classes(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.label, documents.label_type = [i % 2 == 0 for i in range(30)], "bool"
    assert load(tmp_path, documents).classes == ("false", "true")


def test_labels_come_from_another_table_by_id(tmp_path: Path) -> None:
    documents = make_documents(30)
    table = pl.DataFrame({"key": [*documents.ids[:20], "stranger"], "truth": [f"t{i % 2}" for i in range(21)]})
    tmp_path.mkdir(exist_ok=True)
    for ending, write in (("parquet", table.write_parquet), ("csv", table.write_csv), ("jsonl", table.write_ndjson)):
        write(tmp_path / f"labels.{ending}")
        label = {"path": str(tmp_path / f"labels.{ending}"), "id": "key", "column": "truth"}
        data = load(tmp_path, documents, label=label)
        assert data.classes == ("t0", "t1")
        assert data.left_out["no_label"] == 10
        assert {i: data.classes[c] for i, c in zip(data.doc_id, data.y, strict=True)} == dict(table.rows()[:20])


def test_text_for_tfidf_comes_from_another_table_when_the_store_keeps_none(tmp_path: Path) -> None:
    documents = make_documents(30)
    pl.DataFrame({"id": documents.ids, "body": documents.text}).write_parquet(tmp_path / "t.parquet")
    text = {"path": str(tmp_path / "t.parquet"), "id": "id", "column": "body"}
    data = load(tmp_path, documents, keep_text=False, text=text)
    assert data.text is not None
    assert dict(zip(data.doc_id, data.text, strict=True)) == dict(zip(documents.ids, documents.text, strict=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label": "lable"}, "keeps no column 'lable'; did you mean 'label'? it keeps: label, group, text"),
        ({"split": {"group": "template"}}, "keeps no column 'template'"),
        ({"label": {"path": "no.parquet", "id": "i", "column": "c"}}, "there is no such file"),
        ({"label": {"path": "labels.xlsx", "id": "i", "column": "c"}}, "give a file ending in .parquet"),
        ({"label": {"path": "broken.parquet", "id": "i", "column": "c"}}, "cannot be read as a table"),
        ({"label": {"path": "table.csv", "id": "name", "column": "c"}}, "has no column 'name'; it has: id, c"),
        ({"label": {"path": "table.csv", "id": "id", "column": "c"}}, "id 'x' stands there more than once"),
        ({"label": {"path": "other.csv", "id": "id", "column": "c"}}, "no value of 'id' is a doc_id of the store"),
    ],
)
def test_columns_and_tables_that_do_not_answer_are_named(
    tmp_path: Path, store: str, change: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR0")
    (tmp_path / "table.csv").write_text("id,c\nx,1\nx,2\n")
    (tmp_path / "other.csv").write_text("id,c\nx,1\n")
    with pytest.raises(StudyError) as caught:
        load_documents(FeatureStore.open(store), make_spec(store, tmp_path / "out", **change))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tfidf_without_text_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"tfidf needs the text, .* add the text column to 'keep' in the job"):
        load(tmp_path, make_documents(30), keep_text=False)


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.label = ["same"] * 30
    with pytest.raises(StudyError, match="all 30 labelled documents are 'same'; a study needs at least two"):
        load(tmp_path, documents)


def test_classes_that_are_excluded_or_too_rare_are_left_out_and_counted(tmp_path: Path) -> None:
    documents = make_documents(60, groups=30)
    documents.label_type = "int64"
    documents.label = [7 if i < 4 else 9 if i % 30 == 5 else i % 2 for i in range(60)]  # 9: two documents of a group
    documents.features[10], documents.n_tokens[10] = {}, 0
    split = {"exclude_classes": [7], "min_per_class": 2, "group": "group"}
    data = load(tmp_path, documents, split=split)
    assert data.classes == ("0", "1")
    assert {name: n for name, n in data.left_out.items() if n} == {"no_tokens": 1, "excluded_class": 4, "rare_class": 2}
    assert sorted(data.doc_id) == sorted(documents.ids[i] for i in range(4, 60) if i % 30 != 5 and i != 10)
    assert data.group is not None
    assert sorted(set(data.group.tolist())) == list(range(data.group.max() + 1))
    of_id = dict(zip(documents.ids, documents.label, strict=True))
    assert [str(of_id[i]) for i in data.doc_id] == [data.classes[c] for c in data.y]
    said = describe_left_out(data.left_out, data.rows)
    assert "4 because split.exclude_classes leaves their class out" in said
    assert "2 because their class is below split.min_per_class" in said


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ({"exclude_classes": "spma"}, "split.exclude_classes: there is no class 'spma'; there are: ham, spam"),
        ({"exclude_classes": ["spam"]}, "split.exclude_classes: of 2 classes only 'ham' is left; a study needs"),
        ({"min_per_class": 999}, "split.min_per_class: of 2 classes none is left; a study needs at least two"),
    ],
)
def test_classes_that_cannot_be_left_out_are_named(tmp_path: Path, split: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        load(tmp_path, make_documents(30), split=split)


def test_units_are_solved_once(tmp_path: Path) -> None:
    data = load(tmp_path, make_documents(30), split={"group": "group"})
    assert data.unit is data.unit
    joined = replace(data, duplicate=np.arange(30) // 2)
    assert joined.unit is joined.unit is not data.unit


def test_no_label_at_all_is_refused(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.label = [None] * 30
    with pytest.raises(StudyError, match=r"no document can take part: .*30 because they have no label"):
        load(tmp_path, documents)


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    documents = make_documents(30)
    documents.label, documents.label_type = [i + 0.5 for i in range(30)], "float64"
    with pytest.raises(StudyError, match=r"column 'label' holds measurements such as .*not classes"):
        load(tmp_path, documents)


def test_a_document_that_stands_in_the_store_twice_is_refused_for_it_could_be_trained_and_tested_on(
    tmp_path: Path,
) -> None:
    documents = make_documents(30)
    documents.ids[29] = documents.ids[0]  # in another part, where the writer cannot see it
    with pytest.raises(StudyError, match="document 'doc-0' stands in it more than once"):
        load(tmp_path, documents)


def test_ids_of_a_table_that_are_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_text('{"id": ["doc-0"], "c": 1}\n')
    label = {"path": str(tmp_path / "table.jsonl"), "id": "id", "column": "c"}
    with pytest.raises(StudyError, match=r"table\.jsonl: column 'id' holds lists, not ids; name another"):
        load(tmp_path, make_documents(30), label=label)


def test_a_damaged_part_is_said(tmp_path: Path) -> None:
    store = build_store(tmp_path / "store", make_documents(30))
    next(Path(store, "parts").iterdir()).write_bytes(b"PAR1 not parquet PAR1")
    with pytest.raises(StoreError, match=r"part \d cannot be read \(.*\); if verify finds it damaged"):
        load(tmp_path, make_documents(30))
