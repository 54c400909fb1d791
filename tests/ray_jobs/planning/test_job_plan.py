"""A plan knows everything about a job, refuses what cannot work, and writes nothing into the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore.errors import BundleError, CorpusError, JobSpecError, MismatchError, StoreError, UsageError
from featurestore.format.store_plan import create_store, read_plan
from ray_jobs.console import plan_facts, print_plan
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.job_plan import check_device, make_plan
from tests.ray_jobs.jobs import make_job, write_corpus, write_models
from tests.tiny import tiny_texts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield write_models(directory)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "c.jsonl", 60)


def test_a_plan_covers_every_document_once(models: Path, corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, corpus, tmp_path / "store", units={"documents": 25}))
    assert plan.store.units == [(0, 25), (25, 50), (50, 60)]
    assert plan.store.rows == plan.scan.rows == 60
    assert plan.missing == plan.units
    assert [column for column in plan.store.schema.arrow_schema().names if "__" in column] == [
        "tiny__indices", "tiny__max", "tiny__sum", "tiny__count", "resid_post_2__hidden_mean",
    ]  # fmt: skip


def test_a_plan_writes_nothing(models: Path, corpus: Path, tmp_path: Path) -> None:
    make_plan(make_job(models, corpus, tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_links_reach_again(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c" / "sub").mkdir(parents=True)
    write_corpus(tmp_path / "c" / "sub" / "a.jsonl", 3)
    (tmp_path / "c" / "tub").symlink_to("sub")
    (tmp_path / "c" / "b.jsonl").symlink_to("sub/a.jsonl")
    made = make_plan(make_job(models, tmp_path / "c", tmp_path / "store"))
    assert made.scan.rows == 3
    figures = estimate(made)
    assert plan_facts(made, figures)["reached_twice"] == [["tub", "sub"], ["sub/a.jsonl", "b.jsonl"]]
    print_plan(made, figures)
    assert "tub is sub again, which is read once (and 1 more reached twice)" in capsys.readouterr().out


def test_sampled_tokens_are_those_that_the_engine_pools(models: Path, corpus: Path, tmp_path: Path) -> None:
    job = make_job(models, corpus, tmp_path / "store", model={"max_tokens": 32})
    plan = make_plan(job)
    rows = Extractor(plan.bundle, ExtractSettings(**plan.settings)).extract(tiny_texts(60, max_words=30))
    assert plan.sample.documents == 60
    assert plan.mean_tokens == pytest.approx(rows.n_tokens.mean())
    assert plan.sample.truncated_share == pytest.approx(np.mean(rows.truncated))
    assert 0 < plan.sample.truncated_share < 1


def test_a_begun_store_fixes_threads_and_units(models: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = make_plan(make_job(models, corpus, store, workers={"cpus": 2}, units={"documents": 7}))
    create_store(str(store), first.store)
    again = make_plan(make_job(models, corpus, store, units={"documents": None}))
    assert again.store.fingerprint == first.store.fingerprint
    assert again.units == first.units
    assert again.compute.threads == 2
    assert again.mean_tokens == first.mean_tokens


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"pool": ["max"]}, r"pool \['max', 'sum', 'count'\] -> \['max'\]"),
        ({"model": {"max_tokens": 63}}, "model.max_tokens 64 -> 63"),
        ({"model": {"dtype": "bfloat16"}}, "model.dtype float32 -> bfloat16"),
        ({"units": {"documents": 30}}, "units of 20 -> 30 documents"),
        ({"saes": [{"path": "sae", "name": "tiny", "layer": 2}], "value_bits": 24}, "value_bits 8 -> 24"),
    ],
)
def test_another_job_on_a_begun_store_is_refused_with_the_difference(
    models: Path, corpus: Path, tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    store = tmp_path / "store"
    create_store(str(store), make_plan(make_job(models, corpus, store)).store)
    before = (store / "store.json").read_bytes()
    with pytest.raises(MismatchError, match=difference):
        make_plan(make_job(models, corpus, store, **change))
    assert (store / "store.json").read_bytes() == before


def test_a_changed_corpus_is_another_job(models: Path, tmp_path: Path) -> None:
    store, corpus = tmp_path / "store", write_corpus(tmp_path / "c.jsonl", 30)
    create_store(str(store), make_plan(make_job(models, corpus, store)).store)
    write_corpus(corpus, 30, seed=1)
    with pytest.raises(MismatchError, match="corpus"):
        make_plan(make_job(models, corpus, store))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"corpus": {"text": "txt"}}, CorpusError, "txt"),
        ({"corpus": {"path": "/nowhere/*.jsonl"}}, CorpusError, "/nowhere"),
        ({"saes": [{"path": "foreign", "name": "f"}]}, BundleError, "gemma-2-9b"),
        ({"model": {"name": "/nowhere/model"}}, BundleError, "/nowhere/model"),
        ({"model": {"attn": "sdpa"}}, JobSpecError, "soft cap"),
        ({"model": {"max_tokens": 4, "chat": True}}, JobSpecError, "max_tokens"),
    ],
)
def test_a_wrong_job_is_refused_and_leaves_no_store(
    models: Path, corpus: Path, tmp_path: Path, change: dict[str, Any], error: type[UsageError], says: str
) -> None:
    with pytest.raises(error, match=says) as refusal:
        make_plan(make_job(models, corpus, tmp_path / "store", **change))
    assert refusal.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_allowed_mismatch_is_recorded(models: Path, corpus: Path, tmp_path: Path) -> None:
    sae = {"path": "foreign", "name": "f", "allow_mismatch": True}
    plan = make_plan(make_job(models, corpus, tmp_path / "store", saes=[sae]))
    assert "gemma-2-9b" in str(plan.store.identity["saes"]["f"]["mismatch"])


def test_an_edited_store_json_is_refused(models: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    create_store(str(store), make_plan(make_job(models, corpus, store)).store)
    path = store / "store.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"max_tokens": 64', '"max_tokens": 65'), encoding="utf-8")
    with pytest.raises(StoreError, match="edited"):
        make_plan(make_job(models, corpus, store))


def test_the_store_records_the_job_and_no_credentials(models: Path, corpus: Path, tmp_path: Path) -> None:
    job = make_job(models, corpus, tmp_path / "store")
    create_store(job.store, make_plan(job).store)
    recorded = read_plan(job.store)
    assert recorded.spec["corpus"]["text"] == "text"
    assert {"versions", "host", "created_at", "sample"} <= set(recorded.extra)
    leaky = job.model_copy(update={"store": "s3://KEY:SECRET@bucket/x"})
    from ray_jobs.planning.job_plan import _recorded_spec

    assert "SECRET" not in json.dumps(_recorded_spec(leaky))


def test_a_gpu_job_on_a_machine_without_one_is_refused_at_once(models: Path, corpus: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    plan = make_plan(make_job(models, corpus, tmp_path / "store", workers={"gpus": 1}))
    with pytest.raises(JobSpecError, match=r"workers\.gpus: torch sees no CUDA device"):
        check_device(plan.compute)
