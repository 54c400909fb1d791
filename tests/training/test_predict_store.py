"""Tables of predictions: one content in three formats, with what the store keeps, and over nothing else."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featurestore import FeatureStore
from featurestore.errors import UsageError
from featurestore.models.model import id_hashes, load_model
from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.predict_cli import _counted, _lines, predict_parser
from training.predict_cli import predict as command
from training.results.records import StudyResult
from training.study import run_study


def predict(model: str, store: str, *options: str, as_json: bool = False) -> int:
    parser = argparse.ArgumentParser()
    predict_parser(parser)
    args = parser.parse_args([model, "--store", store, *options])
    args.json = as_json
    return command(args)


READERS = {
    "csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    "jsonl": pl.read_ndjson,
    "parquet": pl.read_parquet,
}


@pytest.mark.parametrize("ending", READERS)
def test_the_ending_decides_the_format_and_every_format_holds_the_same(
    ending: str, result: StudyResult, tmp_path: Path
) -> None:
    out, other = tmp_path / "new" / f"answers.{ending}", tmp_path / "answers.parquet"
    assert predict(result.paths["model_sae"], result.spec.store, "--out", str(out)) == 0
    assert predict(result.paths["model_sae"], result.spec.store, "--out", str(other)) == 0
    table, expected = READERS[ending](out), pl.read_parquet(other)
    own = ["prediction", "p_ham", "p_spam", "in_training", "decision", "error"]
    assert table.columns == ["doc_id", "label", "group", "text", *own]
    assert table.with_columns(pl.col("error").cast(pl.String)).equals(expected)
    documents = FeatureStore.open(result.spec.store).documents().select("doc_id", "label", "group", "text").collect()
    assert table.select(documents.columns).equals(documents)


def test_a_name_of_no_known_ending_is_refused_before_anything_is_read(result: StudyResult, tmp_path: Path) -> None:
    for name in ("answers", "answers.xlsx", "answers.csv.gz", "answers.tsv"):
        with pytest.raises(
            UsageError, match=rf"{name}: .* is one of \.csv, \.jsonl, \.parquet; give it such an ending"
        ):
            predict(result.paths["model_sae"], str(tmp_path / "no store"), "--out", str(tmp_path / name))


def test_a_table_replaces_nothing_unless_asked_to(result: StudyResult, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"labels\.csv is there already; choose another name, or .* --overwrite"):
        predict(result.paths["model_sae"], str(tmp_path / "no store"), "--out", str(out))
    assert out.read_text() == "mine"
    assert predict(result.paths["model_sae"], result.spec.store, "--out", str(out), "--overwrite") == 0
    assert len(pl.read_csv(out)) == 150


@pytest.mark.parametrize("more", [["--json"], []])
def test_a_table_is_there_though_nobody_listens_to_what_is_said(
    more: list[str], result: StudyResult, tmp_path: Path
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    out = tmp_path / "answers.csv"
    options = ["--store", result.spec.store, "--out", str(out), "--evaluate", "label", *more]
    command = [sys.executable, "-m", "sparsemill", "predict", result.paths["model_sae"], *options]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert "cannot be written" not in done.stderr and len(pl.read_csv(out)) == 150


def test_documents_of_the_training_set_are_marked(
    result: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.parquet"
    predict(result.paths["model_sae"], result.spec.store, "--out", str(out))
    table = pl.read_parquet(out)
    trained = set(result.data.doc_id[result.splits[0].train])
    assert set(table.filter("in_training")["doc_id"]) == trained
    assert (
        f"warning: the ids of {len(trained)} of 150 documents are those of training documents"
        in capsys.readouterr().err
    )
    known = load_model(result.paths["model_sae"]).tensors["trained_ids"]
    assert (known.dtype, len(known)) == (id_hashes([]).dtype, len(trained))
    assert (known[1:] > known[:-1]).all()
    predict(result.paths["model_sae"], result.spec.store, as_json=True)
    rows = json.loads(capsys.readouterr().out)["predictions"]
    assert {row["doc_id"] for row in rows if row["in_training"]} == trained


def test_an_ids_hash_is_the_start_of_its_sha256() -> None:
    import hashlib

    for name in ("d1", "naïve", "🙂"):
        start = hashlib.sha256(name.encode()).digest()[:8]
        assert id_hashes([name]).tolist() == [int.from_bytes(start, "little")]


def test_the_list_on_the_screen_says_what_its_columns_are(
    result: StudyResult, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(result.paths["model_sae"], result.spec.store)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["doc_id", "prediction", "p_prediction", "in_training", "decision"]
    assert len(lines) == 151
    assert {line[1] for line in lines[1:]} == {"ham", "spam"}
    assert all(0.5 <= float(line[2]) <= 1 and line[3] in ("yes", "no") and line[4] == line[1] for line in lines[1:])


def test_a_decision_on_the_screen_does_not_hide_what_its_probability_is_of() -> None:
    row = {"doc_id": "a", "class": "spam", "probabilities": {"ham": 0.45, "spam": 0.55}, "in_training": None}
    row |= {"decision": "undecided", "error": None, "reasons": None}
    assert _lines(row) == "a\tspam\t0.550\t\tundecided"
    assert _lines({**row, "decision": "ham", "in_training": False}) == "a\tspam\t0.550\tno\tham"
    assert _lines({**row, "class": None, "error": "it is empty"}) == "a\t\t\t\tundecided\tit is empty"


def test_one_document_is_said_as_one(result: StudyResult) -> None:
    assert _counted(1, load_model(result.paths["model_sae"]), {"spam": 1}) == "1 document: ham 0, spam 1"


def test_scores_that_are_no_probabilities_are_not_called_so(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    svm = {"features": [{"sae": "l1_tiny"}], "baselines": [], "probes": ["linear_svm"]}
    spec = make_spec(store, tmp_path / "study", **svm, calibrate=False)
    model = run_study(spec).paths["model_sae"]
    assert predict(model, store, "--out", str(tmp_path / "a.csv")) == 0
    assert {"score_ham", "score_spam"} < set(pl.read_csv(tmp_path / "a.csv").columns)
    predict(model, store)
    assert "score_prediction" in capsys.readouterr().out.splitlines()[0]


def test_calibrated_margins_are_probabilities(store: str, tmp_path: Path) -> None:
    svm = {"features": [{"sae": "l1_tiny"}], "baselines": [], "probes": ["linear_svm"]}
    model = run_study(make_spec(store, tmp_path / "study", **svm, split={"seeds": 1, "folds": 3})).paths["model_sae"]
    assert predict(model, store, "--out", str(tmp_path / "a.csv")) == 0
    table = pl.read_csv(tmp_path / "a.csv")
    assert (table["p_ham"] + table["p_spam"] - 1).abs().max() < 1e-9  # type: ignore[operator]


def test_missing_values_numbers_and_clashing_names_are_carried(result: StudyResult, tmp_path: Path) -> None:
    """A store of the same SAE whose kept columns have the names of the table's own."""
    documents = make_documents(6, prefix="new")
    documents.error[2], documents.features[2], documents.n_tokens[2] = "could not be read", {}, 0
    documents.extra = {
        "prediction": ["a,b", None, 'say "no"', "x\ny", "", "z"],
        "p_ham": [str(i) for i in range(6)],
        "kept_p_ham": ["k"] * 6,
    }
    store = build_store(tmp_path / "s", documents)
    for ending in ("csv", "jsonl"):
        predict(result.paths["model_sae"], store, "--out", str(tmp_path / f"a.{ending}"))
    table = READERS["csv"](tmp_path / "a.csv")
    assert table["kept_prediction"].to_list() == ["a,b", None, 'say "no"', "x\ny", "", "z"]
    assert table["kept_p_ham"].to_list() == [0, 1, 2, 3, 4, 5]
    assert table["kept_kept_p_ham"].to_list() == ["k"] * 6
    assert table["prediction"].to_list()[2] is None
    rows: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert (rows[2]["prediction"], rows[2]["p_ham"], rows[2]["in_training"]) == (None, None, False)
    assert [row["kept_prediction"] for row in rows] == documents.extra["prediction"]


def test_nothing_is_left_of_a_table_when_a_part_is_damaged(result: StudyResult, tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(30))
    part = tmp_path / "s/parts/part-000002.parquet"
    part.write_bytes(part.read_bytes()[:200])
    from featurestore.errors import StoreError

    with pytest.raises(StoreError):
        predict(result.paths["model_sae"], store, "--out", str(tmp_path / "out" / "a.csv"))
    assert list((tmp_path / "out").iterdir()) == []


def test_drift_needs_no_labels(result: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "answers.parquet")
    assert predict(result.paths["model_sae"], result.spec.store, "--out", out, "--drift") == 0
    said = capsys.readouterr().out
    assert "drift: 0 of " in said and "150 documents can show a shift from about" in said
    predict(result.paths["model_sae"], result.spec.store, "--drift", as_json=True)
    drift = json.loads(capsys.readouterr().out)["drift"]
    assert (drift["documents"], drift["moved"], drift["features"]) == (150, 0, [])
    assert 0 < drift["shows"] < 1
    predict(result.paths["model_sae"], result.spec.store, "--drift", "--evaluate", "label", as_json=True)
    both = json.loads(capsys.readouterr().out)
    assert both["drift"] == drift and both["evaluation"]["drift_shows"] == drift["shows"]
