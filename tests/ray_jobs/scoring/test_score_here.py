"""Texts scored in this process get the scores of their rows in a store, by a bundle found or built again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from featurestore import FeatureStore
from featurestore.errors import StudyError
from featurestore.format.provenance import bundle_sources
from featurestore.format.store_plan import StorePlan, create_store
from featurestore.models.model import Model
from featurestore.models.predict import CUT, EMPTY, Predicted, predict_store
from featurestore.writing.writer import finish_store
from ray_jobs.corpus.read import DocumentRows, read_rows
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.scoring.model_job import find_bundle, job_of
from ray_jobs.scoring.score_here import Scorer
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.featurestore.models.handmade import linear_model
from tests.ray_jobs.jobs import make_job, write_corpus, write_models
from tests.tiny import tiny_sae

COLUMNS = list(range(0, 96, 3))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        write_models(directory)
        tiny_sae(directory / "shallow", layer=1, seed=4)
        yield directory


@pytest.fixture(scope="module")
def plan(models: Path) -> JobPlan:
    """A store of two SAEs, as a worker writes it."""
    corpus = write_corpus(models / "c.jsonl", 40, faults=True, max_words=90)
    saes = [{"path": str(models / "sae"), "name": "tiny"}, {"path": str(models / "shallow"), "name": "shallow"}]
    return extracted(make_plan(make_job(models, corpus, models / "store", saes=saes, value_bits=8)))


def extracted(made: JobPlan) -> JobPlan:
    create_store(made.job.store, made.store)
    worker = Worker(WorkerTask.of(made))
    worker.open()
    finish_store(made.job.store, [worker.run(unit).record for unit in made.units])  # type: ignore[union-attr]
    return made


@pytest.fixture(scope="module")
def documents(plan: JobPlan) -> DocumentRows:
    return read_rows([part for unit in plan.units for part in unit.slices], plan.job.corpus, plan.scan.keep_types)


def model_of(plan: StorePlan, names: tuple[str, ...] = ("tiny",), pool: str = "max", **header: object) -> Model:
    rng = np.random.default_rng(3)
    columns = [start * 96 + c for start in range(len(names)) for c in COLUMNS]
    coef = 0.3 * rng.normal(size=(1, len(columns)))
    coef[0, ::4] = 0
    d_sae = dict.fromkeys(names, 96)
    return linear_model(columns, coef, d_sae, identity=plan.identity, pool=pool, bundle=bundle_sources(plan), **header)


def scored_anew(model: Model, documents: DocumentRows) -> Predicted:
    return Scorer(model, 0, lambda _line: None, lambda _line: None).score(documents)


def scored(model: Model, documents: DocumentRows, explain: int = 0) -> Predicted:
    said: list[str] = []
    found = Scorer(model, explain, said.append, said.append).score(documents)
    assert said == []
    return found


@pytest.mark.parametrize(
    ("names", "pool", "header"),
    [
        (("tiny",), "max", {}),
        (("tiny",), "mean", {}),
        (("shallow",), "sum", {"scale": "sqrt"}),
        (("shallow", "tiny"), "count", {}),
        (("tiny",), "max", {"binarize": 1.0}),
        ((), "max", {"kind": "dense", "dense": "resid_post_1__hidden_mean", "pool": None}),
    ],
)
def test_scores_are_those_of_the_store(
    plan: JobPlan, documents: DocumentRows, names: tuple[str, ...], pool: str, header: dict[str, object]
) -> None:
    model = model_of(plan.store, names or ("tiny",), pool)
    model = replace(model, header={**model.header, **header})
    if not names:
        dense = {"columns": np.arange(32), "scale": np.full(32, 2.0)}
        model = replace(model, header={**model.header, "saes": []}, tensors={**model.tensors, **dense})
    batches = list(predict_store(model, FeatureStore.open(plan.job.store), explain=2 if names else 0))
    found = scored(model, documents, explain=2 if names else 0)
    assert found.doc_id.tolist() == [i for batch in batches for i in batch.doc_id]
    np.testing.assert_allclose(found.proba, np.concatenate([batch.proba for batch in batches]), atol=1e-4)
    assert found.y_pred.tolist() == [y for batch in batches for y in batch.y_pred]
    theirs = [problem for batch in batches for problem in batch.problem]
    assert [n for n, problem in enumerate(found.problem) if problem] == [
        n for n, problem in enumerate(theirs) if problem
    ]
    if names:
        reasons = [reason for batch in batches for reason in batch.reasons or ()]
        assert found.reasons is not None
        assert [[r.feature for r in each] for each in found.reasons] == [[r.feature for r in each] for each in reasons]


def test_reasons_say_at_which_tokens_their_features_fire(plan: JobPlan, documents: DocumentRows) -> None:
    found = scored(model_of(plan.store), documents, explain=3)
    assert found.reasons is not None
    told = [(n, reason) for n, each in enumerate(found.reasons) for reason in each]
    assert len(told) > 40 and all(reason.tokens for _, reason in told)
    for n, reason in told:
        text = documents.text[n]
        assert text is not None and reason.tokens is not None
        assert all(token.text == text[token.start : token.stop] for token in reason.tokens)
        assert reason.tokens[0].value == pytest.approx(reason.value, rel=2**-8)  # rounded as in the store


def test_what_is_wrong_with_a_document_is_said(plan: JobPlan, documents: DocumentRows) -> None:
    found = scored(model_of(plan.store), documents)
    assert found.problem[7] == EMPTY and found.y_pred[7] == -1
    assert "not finite" in str(found.problem[9]) and np.isnan(found.proba[9]).all()
    cut = [n for n, problem in enumerate(found.problem) if problem == CUT]
    assert cut and (found.y_pred[cut] >= 0).all() and found.truncated[cut].all()


def test_the_bundle_of_the_training_store_is_found_by_its_hash(plan: JobPlan) -> None:
    found = find_bundle(model_of(plan.store))
    assert found is not None and found.sha256 == plan.bundle.sha256


def test_a_model_of_an_earlier_version_is_scored_where_its_bundle_is(plan: JobPlan, documents: DocumentRows) -> None:
    model = model_of(plan.store)
    old = replace(model, header={k: v for k, v in model.header.items() if k != "bundle"})
    np.testing.assert_array_equal(scored(old, documents).proba, scored(model, documents).proba)
    with pytest.raises(StudyError, match=r"it was written by an earlier version.*; give --job .* or --store"):
        job_of(old)


def test_a_bundle_that_is_gone_is_built_again_from_what_the_model_names(
    plan: JobPlan, documents: DocumentRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(plan.store)
    expected = scored(model, documents).proba
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    said: list[str] = []
    scorer = Scorer(model, 0, said.append, said.append)
    assert any("loading SAE tiny" in line for line in said)
    assert not any("shallow" in line for line in said)  # which it does not read
    np.testing.assert_allclose(scorer.score(documents).proba, expected, atol=1e-6)


def test_an_sae_whose_files_do_not_say_where_it_reads_is_hooked_there_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = load_file(models / "sae" / "sae_weights.safetensors")
    (tmp_path / "scope").mkdir()
    np.savez(tmp_path / "scope" / "params.npz", **sae)  # as Gemma Scope is laid out
    corpus = write_corpus(tmp_path / "c.jsonl", 10)
    said = {"path": str(tmp_path / "scope"), "name": "tiny", "layer": 1, "site": "mlp_out"}
    made = extracted(make_plan(make_job(models, corpus, tmp_path / "store", saes=[said], value_bits=8)))
    model = model_of(made.store)
    rows = read_rows([part for unit in made.units for part in unit.slices], made.job.corpus, made.scan.keep_types)
    expected = np.concatenate([batch.proba for batch in predict_store(model, FeatureStore.open(made.job.store))])
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    np.testing.assert_allclose(scored_anew(model, rows).proba, expected, atol=1e-4)
    assert job_of(model).saes[0].site == "mlp_out"


def test_a_bundle_that_cannot_be_built_again_is_named(
    plan: JobPlan, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    model = model_of(plan.store)
    sources = {**model.header["bundle"], "model": {**model.header["bundle"]["model"], "name": str(tmp_path / "gone")}}
    with pytest.raises(StudyError, match=r"the bundle that this model was trained on \(sha256 .*gone"):
        Scorer(replace(model, header={**model.header, "bundle": sources}), 0, print, print)


def test_another_encoder_under_the_same_path_is_refused(
    plan: JobPlan, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    model = model_of(plan.store)
    shutil.copytree(models / "shallow", tmp_path / "sae")
    tiny_sae(tmp_path / "sae", seed=9)
    sae = {**model.header["bundle"]["saes"]["tiny"], "path": str(tmp_path / "sae")}
    sources = {**model.header["bundle"], "saes": {"tiny": sae}}
    with pytest.raises(StudyError, match="its SAE 'tiny' is not the one that this model was trained on"):
        Scorer(replace(model, header={**model.header, "bundle": sources}), 0, print, print)


def test_scoring_here_imports_no_ray() -> None:
    code = (
        "import sys, ray_jobs.scoring.documents, ray_jobs.scoring.score_here, training.predict_cli, sparsemill\n"
        "print(sorted({'ray', 'sae_lens', 'sklearn', 'transformer_lens', 'numba'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
