"""The benchmarks compare ways of computing the same thing: each peer finds the reference's features on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import compressed, corpus, gpu, gpu_attention, gpu_job, gpu_setup, gpu_ways, limit, machine, report
from benchmarks.peers import Sae, Setup, Task, make_peer
from ray_jobs.engine.device_pooling import pool_on_device
from ray_jobs.engine.encoder import Inputs, SaeEncoder
from tests.reference import ReferenceModel, encode
from tests.tiny import MODEL_NAME, tiny_gemma2, tiny_sae, tiny_texts

LAYER = 2


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("models")
    sae = Sae(str(tiny_sae(folder / "sae", layer=LAYER)), LAYER)
    return Setup(str(tiny_gemma2(folder)), MODEL_NAME, (sae,), max_tokens=64, threads=1, dtype="float32")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return tiny_texts(3, seed=5, min_words=5, max_words=40)


@pytest.fixture(scope="module")
def expected(setup: Setup, texts: list[str]) -> list[np.ndarray]:
    reference = ReferenceModel(setup.model)
    residuals = [reference.residual(reference.windows(text, setup.max_tokens), LAYER) for text in texts]
    return [np.flatnonzero(encode(setup.sae.path, residual).max(axis=0)) for residual in residuals]


@pytest.fixture
def task(tmp_path: Path, texts: list[str]) -> Task:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    file = corpus.write_jsonl(tmp_path / "corpus.jsonl", texts)
    rehearsal = corpus.write_jsonl(tmp_path / "rehearsal.jsonl", texts[:1])
    return Task(file, rehearsal, tmp_path / "out", tmp_path / "scratch")


@pytest.mark.parametrize("key", ["a", "a2", "b", "d", pytest.param("ours", marks=pytest.mark.slow)])
def test_a_peer_finds_the_features_of_the_reference(
    key: str, setup: Setup, task: Task, texts: list[str], expected: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(task.scratch))
    peer = make_peer(key)
    peer.open(setup, task)
    try:
        processed = peer.run()
        found = peer.features()
    finally:
        peer.close()
    assert report.mean_jaccard(expected, found) == 1
    assert processed is None or processed >= sum(len(text.split()) for text in texts)
    assert any(task.out.rglob("*.*"))


def test_the_cost_of_a_token_counts_matrices_what_is_seen_and_the_encoder() -> None:
    config = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    }
    lengths = [5, 1]
    cost = limit.token_cost(config, [(1, 100)], lengths)
    matrices = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    assert cost.layers == 2 * matrices * 2
    # position p sees BOS and everything up to itself: p + 1 positions, or the window
    sliding = sum(min(position + 1, 3) for length in lengths for position in range(1, length + 1))
    full = sum(position + 1 for length in lengths for position in range(1, length + 1))
    assert cost.attention == pytest.approx(4 * 2 * 4 * (sliding + full) / sum(lengths))
    assert cost.sae == 2 * 8 * 100
    assert cost.total == cost.layers + cost.attention + cost.sae


def test_the_benchmarks_sae_fires_as_often_as_it_should(tmp_path: Path) -> None:
    from benchmarks.weights import write_sae

    x_ND = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 3, 32) + 5
    W_FD = torch.nn.functional.normalize(torch.randn(512, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    write_sae(tmp_path / "sae", x_ND, W_FD, LAYER, l0=12, model_name=MODEL_NAME)
    acts_NF = encode(tmp_path / "sae", x_ND.numpy())
    assert (acts_NF > 0).sum() / len(x_ND) == pytest.approx(12, rel=0.05)
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]["model_name"] == MODEL_NAME


def test_a_subset_is_evenly_spaced_and_in_order() -> None:
    texts = [str(number) for number in range(10)]
    assert corpus.evenly_spaced(texts, 3) == ["0", "3", "6"]
    assert corpus.evenly_spaced(texts, 99) == texts
    assert [len(text.split()) for text in corpus.long_documents(["a b", "c"], [2, 1], 4, 2)] == [5, 4]


def test_overlap_is_the_mean_over_documents() -> None:
    first, second = [np.array([1, 2]), np.array([], dtype=int)], [np.array([2, 3]), np.array([], dtype=int)]
    assert report.mean_jaccard(first, second) == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.slow
def test_the_gpu_benchmarks_ways_find_the_same_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--models", "2b", "--json"]) == 0
    ((_, table),) = json.loads(capsys.readouterr().out)["models"]["2b"]["saes"].items()
    assert set(table["ways"]) == {
        "(i) naive",
        "(ii) + truncated",
        "(iii) + SAE bf16",
        "(iv) + packed",
        "(v) + compiled",
        "engine",
    }
    for way in table["ways"].values():
        assert way["error"] is None
        assert way["agreement"] is None or way["agreement"] > 0.97
        assert 1 <= way["fed_per_content"] < 1.1
    assert table["sae_half"]["chunks"]["agreement"] == 1


@pytest.mark.parametrize("argv", [["--tiny", "--models", "27b"], []])
def test_the_gpu_benchmark_refuses_what_it_cannot_do(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(argv) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_one_way_and_width_of_the_gpu_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--models", "9b", "--ways", "iii,engine", "--widths", "128", "--seconds", "0.1"]) == 0
    printed = capsys.readouterr().err
    assert "9b, 128 features" in printed
    assert "engine" in printed
    assert "naive" not in printed


def test_tilings_of_attention_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_attention.main(["--tiny"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert row.startswith("torch's own")
    assert row.endswith("0.0e+00")


@pytest.mark.slow  # starts Ray
def test_a_job_beside_the_engine_in_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_job.main(["--tiny", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["units"] == 4
    assert figures["ways"]["job"]["errors"] == 0
    assert figures["ways"]["job"]["tokens_per_second"] > 0


def test_a_record_is_named_after_the_device() -> None:
    described = machine.describe()
    assert machine.kind({**described, "device": "NVIDIA H200 (sm_90, CUDA 13.0)"}) == "nvidia-h200"
    assert machine.kind({**described, "device": "CPU"}) == machine.kind(described)


def test_idle_time_is_what_no_kernel_covers() -> None:
    assert gpu.gaps([(0, 4), (1, 2), (6, 8), (8, 10)]) == pytest.approx(0.2)
    assert gpu.gaps([(3, 5)]) == 0


def test_the_fused_kernel_equals_the_engines_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="part of torch for GPUs only; TRITON_INTERPRET runs it on any CPU")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from benchmarks import gpu_kernel

    case = gpu_setup.TINY["2b"]
    model = gpu_setup.random_model(case, "cpu")
    x_ND = torch.randn(100, case.shape.d_model, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    ((bundle, _),) = gpu_setup.write_bundles(tmp_path, "2b", case, model, x_ND, "cpu").values()
    encoder = SaeEncoder(bundle, bundle.saes[0], "cpu")
    lengths = np.array([1, 40, 16, 15, 27, 1])
    found = gpu_kernel.fused_rows(encoder, x_ND, lengths, gpu_kernel.SMALL[0])
    expected = pool_on_device(encoder, Inputs(x_ND), lengths, gpu_ways.POOLS)
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.values["count"], expected.values["count"])
    for pool in ("max", "sum"):
        np.testing.assert_allclose(found.values[pool], expected.values[pool], rtol=1e-5, atol=1e-5)


def test_reading_a_compressed_file_by_units_is_put_beside_one_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", "set again by the benchmark")  # and put back after it
    assert compressed.main(["--rows", "4000", "--units", "4", "--repeats", "1", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files["gzip"]["text_bytes"] == files["zstd"]["text_bytes"] > 4000 * 280
    assert all(found["ratios"][0] > 0 for found in files.values())


def test_a_jobs_rate_counts_units_by_the_time_that_they_have_in_common() -> None:
    lines = [{"finished_at": end, "seconds": 4.0, "tokens": 400} for end in (4, 6, 8, 10, 12, 14)]
    # from 6, when the second worker has done a unit, to 12, when the first has no more: two workers of 100 a second
    assert gpu_job.steady(lines, 2) == (6, 1_200.0)
    assert gpu_job.steady(lines[::2], 1) == (8, 800.0)
