"""Images on a GPU: hidden states as on the CPU, in float32. Needs a CUDA device, and sae-lens to write an SAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.backbone.bundle import open_bundle
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from tests.tiny_vision import tiny_images, tiny_vision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("kind", ["paligemma2", "gemma3"])
def test_images_have_the_hidden_states_that_they_have_on_the_cpu(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("sae_lens")
    from ray_jobs.prepare.build import prepare
    from ray_jobs.spec import job_from_mapping
    from tests.tiny import tiny_sae

    mapping = {
        "corpus": {"path": "unused", "image": "image"},
        "model": {"name": str(tiny_vision(tmp_path, kind)), "dtype": "float32"},
        "saes": [{"path": str(tiny_sae(tmp_path / "sae", model_name=None)), "name": "tiny"}],
        "store": "unused",
    }
    bundle = open_bundle(prepare(job_from_mapping(mapping, tmp_path), cache_dir=tmp_path / "cache"))
    settings = ExtractSettings(pools=("max",), hidden=("mean",), tokens="all", batch_tokens=100)
    prompts, images = ["", "caption en", "what is this bread?"] * 3, tiny_images(9)
    here = Extractor(bundle, settings).extract(prompts, images=images)
    there = Extractor(bundle, replace(settings, device="cuda")).extract(prompts, images=images)
    assert there.errors == [None] * 9
    one, other = (rows.dense["resid_post_2__hidden_mean"] for rows in (here, there))
    np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3 * np.abs(one).max())
