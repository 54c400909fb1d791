"""A label job says what is asked and what would be right; whatever is not one is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from featurestore.errors import JobSpecError
from ray_jobs.labels.spec import as_mapping, label_job_from_mapping, load_either, load_label_job
from ray_jobs.spec import load_job

JOB: dict[str, Any] = {
    "corpus": {"path": "rows.jsonl", "id": "key", "keep": ["topic"]},
    "model": {"name": "owner/model"},
    "task": {"prompt": "{passage}\nQ: {question}", "choices": ["no", "yes"], "answer": "answer"},
    "out": "labels.parquet",
}
WRITE = {"prompt": "question", "answers": "names", "generate": 8}


def test_it_is_run_as_a_job_without_saes_that_reads_what_the_task_names(tmp_path: Path) -> None:
    spec, job = label_job_from_mapping(JOB, tmp_path)
    assert job.saes == () and job.store == str(tmp_path / "labels.parquet.parts")
    assert spec.out == str(tmp_path / "labels.parquet")
    assert job.corpus.path == (str(tmp_path / "rows.jsonl"),)
    assert job.corpus.text == "passage" and job.corpus.keep == ("topic", "passage", "question", "answer")


def test_without_a_prompt_the_text_of_the_corpus_is_asked(tmp_path: Path) -> None:
    task = {key: value for key, value in JOB["task"].items() if key != "prompt"}
    spec, job = label_job_from_mapping({**JOB, "corpus": {"path": "a.csv", "text": "body"}, "task": task}, tmp_path)
    assert job.corpus.text == "body" and spec.separator == " "


def test_a_chat_opens_the_models_turn_and_puts_nothing_before_a_choice(tmp_path: Path) -> None:
    model = {"name": "owner/model", "chat": True, "system_prompt": "Be brief."}
    spec, job = label_job_from_mapping({**JOB, "model": model}, tmp_path)
    assert job.model.generation_prompt and job.model.system_prompt == "Be brief." and spec.separator == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": {"prompt": "q"}}, "either choices with answer, or generate with answers"),
        ({"task": {**JOB["task"], **WRITE}}, "either choices with answer, or generate with answers"),
        ({"task": {"prompt": "q", "choices": ["a", "b"]}}, "choices needs answer too"),
        ({"task": {"prompt": "q", "generate": 4}}, "generate needs answers too"),
        ({"task": {**WRITE, "answer": "a"}}, "answer goes with choices"),
        ({"task": {**WRITE, "by": "per_byte"}}, "by goes with choices"),
        ({"task": {**JOB["task"], "match": "exact"}}, "match goes with generate"),
        ({"task": {**JOB["task"], "choices": ["one"]}}, "choices needs two texts"),
        ({"task": {**JOB["task"], "choices": [True, False]}}, "put quotes around it"),
        ({"task": {**JOB["task"], "prompt": "{question"}}, "without its other half"),
        ({"task": {**JOB["task"], "prompt": "{}"}}, "names no column"),
        ({"task": {**JOB["task"], "promt": "q"}}, "did you mean 'prompt'"),
        ({"out": "labels.csv"}, "has to end in .parquet"),
        ({"corpus": {"path": "a.csv", "keep": ["margin"]}}, "every label table has"),
        ({"model": {"name": "m/m", "tokens": "all"}}, "prompts are fed whole"),
        ({"model": {"name": "m/m", "long_documents": "windows"}}, "prompts are fed whole"),
        ({"model": {"name": "m/m", "chat": True, "generation_prompt": True, "tokens": "all"}}, "remove it"),
        ({"model": {"name": "m/m", "attn": "flex_attention"}}, "use 'eager' or 'sdpa'"),
        ({"model": {"name": "m/m", "system_prompt": "Be brief."}}, "only has a meaning with chat: true"),
        ({"saes": []}, "unknown key 'saes'"),
    ],
)
def test_what_is_no_label_job_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(JobSpecError) as caught:
        label_job_from_mapping({**JOB, **changes}, tmp_path, "job.yaml")
    assert said in str(caught.value) and str(caught.value).startswith("job.yaml: ")


def test_jobs_of_either_kind_say_who_takes_the_other(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB), encoding="utf-8")
    with pytest.raises(JobSpecError, match=r"is a label job, .* give it to `sparsemill label`"):
        load_job(path)
    path.write_text(yaml.safe_dump({"corpus": {"path": "a"}, "model": {"name": "m/m"}, "store": "s"}), encoding="utf-8")
    with pytest.raises(JobSpecError, match="no label job, for it has no task"):
        load_label_job(path)


def test_the_store_of_a_job_of_either_kind_is_told_so_that_its_run_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB), encoding="utf-8")
    spec, job = load_either(path)
    assert spec is not None and job.store == str(tmp_path / "labels.parquet.parts")
    other = {"corpus": {"path": "a"}, "model": {"name": "m/m"}, "saes": [{"path": "sae"}], "store": "s"}
    path.write_text(yaml.safe_dump(other), encoding="utf-8")
    spec, job = load_either(path)
    assert spec is None and job.store == str(tmp_path / "s")


@pytest.mark.parametrize(
    "changes",
    [{}, {"task": WRITE}, {"model": {"name": "./own", "chat": True}, "workers": {"rates": "r.yaml", "max": 2}}],
)
def test_as_a_mapping_it_means_the_same_in_another_directory(changes: dict[str, Any], tmp_path: Path) -> None:
    spec, job = label_job_from_mapping({**JOB, **changes}, tmp_path / "here")
    sent, same = label_job_from_mapping(as_mapping(spec, job), tmp_path / "there")
    assert same == job
    assert (sent.task, sent.out, sent.separator) == (spec.task, spec.out, spec.separator)
