"""Texts to decisions through the front door: from arguments, standard input and files, without YAML or Ray."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sparsemill
from featurestore.format.provenance import bundle_sources
from featurestore.models.model import id_hashes
from ray_jobs.planning.job_plan import expected_store
from tests.featurestore.models.handmade import linear_model
from tests.ray_jobs.jobs import make_job, write_models
from tests.tiny import tiny_texts
from training.output.models import save_model

TEXTS = tiny_texts(6, seed=1, max_words=20)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model by hand for the features of a tiny SAE; its bundle is there."""
    directory = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        write_models(directory)
        plan = expected_store(make_job(directory, directory / "none.jsonl", directory / "store"))
        coef = np.random.default_rng(0).normal(size=(1, 12))
        made = linear_model(
            list(range(0, 96, 8)), coef, {"tiny": 96}, identity=plan.identity, bundle=bundle_sources(plan)
        )
        made = replace(made, tensors={**made.tensors, "trained_ids": id_hashes(["1"])})
        save_model(made, str(directory / "models" / "m"))
        yield str(directory / "models" / "m.json")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = sparsemill.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def predictions(call: Call, *arguments: object, **options: Any) -> list[dict[str, Any]]:
    code, out, err = call("predict", *arguments, "--json", **options)
    assert code == 0, err
    document = json.loads(out)
    assert document["version"] == 1
    rows: list[dict[str, Any]] = document["predictions"]
    return rows


def test_every_source_gives_the_same_scores(model: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text(
        "".join(json.dumps({"body": text, "n": n}) + "\n" for n, text in enumerate(TEXTS))
    )
    given = predictions(call, model, *(word for text in TEXTS for word in ("--text", text)))
    assert [row["doc_id"] for row in given] == ["1", "2", "3", "4", "5", "6"]
    assert all(
        row["decision"] == row["class"] == max(row["probabilities"], key=row["probabilities"].get) for row in given
    )
    files = predictions(call, model, "--input", tmp_path / "new.jsonl", "--text-column", "body", "--id-column", "n")
    assert [row["doc_id"] for row in files] == ["0", "1", "2", "3", "4", "5"]
    assert [row["probabilities"] for row in files] == [row["probabilities"] for row in given]
    flat = [text.replace("\n", " ") for text in TEXTS]
    piped, named = (predictions(call, model, *dash, stdin="\n".join(flat).encode()) for dash in ((), ("-",)))
    assert piped == named
    same = [n for n, text in enumerate(TEXTS) if "\n" not in text]
    assert same and all(piped[n]["probabilities"] == pytest.approx(given[n]["probabilities"], abs=1e-4) for n in same)


def test_documents_with_which_something_is_wrong_follow_the_rule(model: str, call: Call) -> None:
    stdin = b"love good film\n\ncaf\xe9\n" + b"bad " * 100
    rows = predictions(call, model, stdin=stdin)
    assert [row["decision"] == "undecided" for row in rows] == [False, True, True, True]
    assert [row["class"] is None for row in rows] == [False, True, True, False]
    assert rows[2]["error"] == "the line is not UTF-8"
    assert set(rows[1]["probabilities"].values()) == {None}
    rows = predictions(call, model, "--on-error", "ham", "--accept-truncated", stdin=stdin)
    assert [row["decision"] for row in rows[1:3]] == ["ham", "ham"]
    assert rows[3]["decision"] == rows[3]["class"] and rows[3]["error"] is None
    code, _, err = call("predict", model, "--on-error", "fail", stdin=stdin)
    assert code == 1 and "document 2: the document has no token" in err
    assert call("predict", model, "--on-error", "eggs", stdin=stdin)[0] == 2


def test_a_table_holds_what_json_holds(model: str, call: Call, tmp_path: Path) -> None:
    rows = predictions(call, model, "--explain", 2, "--text", TEXTS[0], "--text", "")
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"a.{ending}"
        code, said, err = call("predict", model, "--explain", 2, "--text", TEXTS[0], "--text", "", "--out", out)
        assert (code, said) == (0, ""), err
        read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[ending]
        table = read(out).to_dicts()
        assert [row["decision"] for row in table] == [row["decision"] for row in rows]
        assert table[0]["p_spam"] == pytest.approx(rows[0]["probabilities"]["spam"])
        assert json.loads(table[0]["reasons"]) == rows[0]["reasons"]
        assert table[1]["p_spam"] is None and table[1]["error"] == rows[1]["error"]
    assert "1 failed, empty or read in part" in err


def test_reasons_are_on_the_screen_under_their_document(model: str, call: Call) -> None:
    code, out, _ = call("predict", model, "--text", TEXTS[0], "--explain", 1)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("doc_id\tprediction\tp_prediction")
    assert any("tiny:" in line for line in lines[2:])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "standard input is empty"),
        (["--text-column", "c"], "--text-column says which column of --input"),
        (["--text", "a", "--id-column", "c"], "--id-column says which column of --input"),
        (["--input", "none.csv"], "--input"),
        (["--text", "a", "--out", "a.xlsx"], "one of .csv, .jsonl, .parquet"),
    ],
)
def test_a_mistake_is_one_sentence(model: str, call: Call, arguments: list[str], sentence: str) -> None:
    code, out, err = call("predict", model, *arguments)
    assert (code, out) == (2, "")
    assert err.count("sparsemill: ") == 1 and sentence in err


def test_texts_are_no_training_documents_whatever_their_number(model: str, call: Call) -> None:
    rows = predictions(call, model, "--text", "a")
    assert rows[0]["in_training"] is None


def test_predictions_are_scored_against_a_column(model: str, call: Call, tmp_path: Path) -> None:
    rows = [{"text": text, "verdict": ("ham", "spam")[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = call("predict", model, "--input", tmp_path / "new.jsonl", "--evaluate", "verdict", "--json")
    assert code == 0, err
    evaluation = json.loads(out)["evaluation"]
    assert evaluation["documents"] == 6 and 0 <= evaluation["accuracy"]["value"] <= 1
    assert evaluation["drift"] is None  # the model does not say how often its features fired
    code, out, _ = call("predict", model, "--input", tmp_path / "new.jsonl", "--evaluate", "verdict")
    assert code == 0 and "Scores against 'verdict' on 6 documents" in out
    code, _, err = call("predict", model, "--input", tmp_path / "new.jsonl", "--evaluate", "verdct")
    assert code == 2 and "verdct" in err
    assert call("predict", model, "--text", "a", "--evaluate", "verdict")[0] == 2


@pytest.mark.slow
def test_parts_are_scored_against_a_column_like_one_file(
    model: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    rows = [{"text": text, "verdict": ("ham", "spam", None, "egg")[n % 4]} for n, text in enumerate([*TEXTS, ""])]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = ("predict", model, "--input", tmp_path / "new.jsonl", "--evaluate", "verdict", "--json")
    whole = json.loads(call(*asked)[1])["evaluation"]
    code, out, err = call(*asked, "--out", tmp_path / "answers", "--workers", 1)
    assert code == 0, err
    no_drift = {"drift_shows": None, "drift_documents": 0}
    assert json.loads(out)["evaluation"] == {**whole, "drift": None, "drifted": 0, "tested": 0, **no_drift}
    code, out, err = call(*asked[:-1], "--out", tmp_path / "answers", "--workers", 1)
    assert "nothing to do, all documents are scored (1 part)" in err
    assert code == 0 and f"Scores against 'verdict' on {whole['documents']} documents" in out
    assert "drift: not known" in out
