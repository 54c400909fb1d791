"""A label job writes one table: every row once, in order, with what was answered or why nothing was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import MismatchError, UsageError
from ray_jobs.labels.run import plan_labels
from ray_jobs.labels.spec import label_job_from_mapping
from ray_jobs.labels.table import METADATA, check_out
from tests.ray_jobs.labels.label_jobs import Direct, label_mapping, questions, run_here, write_rows
from tests.tiny import NAN_WORD, tiny_texts

BAD: dict[int, tuple[dict[str, Any], str]] = {
    3: ({"question": " "}, "the prompt is empty"),
    8: ({"question": None}, "the row has no 'question'"),
    13: ({"question": "river " * 200}, "the prompt has "),
    21: ({"right": "nobody"}, "the answer 'nobody' in 'right' is not among the choices"),
    22: ({"options": None}, "the row has no 'options'"),
    30: ({"question": f"love {NAN_WORD}"}, "the model's logits are not finite"),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path_factory.getbasetemp() / "label-cache"))


def rows_with_faults() -> list[dict[str, Any]]:
    rows = questions(45, max_words=20)
    for number, (change, _) in BAD.items():
        rows[number] |= change
    return rows


def test_bad_rows_cost_themselves_and_the_others_are_what_transformers_says(answering: Path, tmp_path: Path) -> None:
    rows = rows_with_faults()
    corpus = write_rows(tmp_path / "rows.jsonl", rows)
    found = run_here(label_mapping(answering, corpus, tmp_path / "labels.parquet"), tmp_path)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert {number for number, row in enumerate(found) if row["error"]} == BAD.keys()
    for number, (_, said) in BAD.items():
        assert found[number]["error"].startswith(said)
        assert all(value is None for name, value in found[number].items() if name not in ("id", "error"))
    direct = Direct(answering)
    for row, one in zip(rows, found, strict=True):
        if one["error"]:
            continue
        sums = [direct.log_likelihood(row["question"], f" {option}") for option in row["options"]]
        np.testing.assert_allclose(one["log_likelihood"], sums, atol=1e-4)
        n_bytes = [len(option.encode()) for option in row["options"]]
        np.testing.assert_allclose(one["log_likelihood_per_byte"], np.divide(sums, n_bytes), atol=1e-4)
        best = sorted(sums)
        assert one["margin"] == pytest.approx(best[-1] - best[-2], abs=2e-4)
        assert one["place"] == int(np.argmax(sums)) and one["choice"] == row["options"][one["place"]]
        assert one["correct"] is (one["place"] == row["right"]) and one["answer"] == row["options"][row["right"]]
        assert one["prompt"] == row["question"] and one["choice_bytes"] == n_bytes[one["place"]]


@pytest.mark.slow
def test_what_is_compared_may_be_per_token_or_per_byte(answering: Path, tmp_path: Path) -> None:
    corpus = write_rows(tmp_path / "rows.jsonl", questions(20))
    for by in ("per_token", "per_byte"):
        mapping = label_mapping(answering, corpus, tmp_path / f"{by}.parquet")
        mapping["task"] = {**mapping["task"], "by": by}
        for row in run_here(mapping, tmp_path):
            assert row["place"] == int(np.argmax(row[f"log_likelihood_{by}"]))


def test_written_answers_are_graded_with_their_aliases(answering: Path, tmp_path: Path) -> None:
    direct = Direct(answering)
    rows = []
    for number, text in enumerate(tiny_texts(8, seed=9, max_words=10)):
        written = direct.tokenizer.decode(direct.written(text, 6), skip_special_tokens=True)
        answer = written.lstrip().partition("\n")[0].strip()
        rows.append({"id": number, "q": text, "names": ["something else", answer if number % 2 else "nothing"]})
    corpus = write_rows(tmp_path / "rows.jsonl", rows)
    mapping = label_mapping(answering, corpus, tmp_path / "labels.parquet")
    mapping["task"] = {"prompt": "q", "answers": "names", "generate": 6}
    found = run_here(mapping, tmp_path)
    assert [row["exact"] for row in found] == [number % 2 == 1 for number in range(8)]
    assert all(len(row["log_likelihood"]) == 1 and row["margin"] >= 0 for row in found)


def test_the_table_says_where_it_comes_from_and_another_job_does_not_replace_it(
    answering: Path, tmp_path: Path
) -> None:
    corpus, out = write_rows(tmp_path / "rows.jsonl", questions(20)), tmp_path / "labels.parquet"
    mapping = label_mapping(answering, corpus, out, corpus={"path": str(corpus), "id": "id", "keep": ["right"]})
    found = run_here(mapping, tmp_path)
    assert [row["right"] for row in found] == [row["right"] for row in questions(20)]
    said = json.loads(pq.read_schema(out).metadata[METADATA])
    assert said["task"]["choices"] == "options" and said["model"]["name"] == "tiny-answering" and said["software"]
    spec, job = label_job_from_mapping(mapping, tmp_path)
    assert check_out(spec.out, plan_labels(spec, job).store.fingerprint, overwrite=False)
    other = {**mapping, "task": {**mapping["task"], "by": "per_byte"}}
    with pytest.raises(MismatchError, match=r"output\.task\.by"):
        plan_labels(*label_job_from_mapping(other, tmp_path))
    with pytest.raises(UsageError, match="the table of another label job"):
        check_out(spec.out, "another", overwrite=False)
    out.write_bytes(b"something else")
    with pytest.raises(UsageError, match="is there already"):
        check_out(spec.out, "another", overwrite=False)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_prompt_may_be_made_of_numbers(kind: str, answering: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "a": n, "b": 2, "sum": str(n + 2)} for n in range(4)]
    corpus = write_rows(tmp_path / "rows.jsonl", rows)
    if kind == "parquet":
        corpus = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows), corpus)
    mapping = label_mapping(answering, corpus, tmp_path / "labels.parquet")
    mapping["task"] = {"prompt": "{a} + {b} =", "choices": ["{sum}", "7"], "answer": "sum"}
    assert [row["prompt"] for row in run_here(mapping, tmp_path)] == [f"{n} + 2 =" for n in range(4)]


def test_a_row_that_makes_its_worker_fail_is_left_out_though_its_text_is_none(answering: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "question": n, "options": ["yes", "no"], "right": 0} for n in range(3)]
    mapping = label_mapping(answering, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "labels.parquet")
    found = run_here(mapping, tmp_path, {1: "its worker dies"})
    assert [row["error"] for row in found] == [None, "its worker dies", None]
