"""Which documents take part, and the sentence when none can."""

from __future__ import annotations

import datetime
import gzip
import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import StoreError, StudyError
from tests.training.conftest import make_spec
from tests.training.stores import Documents, build_store, make_documents
from training.documents.labels import StudyData, describe_left_out, load_documents
from training.spec import study_from_mapping


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


def numbered(n: int = 30, form: str = "{}") -> Documents:
    """Documents whose ids are the numbers from 1 on, written in this form."""
    documents = make_documents(n)
    documents.ids = [form.format(i) for i in range(1, n + 1)]
    return documents


def classes_of(data: StudyData) -> dict[str, str]:
    return {str(doc_id): data.classes[c] for doc_id, c in zip(data.doc_id, data.y, strict=True)}


def table_of(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Write a table of `id` and `y` in the format of its name, and name it as a label."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ".jsonl" in path.name:
        data = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(data.encode()) if path.suffix == ".gz" else data.encode())
    else:
        separator = "\t" if ".tsv" in path.name else ","
        lines = [separator.join("" if row[key] is None else str(row[key]) for key in ("id", "y")) for row in rows]
        data = "\n".join([f"id{separator}y", *lines, ""])
        path.write_bytes(gzip.compress(data.encode()) if path.suffix == ".gz" else data.encode())
    return {"path": str(path), "id": "id", "column": "y"}


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_ids_with_leading_zeros_and_classes_01_and_1_are_what_they_are_in_every_format(
    tmp_path: Path, ending: str
) -> None:
    truth = {f"{i:03}": ["01", "1", "02"][i % 3] for i in range(1, 31)}
    table = table_of(tmp_path / f"labels.{ending}", [{"id": i, "y": y} for i, y in truth.items()])
    data = load(tmp_path, numbered(form="{:03}"), label=table)
    assert classes_of(data) == truth and data.classes == ("01", "02", "1")
    assert data.notes == ()


def test_ids_of_digits_with_letters_among_the_later_ones_join(tmp_path: Path) -> None:
    ids = [f"{i:04}" for i in range(1, 141)] + [f"x{i}" for i in range(20)]
    documents = make_documents(160)
    documents.ids = ids
    table = table_of(tmp_path / "labels.csv", [{"id": i, "y": f"c{n % 2}"} for n, i in enumerate(ids)])
    assert len(load(tmp_path, documents, label=table).y) == 160


@pytest.mark.parametrize(
    ("form", "ids"),
    [
        ("{}", pa.array([float(i) for i in range(1, 31)])),
        ("{}", pa.array([str(i) for i in range(1, 31)])),
        ("{}", pa.array(range(1, 31), pa.int64()).cast(pa.decimal128(38, 0))),
        ("{}", pa.array(range(1, 31), pa.uint64())),
        ("{}", pa.array([f"{i}.0" for i in range(1, 31)])),
        ("{}.0", pa.array(range(1, 31))),
        ("90071992547409{:02}", pa.array([9007199254740900 + i for i in range(1, 31)])),
        ("c{}", pa.array([f"c{i}" for i in range(1, 31)]).dictionary_encode()),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_ids_are_one_whichever_type_wrote_them(tmp_path: Path, form: str, ids: pa.Array) -> None:
    pq.write_table(pa.table({"id": ids, "y": [f"c{i % 2}" for i in range(1, 31)]}), tmp_path / "labels.parquet")
    table = {"path": str(tmp_path / "labels.parquet"), "id": "id", "column": "y"}
    data = load(tmp_path, numbered(form=form), label=table)
    assert classes_of(data) == {form.format(i): f"c{i % 2}" for i in range(1, 31)}
    as_text = pa.types.is_string(ids.type) and ids[0].as_py().endswith(".0")
    assert len(data.notes) == (as_text or form.endswith(".0"))


def test_ids_that_are_the_same_only_as_numbers_and_rows_that_cannot_be_used_are_noted(tmp_path: Path) -> None:
    rows = [f"{i}.0,c{i % 2}\n" for i in range(1, 31)]
    (tmp_path / "labels.csv").write_text("".join(["id,y\n", *rows, "31\n", ",c0\n", "99,c1\n"]))
    table = {"path": str(tmp_path / "labels.csv"), "id": "id", "column": "y"}
    name = tmp_path / "labels.csv"
    assert load(tmp_path, numbered(), label=table).notes == (
        f"label: {name}: 1 row cannot be read (labels.csv row 30, the row has 1 fields where the header has 2)",
        f"label: {name}: 1 row without an id that can be used (row 30, the id in 'id' is null)",
        f"label: {name}: 30 ids the same only as numbers ('1.0' is '1' in the store)",
        f"label: {name}: 1 of 32 ids are of no document of the store ('99')",
    )


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (pa.array(["ham", "spam"] * 15).dictionary_encode(), ("ham", "spam")),
        (pa.array([Decimal(1), Decimal(0)] * 15, pa.decimal128(38, 0)), ("0", "1")),
        (pa.array([1.0, 0.0] * 15), ("0", "1")),
        (pa.array([True, False] * 15), ("false", "true")),
        (pa.array([10, 9] * 15, pa.uint64()), ("9", "10")),
        (pa.array([2**60 + 1, 2**60] * 15), (str(2**60), str(2**60 + 1))),
        (pa.array([datetime.date(2024, 1, 2), datetime.date(2023, 1, 2)] * 15), ("2023-01-02", "2024-01-02")),
        (pa.array([b"ham", b"spam"] * 15), ("ham", "spam")),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_labels_of_every_type_that_can_be_classes_are(tmp_path: Path, values: pa.Array, classes: tuple[str]) -> None:
    pq.write_table(pa.table({"id": range(1, 31), "y": values}), tmp_path / "labels.parquet")
    table = {"path": str(tmp_path / "labels.parquet"), "id": "id", "column": "y"}
    assert load(tmp_path, numbered(), label=table).classes == classes


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a.csv", "0.37", "measurements such as 0.37, not classes; bin them first"),
        ("a.csv", "inf", "measurements such as inf"),
        ("a.csv", "1e300", r"measurements such as 1e\+300"),
        ("a.jsonl", 12.5, "measurements such as 12.5"),
        ("a.parquet", math.inf, "measurements such as inf"),
        ("a.parquet", 1e300, r"measurements such as 1e\+300"),
        ("a.jsonl", ["x"], "lists, not classes"),
    ],
)
def test_a_table_of_measurements_is_refused_in_one_sentence(tmp_path: Path, name: str, value: Any, said: str) -> None:
    others: Any = 1.0 if isinstance(value, float) else 1
    rows = [{"id": i, "y": value if i == 7 else others if i % 2 else None} for i in range(1, 31)]
    with pytest.raises(StudyError, match=rf"label: .*{name}: column 'y' holds {said}"):
        load(tmp_path, numbered(), label=table_of(tmp_path / name, rows))


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300, float(2**60)])
def test_a_kept_label_that_is_no_class_is_refused_in_one_sentence(tmp_path: Path, value: float) -> None:
    documents = make_documents(30)
    documents.label, documents.label_type = [value, *(float(i % 2) for i in range(29))], "float64"
    with pytest.raises(StudyError, match=r"label: column 'label' holds measurements such as .*, not classes"):
        load(tmp_path, documents)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_nan_and_nothing_are_no_label_in_every_format(tmp_path: Path, name: str) -> None:
    nothing = {"a.csv": ["NaN", "", None], "a.jsonl": [math.nan, None, None], "a.parquet": [math.nan, None, None]}[name]
    others: list[Any] = ["0", "1"] if name == "a.csv" else [0.0, 1.0]
    rows = [{"id": i, "y": nothing[i - 1] if i <= 3 else others[i % 2]} for i in range(1, 31)]
    data = load(tmp_path, numbered(), label=table_of(tmp_path / name, rows))
    assert data.classes == ("0", "1") and data.left_out["no_label"] == 3


def test_when_no_id_matches_both_sides_are_shown(tmp_path: Path) -> None:
    table = table_of(tmp_path / "a.csv", [{"id": f"{i:04}", "y": "x"} for i in range(1, 31)])
    with pytest.raises(StudyError, match=r"no value of 'id' is a doc_id of the store \(ids look like '1' in the store"):
        load(tmp_path, numbered(), label=table)


def test_two_ids_that_would_be_one_document_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path / "a.csv", [{"id": i, "y": "x"} for i in ("1.0", "1.00", "2", "3")])
    with pytest.raises(StudyError, match=r"a\.csv: ids '1\.0' and '1\.00' would both be 1; write each id there and in"):
        load(tmp_path, numbered(), label=table)


def test_a_label_table_beside_a_study_in_a_directory_with_brackets_is_its_own(tmp_path: Path) -> None:
    for folder, classes in (("run1", "xy"), ("run[12]", "ab")):
        (tmp_path / folder).mkdir()
        rows = [{"id": i, "y": classes[i % 2]} for i in range(1, 31)]
        table_of(tmp_path / folder / "labels [v2].csv", rows)
    store = build_store(tmp_path / "store", numbered())
    mapping = {
        "store": store,
        "label": {"path": "labels [v2].csv", "id": "id", "column": "y"},
        "baselines": ["majority"],
    }
    spec = study_from_mapping(mapping, tmp_path / "run[12]")
    assert load_documents(FeatureStore.open(store), spec).classes == ("a", "b")


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
    joined = replace(data, text_cluster=np.arange(30) // 2)
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
