"""Every causal decoder that transformers names: `prepare` makes a bundle that runs, or says in a sentence why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import open_bundle
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.backbone.every_decoder import decoders, save_smallest
from tests.tiny import tiny_sae

RUN_AT_LEAST = 90
"""Of the 189 names in transformers 5.23; most others are encoders, encoder-decoders and recurrent models."""


def outcome(directory: Path, model_type: str) -> str:
    """`runs`, or why not; anything but a sentence is raised."""
    width = save_smallest(directory / model_type, model_type)
    if width is None:
        return "no config can be made of it"
    sae = tiny_sae(directory / f"sae-{model_type}", layer=1, d_in=width, d_sae=16, model_name=None)
    job = {
        "corpus": {"path": "none.jsonl"},
        "model": {"name": str(directory / model_type), "dtype": "float32", "attn": "eager"},
        "saes": [{"path": str(sae), "name": "s"}],
        "store": str(directory / "store"),
    }
    try:
        bundle = open_bundle(prepare(job_from_mapping(job, directory), directory / "bundles"))
    except BundleError as error:
        return str(error)
    rows = Extractor(bundle, ExtractSettings(max_tokens=64)).extract(["the river and the stone", "love"])
    assert rows.errors == [None, None], f"{model_type} passes prepare and fails on documents: {rows.errors[0]}"
    return "runs"


@pytest.mark.parametrize("model_type", ["exaone4", "bert", "qwen4_exp_text", "blt"])
def test_a_decoder_runs_or_is_refused_in_a_sentence(tmp_path: Path, model_type: str) -> None:
    said = outcome(tmp_path, model_type)
    assert (said == "runs") == (model_type == "exaone4")
    assert "\n" not in said and (said == "runs" or "not supported" in said)


@pytest.mark.slow
def test_all_of_them_run_or_are_refused_in_a_sentence(tmp_path: Path) -> None:
    found = {model_type: outcome(tmp_path, model_type) for model_type in decoders()}
    assert all("\n" not in said and len(said) < 500 for said in found.values())
    assert sum(said == "runs" for said in found.values()) >= RUN_AT_LEAST
