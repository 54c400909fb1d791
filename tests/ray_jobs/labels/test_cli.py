"""The command `label`: what it shows before anything is spent, and a run on Ray that is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import sparsemill
from tests.ray_jobs.labels.label_jobs import label_mapping, questions, write_rows

ROWS = questions(40, max_words=12)
ROWS[1]["question"] = ""


@pytest.fixture
def job(answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    corpus = write_rows(tmp_path / "rows.jsonl", ROWS)
    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump(label_mapping(answering, corpus, tmp_path / "labels.parquet")), encoding="utf-8")
    return path


def test_questions_are_shown_as_they_will_be_asked_without_a_model(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sparsemill.main(["label", str(job), "--show", "2"]) == 0
    said = capsys.readouterr().out
    first = ROWS[0]
    assert first["question"] in said and f"* 0: {first['options'][0]}" in said and "error: the prompt is empty" in said
    assert sparsemill.main(["label", str(job), "--show", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["rows"] == 40 and shown["questions"][0]["choices"] == first["options"]
    assert not (job.parent / "cache").exists()


def test_a_line_that_cannot_be_parsed_is_shown_as_one(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = job.parent / "rows.jsonl"
    corpus.write_text(corpus.read_text(encoding="utf-8").replace("{", "[", 1), encoding="utf-8")
    assert sparsemill.main(["label", str(job), "--show", "1", "--json"]) == 0
    assert "JSON" in json.loads(capsys.readouterr().out)["questions"][0]["error"]


def test_a_column_that_is_not_there_is_said_in_a_sentence(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = yaml.safe_load(job.read_text(encoding="utf-8"))
    mapping["task"]["answer"] = "rigth"
    job.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    assert sparsemill.main(["label", str(job), "--show", "1"]) == 2
    assert "has no column 'rigth' (task" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_writes_one_table_and_the_same_command_again_does_nothing(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sparsemill.main(["label", str(job), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    out = job.parent / "labels.parquet"
    table = pq.read_table(out).to_pylist()
    assert found["prompts"] == len(table) == 40 and found["units_run"] == 2
    assert found["errors"] == sum(not row["question"].strip() for row in ROWS) > 0
    assert found["correct"] == sum(bool(row["correct"]) for row in table)
    written = out.read_bytes()
    assert sparsemill.label(yaml.safe_load(job.read_text(encoding="utf-8"))).to_dicts() == table
    assert sparsemill.main(["label", str(job), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units_run"] == 0 and out.read_bytes() == written
    assert sparsemill.main(["status", str(out)]) == 2
    assert "did you mean 'labels.parquet.parts', from which this table was made?" in capsys.readouterr().err
    for command in ("show", "tokens"):
        named = ["--feature", "3"] if command == "show" else ["--doc", table[0]["id"]]
        assert sparsemill.main([command, f"{out}.parts", *named]) == 2
        assert capsys.readouterr().err.endswith("labels.parquet.parts holds no features of an SAE\n")
    strict = yaml.safe_load(job.read_text(encoding="utf-8"))
    strict["corpus"]["max_errors"] = 0
    (job.parent / "strict.yaml").write_text(yaml.safe_dump(strict), encoding="utf-8")
    assert sparsemill.main(["label", str(job.parent / "strict.yaml")]) == 1, "as the run that wrote it would have ended"
    assert "more than corpus.max_errors: 0 allows" in capsys.readouterr().err and out.read_bytes() == written
    out.unlink()
    assert sparsemill.main(["label", str(job)]) == 0
    assert "40 prompts" in capsys.readouterr().out and out.read_bytes() == written
