"""Figures of a plan: what is known is exact, what is measured is said to be, and nothing else is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.errors import JobSpecError
from featurestore.format.store_plan import create_store
from ray_jobs.console import print_plan
from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.planning.measured import Place, place_here, rate_key, remember_rates
from tests.ray_jobs.jobs import make_job, write_corpus, write_models


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobPlan]:
    directory = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        corpus = write_corpus(directory / "c.jsonl", 100)
        yield make_plan(make_job(write_models(directory), corpus, directory / "store", units={"documents": 25}))


def test_without_a_rate_there_are_no_hours_and_no_money(plan: JobPlan) -> None:
    figures = estimate(plan, price=2.5)
    assert (figures.documents, figures.units, figures.missing_units) == (100, 4, 4)
    assert figures.tokens == pytest.approx(100 * plan.mean_tokens, abs=1)
    assert (figures.tokens_per_second, figures.worker_hours, figures.cost) == (None, None, None)


def test_a_given_rate_and_price_give_hours_and_money(plan: JobPlan) -> None:
    figures = estimate(plan, rate=10.0, price=3.0)
    assert figures.worker_hours == pytest.approx(figures.missing_tokens / 10.0 / 3600)
    assert figures.cost == pytest.approx(3.0 * figures.missing_tokens / 36_000)


def test_only_missing_units_are_charged(plan: JobPlan) -> None:
    half = estimate(replace(plan, committed={0: 1000, 1: 3000}), rate=10.0)
    assert half.missing_units == 2
    assert half.missing_tokens == pytest.approx(estimate(plan).tokens / 2, abs=1)


def test_parts_that_are_there_tell_the_size_of_the_rest(plan: JobPlan) -> None:
    assert not estimate(plan).bytes_measured
    half = estimate(replace(plan, committed={0: 1000, 1: 3000}))
    assert half.bytes_measured
    assert half.bytes_out == 8000


def test_a_measured_rate_serves_later_plans_of_the_same_bundle_and_settings(plan: JobPlan) -> None:
    here = place_here(plan.compute.device)
    assert here.hardware
    remember_rates(plan, {here: 1234.0})
    figures = estimate(plan)
    assert figures.tokens_per_second == 1234.0
    assert figures.rate_source is not None and figures.rate_source.startswith(f"measured here ({here}) on 20")
    other = replace(plan, compute=replace(plan.compute, threads=9))
    assert rate_key(other) != rate_key(plan)
    assert estimate(other).worker_hours is None


def test_what_another_place_reached_is_not_this_machines_rate(
    plan: JobPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    here = place_here(plan.compute.device)
    others = [Place("node-3", here.hardware), Place(here.host, "another processor")]
    for other in others:
        remember_rates(plan, {other: 777.0})
        figures = estimate(plan)
        assert (figures.tokens_per_second, figures.rate_source, figures.worker_hours) == (None, None, None)
        assert figures.rate_elsewhere is not None and figures.rate_elsewhere.tokens_per_second == 777.0
    print_plan(plan, figures)
    assert "a worker reached 777 tokens/s" in capsys.readouterr().out
    remember_rates(plan, {here: 5.0, others[0]: 888.0})
    figures = estimate(plan)
    assert (figures.tokens_per_second, figures.rate_elsewhere) == (5.0, None)


def test_a_thousand_nodes_leave_one_rate_of_a_kind(
    plan: JobPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    remember_rates(plan, {Place(f"node-{i}", "NVIDIA L4"): 100.0 + i for i in range(1_000)})
    assert len(json.loads((tmp_path / "rates.json").read_text())) == 1


def test_a_rate_that_does_not_say_where_it_was_measured_is_none(
    plan: JobPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    earlier = {rate_key(plan): {"tokens_per_second": 9.0, "date": "2026-01-01"}}
    (tmp_path / "rates.json").write_text(json.dumps(earlier))
    assert estimate(plan).tokens_per_second is None


def test_a_damaged_file_of_rates_is_no_obstacle(plan: JobPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    (tmp_path / "rates.json").write_text('{"x": 3', encoding="utf-8")
    assert estimate(plan).tokens_per_second is None
    remember_rates(plan, {place_here(plan.compute.device): 5.0})
    assert estimate(plan).tokens_per_second == 5.0


def test_a_named_kind_of_hardware_gives_rate_and_price_from_the_tokens_operations(
    plan: JobPlan, tmp_path: Path
) -> None:
    rates = tmp_path / "rates.yaml"
    rates.write_text(
        "currency: EUR\nhardware:\n  core: {device: cpu, gflop_per_second: 2, per_hour: 0.5}\n", encoding="utf-8"
    )
    two_threads = replace(plan, compute=replace(plan.compute, threads=2))
    figures = estimate(two_threads, hardware="core", rates_file=str(rates))
    assert figures.tokens_per_second == pytest.approx(2 * 2 / figures.gflop_per_token)
    assert (figures.price_per_hour, figures.currency, figures.hardware) == (1.0, "EUR", "core")
    assert figures.worker_hours is not None
    assert figures.cost == pytest.approx(figures.worker_hours * 1.0)
    assert estimate(two_threads, price=9.0, hardware="core", rates_file=str(rates)).price_per_hour == 9.0


def test_half_a_gpu_costs_half_and_does_half(plan: JobPlan) -> None:
    def on_gpus(gpus: float) -> JobPlan:
        workers = plan.job.workers.model_copy(update={"gpus": gpus})
        job = plan.job.model_copy(update={"workers": workers})
        return replace(plan, job=job, compute=replace(plan.compute, device="cuda"))

    whole, half, two = (estimate(on_gpus(gpus), hardware="h100") for gpus in (1.0, 0.5, 2.0))
    assert whole.tokens_per_second == pytest.approx(2 * (half.tokens_per_second or 0))
    assert whole.cost == pytest.approx(half.cost)
    assert two.tokens_per_second == whole.tokens_per_second  # the engine runs on one GPU
    assert two.cost == pytest.approx(2 * (whole.cost or 0))


def test_hardware_that_the_job_does_not_run_on_is_refused(plan: JobPlan) -> None:
    with pytest.raises(JobSpecError, match=r"'h100' is a GPU.*set workers\.gpus: 1"):
        estimate(plan, hardware="h100")


def test_wall_time_counts_only_workers_that_have_a_unit(plan: JobPlan) -> None:
    workers = plan.job.workers.model_copy(update={"max": 100})
    figures = estimate(replace(plan, job=plan.job.model_copy(update={"workers": workers})), rate=10.0)
    assert figures.worker_hours is not None
    assert figures.wall_hours == pytest.approx(figures.worker_hours / 4)


def test_a_job_that_leaves_the_device_open_is_planned_for_the_hardware_that_is_priced(
    plan: JobPlan, tmp_path: Path
) -> None:
    job = plan.job.model_copy(
        update={
            "workers": plan.job.workers.model_copy(update={"gpus": None}),
            "model": plan.job.model.model_copy(update={"dtype": None}),
            "store": str(tmp_path / "store"),
        }
    )
    planned = make_plan(job, device="cuda")
    assert (planned.compute.device, planned.compute.dtype) == ("cuda", "bfloat16")
    figures = estimate(planned, hardware="l4")
    assert (figures.hardware, figures.price_per_hour) == ("l4", 0.8)
    assert make_plan(job, device="cpu").compute.device == "cpu"


def test_hardware_of_another_kind_than_a_store_was_begun_on_is_refused(plan: JobPlan, tmp_path: Path) -> None:
    job = plan.job.model_copy(
        update={
            "workers": plan.job.workers.model_copy(update={"gpus": None}),
            "store": str(tmp_path / "store"),
        }
    )
    create_store(job.store, make_plan(job, device="cpu").store)
    with pytest.raises(JobSpecError, match=r"'l4' is a GPU, but the store was begun on CPUs: give another store"):
        estimate(make_plan(job, device="cuda"), hardware="l4")
