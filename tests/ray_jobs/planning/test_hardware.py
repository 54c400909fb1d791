"""The rates file: the shipped one is documented and valid, a user's is checked, operations agree with the paper's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.limit import layer_matrices
from featurestore.errors import BundleError, JobSpecError
from ray_jobs.backbone.bundle import open_bundle
from ray_jobs.backbone.tokens import ContentTokenizer, token_policy, windows_of
from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.hardware import SHIPPED_RATES, gflop_per_token, load_rates
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.backbone.decoders_for_tests import save_decoder
from tests.ray_jobs.jobs import make_job, write_models
from tests.tiny import tiny_sae


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    job = make_job(write_models(directory), directory / "c.jsonl", directory / "store")
    yield prepare(job, directory / "cache")


def test_every_shipped_kind_has_a_rate_a_price_and_a_source() -> None:
    rates = load_rates()
    assert {"h100", "a100", "l40s", "l4", "cpu-core"} <= set(rates.hardware)
    for kind in rates.hardware.values():
        assert kind.source
        assert kind.per_hour > 0


def test_every_key_of_the_shipped_file_is_explained_in_it() -> None:
    text = SHIPPED_RATES.read_text(encoding="utf-8")
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for kind in yaml.safe_load(text)["hardware"].values():
        for key in kind:
            assert f"#   {key} " in comments


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hardware: {}", "hardware"),
        ("hardware: {x: {per_hour: 1}}", "needs gflop_per_second or tokens_per_second"),
        ("hardware: {x: {per_hour: 1, gflop_per_second: 1, tokens_per_second: 1}}", "one of them"),
        ("hardware: {x: {per_hour: -1, gflop_per_second: 1}}", "per_hour"),
        ("hardware: {x: {per_hour: 1, gflop_per_second: .inf}}", "gflop_per_second"),
        ("hardware: {x: {per_huor: 1, gflop_per_second: 1}}", "did you mean 'per_hour'"),
        ("hardware: &a [1]", "anchors and aliases are refused"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_wrong_rates_file_gets_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobSpecError) as refusal:
        load_rates(path)
    assert says in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(JobSpecError, match="no hardware 'h10'; did you mean 'h100'"):
        load_rates().kind("h10", "rates.yaml")


def test_operations_of_a_token_are_those_that_the_shapes_give(bundle_dir: Path) -> None:
    config = yaml.safe_load((bundle_dir / "config.json").read_text(encoding="utf-8"))
    layer = sum(inputs * outputs for inputs, outputs in layer_matrices(config).values())
    mean_tokens = 20.0
    attention = 4 * config["num_attention_heads"] * config["head_dim"] * mean_tokens / 2
    expected = 3 * (2 * layer + attention) + 2 * 32 * 96  # layers 0 to 2, one SAE of 96 features
    assert gflop_per_token(open_bundle(bundle_dir), mean_tokens) == pytest.approx(expected / 1e9)


@pytest.fixture(scope="module")
def plan_of(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., JobPlan]:
    """plan_of(rows, corpus, **model) plans a job of such rows with the tiny Gemma 2."""
    models = bundle_dir.parents[1]

    def plan(rows: list[Any], corpus: dict[str, Any], **model: Any) -> JobPlan:
        directory = tmp_path_factory.mktemp("job")
        lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        (directory / "c.jsonl").write_text(lines, encoding="utf-8")
        of = {"id": None, "keep": [], **corpus}
        made = make_job(models, directory / "c.jsonl", directory / "store", corpus=of, model=model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARSEMILL_CACHE", str(models / "cache"))
            return make_plan(made)

    return plan


def counted_one_by_one(plan: JobPlan, rows: list[str], n_once: int) -> float:
    """Operations of a pooled token: two an entry of a matrix and position, and four a head's dimension, query and key.

    Of each window the first `n_once` positions are not computed with it.
    """
    config = yaml.safe_load((plan.bundle.path / "config.json").read_text(encoding="utf-8"))
    layer = sum(inputs * outputs for inputs, outputs in layer_matrices(config).values())
    width, policy = config["num_attention_heads"] * config["head_dim"], token_policy(plan.bundle, plan.job.model)
    operations = pooled = 0
    for content in ContentTokenizer(plan.bundle, plan.job.model.chat).encode(rows):
        assert not isinstance(content, str)
        for window in windows_of(0, content, policy)[0]:
            for position in range(n_once, len(window.ids)):
                operations += 3 * (2 * layer + 4 * width * (position + 1))
            pooled += window.n_pooled
    return operations / pooled + 2 * 32 * 96


def test_windows_cost_what_they_repeat_and_see_no_more_than_themselves(plan_of: Callable[..., JobPlan]) -> None:
    rows = ["love " * 3_000, "hate " * 2_000]
    plan = plan_of(rows, {}, max_tokens=128, long_documents="windows", stride=40)
    assert plan.sample.mean_window == pytest.approx(128, rel=0.03)
    found = estimate(plan).gflop_per_token * 1e9
    assert found == pytest.approx(counted_one_by_one(plan, rows, 1), rel=0.02)
    assert found < gflop_per_token(plan.bundle, plan.mean_tokens) * 1e9 / 3  # as if a document were one window


def test_a_template_is_paid_for_with_every_window_where_it_is_computed_so(plan_of: Callable[..., JobPlan]) -> None:
    rows = ["love " * 50, "hate " * 30]
    plan = plan_of(rows, {}, max_tokens=1024, chat=True, system_prompt="good " * 500)
    head = len(token_policy(plan.bundle, plan.job.model).shared)
    assert head > 500
    once = estimate(plan).gflop_per_token * 1e9
    assert once == pytest.approx(counted_one_by_one(plan, rows, head), rel=0.01)
    each = counted_one_by_one(plan, rows, 0)
    assert each > 5 * once
    flex = replace(plan, compute=replace(plan.compute, attn="flex_attention"))
    assert estimate(flex).gflop_per_token * 1e9 == pytest.approx(each, rel=0.01)
    model = replace(plan.bundle.model, model_type="llama")
    other = replace(plan, bundle=replace(plan.bundle, model=model))
    assert estimate(other).gflop_per_token * 1e9 == pytest.approx(each, rel=0.01)


def test_turns_that_do_not_count_are_paid_for_up_to_the_last_that_does(plan_of: Callable[..., JobPlan]) -> None:
    chat = [
        {"role": "user", "content": "love " * 400},
        {"role": "assistant", "content": "hate " * 20},
        {"role": "user", "content": "never " * 400},
    ]
    plan = plan_of([chat], {"messages": "text"}, max_tokens=1024, chat=True, turns=["assistant"])
    assert 15 <= plan.mean_tokens <= 25
    counted = counted_one_by_one(plan, [json.dumps(chat)], 1)
    assert estimate(plan).gflop_per_token * 1e9 == pytest.approx(counted, rel=0.01)


def test_short_plain_texts_cost_what_their_own_tokens_do(plan_of: Callable[..., JobPlan]) -> None:
    plan = plan_of(["love " * 50, "hate " * 30], {})
    for attn in ("eager", "flex_attention"):
        of = replace(plan, compute=replace(plan.compute, attn=attn))
        assert estimate(of).gflop_per_token == pytest.approx(gflop_per_token(plan.bundle, plan.mean_tokens), rel=1e-9)


def test_layers_and_heads_count_under_whatever_names_a_family_has_for_them(tmp_path: Path) -> None:
    path = save_decoder(tmp_path / "gpt2", "gpt2")
    sae = tiny_sae(tmp_path / "sae", layer=1, d_sae=64, model_name="gpt2")
    job = {
        "corpus": {"path": "none.jsonl"},
        "model": {"name": str(path), "dtype": "float32"},
        "saes": [{"path": str(sae)}],
        "store": "unused",
    }
    bundle = open_bundle(prepare(job_from_mapping(job, tmp_path), tmp_path / "bundles"))
    layer = 32 * 96 + 32 * 32 + 2 * 32 * 128  # queries, keys and values in one; output; four times as wide an MLP
    expected = 2 * (2 * layer) + 2 * 32 * 64 + 2 * 4 * 32 * 10.0 / 2
    assert gflop_per_token(bundle, 10.0) == pytest.approx(expected / 1e9)


def test_a_bundle_with_damaged_weights_is_said_to_be_so(bundle_dir: Path) -> None:
    weights = bundle_dir / "model.safetensors"
    whole = weights.read_bytes()
    try:
        for damaged in (b"", b"\xff" * 64, whole[:64]):
            weights.write_bytes(damaged)
            with pytest.raises(BundleError, match="prepare again"):
                gflop_per_token(open_bundle(bundle_dir), 1.0)
    finally:
        weights.write_bytes(whole)
