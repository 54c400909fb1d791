"""How many documents may fail: shares and numbers of one meaning each, and a run beyond them that keeps its work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsemill
from featurestore import FeatureStore
from featurestore.format.store_plan import create_store
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.run.driver import extract
from ray_jobs.run.outcome import TooManyErrors
from ray_jobs.tolerance import errors_allowed, exceeds, limit
from ray_jobs.workers.worker import Worker, WorkerTask
from sparsemill import stages
from tests.ray_jobs.jobs import job_mapping, make_job, parts_of, write_job, write_models
from tests.tiny import NAN_WORD

DOCUMENTS, BAD = 60, 40


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    texts = [f"love {NAN_WORD} hate" if row < BAD - 1 else "river stone" for row in range(DOCUMENTS)]
    lines = [json.dumps({"id": f"d{row}", "text": text, "label": row % 3}) for row, text in enumerate(texts)]
    lines[-1] = "broken"
    (directory / "c.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield write_models(directory)


@pytest.fixture(scope="module")
def job(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of which two thirds fail, its units done by a worker in this process; its run has the manifest to write."""
    directory = tmp_path_factory.mktemp("job")
    plan = make_plan(make_job(models, models / "c.jsonl", directory / "store"))
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    for unit in plan.units:
        worker.run(unit)
    with pytest.raises(TooManyErrors, match="40 of 60 documents"):
        extract(plan.job)
    return write_job(directory / "job.yaml", job_mapping(models, models / "c.jsonl", directory / "store"))


@pytest.mark.parametrize(
    ("errors", "documents", "allowed", "too_many"),
    [
        (50, 100, 0.5, False),
        (51, 100, 0.5, True),
        (29, 100, 0.29, False),  # in floating point 0.29 of 100 is a little less than 29
        (30, 100, 0.29, True),
        (1, 100, 1, False),
        (2, 100, 1, True),
        (0, 100, 0, False),
        (1, 100, 0, True),
        (1, 100, 0.0, True),
        (100, 100, 100, False),
        (1, 1_000_000, 1e-06, False),
        (2, 1_000_000, 1e-06, True),
        (0, 0, 0.5, False),
    ],
)
def test_a_share_is_below_one_and_a_number_is_whole(
    errors: int, documents: int, allowed: float, too_many: bool
) -> None:
    assert errors_allowed(allowed) == allowed
    assert exceeds(errors, documents, allowed) is too_many


def test_half_is_the_default_and_it_decides_no_value(models: Path) -> None:
    jobs = [
        make_job(models, models / "c.jsonl", models / "store", corpus=corpus)
        for corpus in ({}, {"max_errors": 0.5}, {"max_errors": 7})
    ]
    assert jobs[0] == jobs[1]
    assert len({make_plan(one).store.fingerprint for one in jobs}) == 1
    assert [limit(one.corpus.max_errors) for one in jobs] == ["0.5", "0.5", "7"]


def test_the_store_is_whole_and_the_sentence_has_the_commonest_errors(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = job.parent / "store"
    assert len(parts_of(store)) == 3
    assert FeatureStore.open(str(store)).verify().ok
    before = parts_of(store)
    assert sparsemill.main(["extract", str(job)]) == 1
    said = capsys.readouterr()
    assert "nothing to do, the whole store is there" in said.out
    sentence = said.err.splitlines()[-1]
    assert "40 of 60 documents (66.7%) have an error, more than corpus.max_errors: 0.5 allows; 39: " in sentence
    assert "not finite" in sentence
    assert "(as d0: " in sentence
    assert "; 1: the line is not JSON" in sentence
    assert "raise corpus.max_errors to accept it" in sentence
    assert parts_of(store) == before


def test_machines_are_told_the_same(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sparsemill.main(["extract", str(job), "--json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["documents"], document["errors"], document["units_run"]) == (60, 40, 0)
    assert document["exit_code"] == 1
    assert document["error"] in said.err
    assert [kind["documents"] for kind in document["error_kinds"]] == [39, 1]
    assert document["error_kinds"][0]["examples"][0][0] == "d0"


def test_what_accepts_them_needs_no_other_store(models: Path, job: Path) -> None:
    accepted = make_job(models, models / "c.jsonl", job.parent / "store", corpus={"max_errors": 40})
    assert extract(accepted).errors == 40


def test_new_text_of_which_too_much_fails_is_not_classified(job: Path) -> None:
    with pytest.raises(TooManyErrors, match="40 of 60 documents"):
        stages.extracted(str(job), lambda plan, uri: None)


def test_a_plan_that_knows_it_says_so(models: Path, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = job_mapping(models, models / "c.jsonl", job.parent / "store", corpus={"max_errors": 0})
    assert sparsemill.main(["plan", str(write_job(job.with_name("strict.yaml"), mapping))]) == 0
    assert "1 of 60 documents (1.7%) will have an error, more than corpus.max_errors: 0 allows" in (
        capsys.readouterr().out
    )


def test_a_demo_that_fails_says_why_in_its_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    code = sparsemill.main(["demo", "--out", str(tmp_path / "demo"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == document["exit_code"] != 0
