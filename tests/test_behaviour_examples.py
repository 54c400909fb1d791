"""The ready tasks under examples/behaviour: they parse, ask what they should of the hub's columns, and are planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ray_jobs.corpus.read import read_rows
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.slices import slices
from ray_jobs.labels.prompts import Asker, Question
from ray_jobs.labels.spec import label_job_from_mapping, load_label_job, of_text
from ray_jobs.spec import load_job
from tests.ray_jobs.labels.label_jobs import answering_model, run_here
from training.spec import load_study

EXAMPLES = Path(__file__).parent.parent / "examples" / "behaviour"
TASKS = ("boolq", "nq-swap", "piqa", "pubmedqa")

ROWS: dict[str, pa.Table] = {  # columns and types as the hub's files have them
    "boolq": pa.table({
        "question": ["is bread made of stone", "does a river hold water"],
        "answer": [False, True],
        "passage": ["Bread is food.", "A river is water."],
    }),
    "piqa": pa.table({
        "goal": ["make bread", "read a story"],
        "sol1": ["use a stone", "open the paper"],
        "sol2": ["use water", "eat the paper"],
        "label": [1, 0],
    }),
    "pubmedqa": pa.table({
        "pubid": pa.array([21645374, 16418930], pa.int32()),
        "question": ["Do trains run in winter?", "Is music good?"],
        "context": [
            {"contexts": ["Trains ran.", "It was winter."], "labels": ["A", "B"], "meshes": ["m"],
             "reasoning_required_pred": ["y"], "reasoning_free_pred": ["y"]},
            {"contexts": ["Music was heard."], "labels": ["A"], "meshes": ["m"],
             "reasoning_required_pred": ["m"], "reasoning_free_pred": ["m"]},
        ],
        "long_answer": ["They do.", "Nobody knows."],
        "final_decision": ["yes", "maybe"],
    }),
    "nq-swap": pa.table({
        "question": ["who wrote the story", "where is the market"],
        "org_context": ["Ann wrote it.", "It is in town."],
        "org_answer": [["Ann"], ["town"]],
        "sub_context": ["Bob wrote it.", "It is in the garden."],
        "sub_answer": [["Bob", "Bob B."], ["garden"]],
    }),
}  # fmt: skip
EXPECTED: dict[str, list[Question]] = {
    "boolq": [
        Question("Bread is food.\n\nQuestion: is bread made of stone?\nAnswer with yes or no.", ("no", "yes"), 0),
        Question("A river is water.\n\nQuestion: does a river hold water?\nAnswer with yes or no.", ("no", "yes"), 1),
    ],
    "piqa": [
        Question("Goal: make bread\nHow can this be reached?", ("use a stone", "use water"), 1),
        Question("Goal: read a story\nHow can this be reached?", ("open the paper", "eat the paper"), 0),
    ],
    "pubmedqa": [
        Question(
            "Trains ran.\nIt was winter.\n\nQuestion: Do trains run in winter?\nAnswer with yes, no or maybe.",
            ("yes", "no", "maybe"),
            0,
        ),
        Question(
            "Music was heard.\n\nQuestion: Is music good?\nAnswer with yes, no or maybe.", ("yes", "no", "maybe"), 2
        ),
    ],
    "nq-swap": [
        Question(
            "Bob wrote it.\n\nQuestion: who wrote the story?\nAnswer with a few words of the passage.",
            answers=("Bob", "Bob B."),
        ),
        Question(
            "It is in the garden.\n\nQuestion: where is the market?\nAnswer with a few words of the passage.",
            answers=("garden",),
        ),
    ],
}


def here(task: str, folder: Path, model: str = "owner/model") -> dict[str, Any]:
    """The label job of a task, with a file of this machine as its corpus, and a model of this machine."""
    pq.write_table(ROWS[task], folder / "rows.parquet")
    mapping: dict[str, Any] = yaml.safe_load((EXAMPLES / task / "label.yaml").read_text(encoding="utf-8"))
    mapping["corpus"]["path"] = str(folder / "rows.parquet")
    mapping["model"]["name"] = model
    return {**mapping, "out": str(folder / "labels.parquet"), "workers": {"max": 1, "gpus": 0}}


@pytest.mark.parametrize("task", TASKS)
def test_every_file_of_a_task_parses_and_names_the_others(task: str) -> None:
    spec, job = load_label_job(EXAMPLES / task / "label.yaml")
    assert spec.model.name == "google/gemma-2-9b-it" and job.corpus.path[0].startswith("hf://datasets/")
    stores = []
    for name in ("features-2b", "features-9b-it"):
        features = load_job(EXAMPLES / task / f"{name}.yaml")
        assert features.corpus.path == (spec.out,) and features.corpus.text == "prompt"
        stores.append(features.store)
    study = load_study(EXAMPLES / task / "study.yaml")
    assert (study.store, study.other_stores) == (stores[0], (stores[1],))
    assert not isinstance(study.label, str) and study.label.path == spec.out


@pytest.mark.parametrize("task", TASKS)
def test_a_task_asks_what_it_should_of_the_hubs_columns(task: str, tmp_path: Path) -> None:
    spec, job = label_job_from_mapping(here(task, tmp_path), tmp_path)
    scanned, job = of_text(spec, job, lambda settled: (scan(settled.corpus), settled))
    rows = read_rows(slices(scanned, 0, scanned.rows), job.corpus, scanned.keep_types)
    asker = Asker(spec.task, spec.corpus.text)
    asked = [asker.question({name: values[row] for name, values in rows.keep.items()}) for row in range(scanned.rows)]
    assert asked == EXPECTED[task]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_planned_and_run_on_a_small_model(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    rows = run_here(here(task, tmp_path, str(answering_model(tmp_path))), tmp_path)
    assert len(rows) == 2 and not any(row["error"] for row in rows)
    assert [row["answer"] for row in rows] == [question.answer for question in EXPECTED[task]]
