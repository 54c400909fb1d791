"""A Gemma decoder read without transformers is the one that transformers reads: weights, tables, activations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from featurestore.errors import BundleError
from ray_jobs.backbone.backbone import _load, build_empty
from ray_jobs.backbone.bundle import CONFIG_NAME, Bundle
from ray_jobs.backbone.gemma_model import RotaryEmbedding, _ropes, _shapes, open_gemma


def changed(bundle: Bundle, directory: Path, **changes: Any) -> Bundle:
    """The bundle with another config."""
    shutil.copytree(bundle.path, directory / "bundle")
    config = json.loads((bundle.path / CONFIG_NAME).read_text()) | changes
    (directory / "bundle" / CONFIG_NAME).write_text(json.dumps(config))
    return replace(bundle, path=directory / "bundle")


def test_weights_and_tables_are_those_of_transformers(bundle: Bundle) -> None:
    found, expected = open_gemma(bundle), _load(bundle, "eager")
    assert found is not None
    assert torch.equal(found.embed_tokens.weight.nan_to_num(), expected.embed_tokens.weight.nan_to_num())
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        tensors = dict(theirs.named_parameters())
        assert dict(ours.named_parameters()).keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in ours.named_parameters())
    x, positions = torch.empty(0), torch.arange(5_000)[None]
    for kind in set(found.config.layer_types):
        for ours, theirs in zip(found.rotary_emb(x, positions, kind), expected.rotary_emb(x, positions), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("factor", [None, 8.0])
def test_gemma_3_has_the_names_shapes_and_tables_of_transformers(factor: float | None, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6}
    rope |= {"rope_type": "linear", "factor": factor} if factor else {}
    config = {
        "model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 99, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": rope,
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = build_empty(AutoConfig.from_pretrained(tmp_path / "config.json"))
    ours = type("Config", (), config)()
    assert _shapes(ours) == {name: tuple(tensor.shape) for name, tensor in theirs.named_parameters()}
    ropes = _ropes(ours)
    assert ropes is not None
    tables = RotaryEmbedding(16, ropes)
    for kind in config["layer_types"]:
        x, positions = torch.empty(0), torch.arange(3_000)[None]
        for found, expected in zip(tables(x, positions, kind), theirs.rotary_emb(x, positions, kind), strict=True):
            assert torch.equal(found, expected)


def test_rotary_embeddings_of_other_kinds_are_left_to_transformers(bundle: Bundle, tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    assert open_gemma(changed(bundle, tmp_path, rope_parameters=yarn)) is None


def test_weights_that_do_not_fit_the_config_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"does not fit config\.json \(layers\.0\.mlp\.down_proj\.weight has shape"):
        open_gemma(changed(bundle, tmp_path, intermediate_size=65))


def test_an_extractor_of_gemma_needs_no_transformers(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle()
    code = (
        "import sys\n"
        "from ray_jobs.backbone.bundle import open_bundle\n"
        "from ray_jobs.engine.extractor import Extractor, ExtractSettings\n"
        f"Extractor(open_bundle({str(bundle.path)!r}), ExtractSettings()).extract(['love'])\n"
        "print(sorted({'transformers', 'ray', 'sympy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
