"""A scoring job writes predictions in place of features: the same plan, units and parts, each document once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from featurestore import FeatureStore
from featurestore.errors import MismatchError
from featurestore.format.provenance import bundle_sources
from featurestore.format.store_plan import create_store
from featurestore.models.model import Model
from featurestore.models.rule import Rule
from featurestore.models.table import kept_predictions
from featurestore.writing.writer import finish_store
from ray_jobs.corpus.read import read_rows
from ray_jobs.planning.job_plan import JobPlan, expected_store, make_plan
from ray_jobs.scoring.model_job import job_of
from ray_jobs.scoring.score_here import Scorer
from ray_jobs.scoring.scores import Scores
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.featurestore.models.handmade import linear_model
from tests.ray_jobs.jobs import make_job, parts_of, write_corpus, write_models

DOCUMENTS = 70


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        write_corpus(directory / "c.jsonl", DOCUMENTS, faults=True, max_words=90)
        yield write_models(directory)


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    plan = expected_store(make_job(models, models / "c.jsonl", models / "store"))
    coef = np.random.default_rng(0).normal(size=(1, 12))
    return linear_model(list(range(0, 96, 8)), coef, {"tiny": 96}, identity=plan.identity, bundle=bundle_sources(plan))


def planned(scores: Scores, models: Path, out: Path) -> JobPlan:
    corpus = {"path": str(models / "c.jsonl"), "id": "id", "keep": ["label"]}
    return make_plan(job_of(scores.model, None, corpus, str(out)), output=scores)


def run(plan: JobPlan) -> None:
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    finish_store(plan.job.store, [worker.run(unit).record for unit in plan.units])  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def plan(model: Model, models: Path) -> JobPlan:
    made = planned(Scores(model, Rule(), 2), models, models / "scores")
    run(made)
    return made


def test_every_document_is_scored_once_in_order_as_in_one_process(plan: JobPlan, model: Model) -> None:
    store = FeatureStore.open(plan.job.store)
    assert store.verify().ok
    assert store.schema.saes == () and len(store) == DOCUMENTS and len(plan.units) > 1
    table = store.documents().collect()
    documents = read_rows([part for unit in plan.units for part in unit.slices], plan.job.corpus, plan.scan.keep_types)
    expected = Scorer(model, 2, print, print).score(documents)
    assert table["doc_id"].to_list() == documents.doc_id
    assert table["label"].to_list() == documents.keep["label"]
    found = table.select("p_ham", "p_spam").cast(pl.Float64).to_numpy()
    np.testing.assert_allclose(found, expected.proba, atol=1e-4)
    assert table["decision"].to_list() == Rule().decide(model.classes, expected)
    assert table["prediction"].null_count() == table["p_spam"].null_count() == 4
    assert table["reasons"].null_count() == 0
    kept = [batch.problem for batch, _ in kept_predictions(model, store, ["label"])]
    assert [problem for batch in kept for problem in batch] == expected.problem and any(expected.problem)


def test_doing_it_again_gives_the_same_bytes(plan: JobPlan, model: Model, models: Path, tmp_path: Path) -> None:
    again = planned(Scores(model, Rule(), 2), models, tmp_path / "again")
    run(again)
    assert parts_of(tmp_path / "again") == parts_of(Path(plan.job.store))


@pytest.mark.parametrize("change", ["rule", "model"])
def test_another_rule_or_model_does_not_go_on_with_it(change: str, plan: JobPlan, model: Model, models: Path) -> None:
    other = Scores(model, Rule("spam"), 2)
    if change == "model":
        other = Scores(replace(model, tensors={**model.tensors, "intercept": np.ones(1)}), Rule(), 2)
    with pytest.raises(MismatchError):
        planned(other, models, Path(plan.job.store))
    assert planned(Scores(model, Rule(), 2), models, Path(plan.job.store)).finished
