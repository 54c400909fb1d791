"""The hash of an encoder: the recipe by hand from the file on disk, and what it does and does not depend on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import MANIFEST_NAME, open_bundle
from ray_jobs.prepare import encoder_hash
from ray_jobs.prepare.build import prepare
from ray_jobs.prepare.encoder_hash import encoder_sha256
from ray_jobs.spec import JobSpec, job_from_mapping
from tests.tiny import tiny_gemma2, tiny_sae


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gemma2(tmp_path_factory.mktemp("checkpoint"))


def job(model: Path, sae: Path, name: str = "s", dtype: str = "float32") -> JobSpec:
    mapping = {
        "corpus": {"path": "unused.jsonl"},
        "model": {"name": str(model), "dtype": dtype},
        "saes": [{"name": name, "path": str(sae)}],
        "store": "unused",
    }
    return job_from_mapping(mapping, Path.cwd())


def hash_in_bundle(cache: Path, *arguments: Any, **options: Any) -> str:
    return open_bundle(prepare(job(*arguments, **options), cache)).saes[0].sha256


def by_hand(sae: Path, *names: str) -> str:
    """The recipe of the docs, from the file."""
    tensors, digest = load_file(sae / "sae_weights.safetensors"), hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name} {'x'.join(map(str, tensors[name].shape))}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return digest.hexdigest()


def test_the_hash_is_that_of_the_documented_recipe(tiny_model: Path, tmp_path: Path) -> None:
    jump, gated = tiny_sae(tmp_path / "jump"), tiny_sae(tmp_path / "gated", architecture="gated")
    centred = tiny_sae(tmp_path / "centred", architecture="standard", apply_b_dec_to_input=True)
    assert hash_in_bundle(tmp_path / "cache", tiny_model, jump) == by_hand(jump, "W_enc", "b_enc", "threshold")
    assert hash_in_bundle(tmp_path / "cache", tiny_model, gated) == by_hand(gated, "W_enc", "b_gate", "b_mag", "r_mag")
    assert hash_in_bundle(tmp_path / "cache", tiny_model, centred) == by_hand(centred, "W_enc", "b_enc", "b_dec")


def test_neither_name_nor_precision_of_the_job_changes_it_and_other_weights_do(
    tiny_model: Path, tmp_path: Path
) -> None:
    sae, cache = tiny_sae(tmp_path / "sae"), tmp_path / "cache"
    first = hash_in_bundle(cache, tiny_model, sae)
    assert hash_in_bundle(cache, tiny_model, sae, name="other", dtype="bfloat16") == first
    assert hash_in_bundle(cache, tiny_model, tiny_sae(tmp_path / "another", seed=5)) != first


def test_it_is_hashed_in_pieces_and_does_not_depend_on_them_or_on_the_layout_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W_FD = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    tensors = {"W_enc": W_FD.T, "b_enc": torch.zeros(50)}
    whole = encoder_sha256(tensors, True)
    monkeypatch.setattr(encoder_hash, "_PIECE_BYTES", 3 * 4 * 50)
    assert encoder_sha256({"b_enc": tensors["b_enc"], "W_enc": W_FD.T.contiguous()}, True) == whole


def test_a_bundle_without_it_is_no_bundle_and_is_built_again(tiny_model: Path, tmp_path: Path) -> None:
    import json

    spec = job(tiny_model, tiny_sae(tmp_path / "sae"))
    path = prepare(spec, tmp_path / "cache")
    whole = (path / MANIFEST_NAME).read_bytes()
    manifest = json.loads(whole)
    del manifest["saes"][0]["sha256"]
    for earlier in ({**manifest, "format_version": 2}, manifest):
        (path / MANIFEST_NAME).write_text(json.dumps(earlier))
        with pytest.raises(BundleError, match="prepare again"):
            open_bundle(path)
        assert prepare(spec, tmp_path / "cache") == path
        assert (path / MANIFEST_NAME).read_bytes() == whole
