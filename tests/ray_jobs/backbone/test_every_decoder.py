"""Every causal decoder that transformers names: cut short it gives transformers' stream, or a sentence says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore.errors import BundleError
from ray_jobs.backbone.backbone import open_backbone
from ray_jobs.backbone.batching import Window
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.backbone.sites import Hook
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.backbone.every_decoder import decoders, save_smallest
from tests.tiny import tiny_sae

RUN_AT_LEAST = 105
"""Of the 189 names in transformers 5.23; most others are encoders, encoder-decoders and recurrent models."""

LAYER = 1
"""Of three: one is cut off."""

IDS = [270, 271, 272, 273]


def outcome(directory: Path, model_type: str) -> str:
    """`runs`, or why not; anything but a sentence is raised, and so is another stream than transformers'."""
    path = directory / model_type
    width = save_smallest(path, model_type)
    if width is None:
        return "no config can be made of it"
    sae = tiny_sae(directory / f"sae-{model_type}", layer=LAYER, d_in=width, d_sae=16, model_name=None)
    job = {
        "corpus": {"path": "none.jsonl"},
        "model": {"name": str(path), "dtype": "float32", "attn": "eager"},
        "saes": [{"path": str(sae), "name": "s"}],
        "store": str(directory / "store"),
    }
    try:
        bundle = open_bundle(prepare(job_from_mapping(job, directory), directory / "bundles"))
    except BundleError as error:
        return str(error)
    rows = Extractor(bundle, ExtractSettings(max_tokens=64)).extract(["the river and the stone", "love"])
    assert rows.errors == [None, None], f"{model_type} passes prepare and fails on documents: {rows.errors[0]}"
    expected = stream_of(path)
    if expected is not None:
        difference = (stream(bundle) - expected).abs().max() / expected.abs().max()
        assert difference < 1e-4, f"{model_type}: the stream differs by {difference:.1e} of its largest"
    return "runs"


def stream(bundle: Bundle) -> torch.Tensor:
    """Behind the last layer of a bundle, [tokens, D]."""
    backbone = open_backbone(bundle, "cpu", "eager", np.array([], dtype=np.int32))
    window = Window(0, np.array(IDS, dtype=np.int32), 0, len(IDS))
    return backbone.forward([window], 4096)[Hook(LAYER, "resid_post")].float()


def stream_of(path: Path) -> torch.Tensor | None:
    """What enters the third layer of the whole model, as transformers runs it; None where it does not say so."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    try:
        with torch.no_grad():
            out = model(input_ids=torch.tensor([IDS]), output_hidden_states=True, use_cache=False)
    except RuntimeError:  # behind the layers that are kept, a config so small may contradict itself
        return None
    states = getattr(out, "hidden_states", None)
    if states is None or len(states) != 4 or states[LAYER + 1].ndim != 3:
        return None
    return states[LAYER + 1][0].float()


@pytest.mark.parametrize("model_type", ["exaone4", "bert", "qwen4_exp_text", "blt"])
def test_a_decoder_runs_or_is_refused_in_a_sentence(tmp_path: Path, model_type: str) -> None:
    said = outcome(tmp_path, model_type)
    assert (said == "runs") == (model_type == "exaone4")
    assert "\n" not in said and (said == "runs" or "not supported" in said)


@pytest.mark.slow
def test_all_of_them_run_or_are_refused_in_a_sentence(tmp_path: Path) -> None:
    found = {model_type: outcome(tmp_path, model_type) for model_type in decoders()}
    assert all("\n" not in said and len(said) < 500 for said in found.values())
    assert not [model_type for model_type, said in found.items() if "prepare again" in said]
    assert sum(said == "runs" for said in found.values()) >= RUN_AT_LEAST
