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
from ray_jobs.backbone.tokens import ContentTokenizer, Window, token_policy, windows_of
from ray_jobs.console import plan_facts, print_plan
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.job_plan import JobPlan, check_device, make_plan
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


TEXT_ALONE: dict[str, Any] = {"id": None, "keep": []}


def one_word(path: Path, *counts: int) -> Path:
    """Documents of so many times the same word, which is a token and five characters with its blank."""
    path.write_text("".join(json.dumps({"text": "love " * count}) + "\n" for count in counts), encoding="utf-8")
    return path


def in_full(plan: JobPlan, *documents: str) -> list[list[Window]]:
    """The windows of whole documents."""
    policy = token_policy(plan.bundle, plan.job.model)
    contents = ContentTokenizer(plan.bundle, plan.job.model.chat).encode(documents)
    return [windows_of(0, content, policy)[0] for content in contents if not isinstance(content, str)]


@pytest.mark.parametrize("chat", [False, True])
def test_long_documents_are_planned_at_their_full_length(models: Path, tmp_path: Path, chat: bool) -> None:
    corpus = one_word(tmp_path / "c.jsonl", 100_000, 50)  # 500,000 characters, of which the sample has a fifth
    windows = {"max_tokens": 1024, "long_documents": "windows", "chat": chat}
    plan = make_plan(make_job(models, corpus, tmp_path / "store", corpus=TEXT_ALONE, model=windows))
    whole = in_full(plan, "love " * 100_000, "love " * 50)
    assert plan.mean_tokens == pytest.approx(sum(w.n_pooled for some in whole for w in some) / 2, rel=1e-3)
    assert plan.sample.longest == 1024


def test_documents_beyond_what_is_counted_are_planned_at_their_full_length(models: Path, tmp_path: Path) -> None:
    corpus = one_word(tmp_path / "c.jsonl", 600_000)
    windows = {"max_tokens": 1024, "long_documents": "windows"}
    plan = make_plan(make_job(models, corpus, tmp_path / "store", corpus=TEXT_ALONE, model=windows))
    assert plan.mean_tokens == pytest.approx(600_000, rel=1e-3)


@pytest.mark.parametrize("long_documents", ["windows", "truncate"])
@pytest.mark.parametrize("turns", [["user"], ["system", "user"]])
def test_long_conversations_are_planned_at_their_full_length(
    models: Path, tmp_path: Path, turns: list[str], long_documents: str
) -> None:
    chat = [{"role": "system", "content": "hate " * 40_000}, {"role": "user", "content": "love " * 10_000}]
    corpus = tmp_path / "c.jsonl"
    corpus.write_text(json.dumps({"chat": chat}), encoding="utf-8")
    of = {**TEXT_ALONE, "text": "chat", "messages": "chat"}
    model = {"max_tokens": 30_000, "long_documents": long_documents, "chat": True, "turns": turns}
    plan = make_plan(make_job(models, corpus, tmp_path / "store", corpus=of, model=model))
    (whole,) = in_full(plan, json.dumps(chat))
    assert plan.mean_tokens == pytest.approx(sum(window.n_pooled for window in whole), rel=1e-3)
    assert plan.sample.truncated_share == (long_documents == "truncate")


def test_a_long_document_that_is_cut_is_said_to_be(models: Path, tmp_path: Path) -> None:
    corpus = one_word(tmp_path / "c.jsonl", 100_000, 25_000)
    plan = make_plan(make_job(models, corpus, tmp_path / "store", corpus=TEXT_ALONE, model={"max_tokens": 32_768}))
    assert plan.sample.truncated_share == 0.5


def test_a_begun_store_fixes_threads_and_units(models: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = make_plan(make_job(models, corpus, store, workers={"cpus": 2}, units={"documents": 7}))
    create_store(str(store), first.store)
    again = make_plan(make_job(models, corpus, store, units={"documents": None}))
    assert again.store.fingerprint == first.store.fingerprint
    assert again.units == first.units
    assert again.compute.threads == 2
    assert again.mean_tokens == first.mean_tokens
    assert again.sample == first.sample


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
