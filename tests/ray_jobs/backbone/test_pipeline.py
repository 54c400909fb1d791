"""Layers divided among devices: contiguous, balanced by bytes, and not one bit of what they compute is another."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import JobSpecError
from ray_jobs.backbone.backbone import open_backbone
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.backbone.pipeline import LayerBytes, layer_bytes, place, stages
from ray_jobs.backbone.tokens import Window
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.backbone.decoders_for_tests import save_decoder
from tests.tiny import tiny_gemma2, tiny_sae, tiny_texts
from tests.two_devices import place_of, places

LAYERS = (0, 1, 2)


def bundle_of(directory: Path, family: str, dtype: str) -> Bundle:
    """Three layers, each read behind it, and the first one's input and MLP too."""
    model = tiny_gemma2(directory) if family == "gemma2" else save_decoder(directory / f"tiny-{family}", family)
    saes = []
    for layer, site in ((0, "resid_pre"), (1, "mlp_out"), *((layer, "resid_post") for layer in LAYERS)):
        path = tiny_sae(directory / f"sae-{site}-{layer}", layer=layer, model_name=model.name)
        saes.append(
            {"path": str(path), "name": f"{site}_{layer}", "layer": layer, "site": site, "allow_mismatch": True}
        )
    job = {
        "corpus": {"path": "none.jsonl"},
        "model": {"name": str(model), "dtype": dtype, "attn": "eager"},
        "saes": saes,
        "store": str(directory / "store"),
    }
    return open_bundle(prepare(job_from_mapping(job, directory), directory / "bundles"))


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("gemma2", "float32"),
        ("llama", "bfloat16"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("gemma2", "bfloat16"), ("llama", "float32"))),
        *(
            pytest.param(family, "float32", marks=pytest.mark.slow)
            for family in ("gpt2", "bloom", "falcon", "opt", "qwen3_5_text", "gemma3_text", "gpt_oss", "deepseek_v2")
        ),
    ],
)
def test_every_layer_computes_on_its_device_what_one_device_computes(tmp_path: Path, family: str, dtype: str) -> None:
    bundle = bundle_of(tmp_path, family, dtype)
    head = np.array(bundle.tokenizer.bos, dtype=np.int32)
    generator = np.random.default_rng(0)
    ids = [np.concatenate([head, generator.integers(264, 330, n, dtype=np.int32)]) for n in (3, 17, 9)]
    windows = [Window(number, row, len(head), len(row)) for number, row in enumerate(ids)]
    alone = open_backbone(bundle, "cpu", "eager", head).forward(windows, 512)
    with places() as moves:
        backbone = open_backbone(bundle, "cpu", "eager", head, n_devices=2)
        before = len(moves)
        found = backbone.forward(windows, 512)
        where = {hook: place_of(x_ND) for hook, x_ND in found.items()}
    assert len(backbone.placement.devices) == 2 and 1 in backbone.placement.layers
    assert len(moves) > before  # the stream has crossed
    for hook, x_ND in alone.items():
        assert torch.equal(x_ND, found[hook]), hook
        assert where[hook].index == backbone.placement.layers[hook.layer]


def test_the_rows_of_two_devices_are_those_of_one(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, "gemma2", "float32")
    texts = [*tiny_texts(30), "", None]
    settings = ExtractSettings(hidden=("mean", "last"), batch_tokens=200)
    alone = Extractor(bundle, settings).extract(texts)
    with places():
        extractor = Extractor(bundle, replace(settings, devices=2))
        for hook, (encoder,) in extractor.encoders.items():
            assert place_of(encoder.weights.W_FD) == extractor.backbone.placement.of(hook.layer)
    shared = extractor.extract(texts)
    assert shared.saes.keys() == {sae.name for sae in bundle.saes}
    assert shared.errors == alone.errors
    for name, rows in alone.saes.items():
        other = shared.saes[name]
        assert np.array_equal(rows.indptr, other.indptr) and np.array_equal(rows.indices, other.indices)
        assert all(np.array_equal(rows.values[pool], other.values[pool]) for pool in rows.values)
    assert all(np.array_equal(alone.dense[name], shared.dense[name], equal_nan=True) for name in alone.dense)


@given(
    layers=st.lists(st.integers(1, 100), min_size=1, max_size=12),
    embedding=st.integers(0, 300),
    n_devices=st.integers(1, 5),
)
def test_no_other_division_has_a_lighter_fullest_device(layers: list[int], embedding: int, n_devices: int) -> None:
    placed = stages(LayerBytes(embedding, tuple(layers), (0,) * len(layers)), n_devices)
    assert all(0 <= after - before <= 1 for before, after in pairwise(placed))
    assert placed[-1] < n_devices

    def fullest(devices: tuple[int, ...]) -> int:
        held = [embedding, *[0] * n_devices]
        for device, n_bytes in zip(devices, layers, strict=True):
            held[device] += n_bytes
        return max(held)

    def divisions(n: int, first: int) -> list[tuple[int, ...]]:
        if not n:
            return [()]
        steps = range(first, min(first + 2, n_devices))
        return [(device, *rest) for device in steps for rest in divisions(n - 1, device)]

    if len(layers) <= 8:
        assert fullest(placed) == min(fullest(one) for one in divisions(len(layers), 0))


def test_encoders_weigh_where_their_layers_are(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, "gemma2", "float32")
    sizes = layer_bytes(bundle)
    assert sizes.encoders[0] == 2 * sizes.encoders[2] and min(sizes.layers) > 0
    total = (bundle.path / "model.safetensors").stat().st_size
    assert 0 < total - sizes.embedding - sum(sizes.layers) < 10_000  # the header


def test_fewer_gpus_than_asked_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(JobSpecError, match="divided among 2 GPUs, and torch sees 1 here; set it to what one node has"):
        place(bundle_of(tmp_path, "gemma2", "float32"), "cuda", 2)
