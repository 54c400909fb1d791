"""Releases of sae-lens' registry, each in its authors' own layout, from a hub on loopback through the command line.

Repositories, files and registry names are the real ones; weights are random. Where a loader knows the model's width by
heart, the model is one layer of that width.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from featurestore import FeatureStore
from ray_jobs.backbone.bundle import open_bundle
from tests.hub import FIRST, Hub, serve_hub
from tests.ray_jobs.backbone.decoders_for_tests import save_decoder
from tests.ray_jobs.jobs import write_corpus, write_job

ROOT = Path(__file__).parents[3]
D_IN, D_SAE = 32, 96


def weights(d_in: int = D_IN, d_sae: int = D_SAE) -> dict[str, torch.Tensor]:
    """Of a random SAE, by sae-lens' names and in its orientation; the decoder of a wide one takes no room on disk."""
    generator = torch.Generator().manual_seed(0)
    wide = d_in * d_sae > 2**20
    return {
        "W_enc": torch.randn(d_in, d_sae, generator=generator) / d_in**0.5,
        "W_dec": torch.zeros(1).expand(d_sae, d_in) if wide else torch.randn(d_sae, d_in, generator=generator),
        "b_enc": 0.1 * torch.randn(d_sae, generator=generator),
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
        "threshold": 0.1 + 0.1 * torch.rand(d_sae, generator=generator),
    }


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def gemma_scope(folder: str, d_sae: int) -> Callable[[Path], torch.Tensor]:
    def lay_out(repository: Path) -> torch.Tensor:
        of = weights(2304, d_sae)
        (repository / folder).mkdir(parents=True)
        np.savez_compressed(repository / folder / "params.npz", **{k: v.half().numpy() for k, v in of.items()})
        scale = 2304**0.5 if folder.startswith("embedding") else 1.0
        return of["W_enc"].half().float() / scale

    return lay_out


def gemma_scope_2(folder: str, reads: str, affine: bool = False) -> Callable[[Path], torch.Tensor]:
    def lay_out(repository: Path) -> torch.Tensor:
        of = weights()
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt", "hf_hook_point_in": reads}
        tensors = {name.lower(): tensor for name, tensor in of.items()}
        if affine:
            config["affine_connection"] = True  # type: ignore[assignment]
            tensors["affine_skip_connection"] = torch.zeros(D_IN, D_IN)
        write(repository / folder / "config.json", json.dumps(config))
        save_file(tensors, repository / folder / "params.safetensors")
        return of["W_enc"]

    return lay_out


LLAMA_SCALE = 58.935251798561154
"""What sae-lens' registry says of this SAE's inputs."""


def llama_scope(repository: Path) -> torch.Tensor:
    of, folder = weights(), repository / "Llama3_1-8B-Base-L0R-8x"
    config = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "jump_relu_threshold": 0.1,
        "hook_point_in": "blocks.0.hook_resid_post",
        "dataset_average_activation_norm": {"in": D_IN**0.5 / LLAMA_SCALE, "out": 1.0},
    }
    write(folder / "hyperparams.json", json.dumps(config))
    tensors = {"encoder.weight": of["W_enc"].T.contiguous(), "decoder.weight": of["W_dec"].T.contiguous()}
    (folder / "checkpoints").mkdir()
    save_file(
        {**tensors, "encoder.bias": of["b_enc"], "decoder.bias": of["b_dec"]},
        folder / "checkpoints" / "final.safetensors",
    )
    return LLAMA_SCALE * of["W_enc"]


def qwen_scope(repository: Path) -> torch.Tensor:
    of = weights(2048, 32 * 1024)
    repository.mkdir(parents=True)
    tensors = {"W_enc": of["W_enc"].T.bfloat16().contiguous(), "W_dec": of["W_dec"].T.bfloat16()}
    torch.save({**tensors, "b_enc": of["b_enc"], "b_dec": of["b_dec"]}, repository / "layer0.sae.pt")
    return of["W_enc"].bfloat16().float()


def dictionary_learning(repository: Path) -> torch.Tensor:
    of = weights()
    folder = repository / "gemma-2-2b_topk_width-2pow12_date-1109" / "resid_post_layer_12" / "trainer_0"
    trainer = {"layer": 12, "activation_dim": D_IN, "dict_size": D_SAE, "k": 20, "dict_class": "AutoEncoderTopK"}
    config = {"trainer": {**trainer, "lm_name": "google/gemma-2-2b"}, "buffer": {"ctx_len": 128}}
    write(folder / "config.json", json.dumps(config))
    tensors = {"encoder.weight": of["W_enc"].T, "decoder.weight": of["W_dec"].T, "k": torch.tensor(20)}
    torch.save({**tensors, "encoder.bias": of["b_enc"], "b_dec": of["b_dec"]}, folder / "ae.pt")
    return of["W_enc"]


HOOK_Z = "gpt2-small_L0_Hcat_z_lr1.20e-03_l11.80e+00_ds24576_bs4096_dc1.00e-06_rsanthropic_rie25000_nr4_v9.pt"


def hook_z(repository: Path) -> torch.Tensor:
    of = weights()
    del of["threshold"]
    config = {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.0.attn.hook_z"}
    write(repository / HOOK_Z.replace(".pt", "_cfg.json"), json.dumps(config))
    torch.save(of, repository / HOOK_Z)
    return of["W_enc"]


def mwhanna(repository: Path) -> torch.Tensor:
    of = weights()
    del of["threshold"]
    write(repository / "config.yaml", yaml.safe_dump({"model_name": "Qwen/Qwen3-0.6B"}))
    values = {"d_model": D_IN, "d_feature": D_SAE, "batch_size": 128}
    write(repository / "wandb-config.yaml", yaml.safe_dump({key: {"value": value} for key, value in values.items()}))
    save_file({**of, "W_enc": of["W_enc"].T.contiguous()}, repository / "layer_0.safetensors")
    return of["W_enc"]


DISTILL_SCALE = 53.52995401997436
"""As in sae-lens' registry."""


def llama_scope_r1_distill(repository: Path) -> torch.Tensor:
    of, folder = weights(), repository / "800M-Slimpajama-0-OpenR1-Math-220k" / "L0R"
    config = {"d_model": D_IN, "expansion_factor": D_SAE // D_IN, "hook_point_in": "blocks.0.hook_resid_post"}
    write(folder / "config.json", json.dumps(config))
    tensors = {"encoder.weight": of["W_enc"].T.contiguous(), "decoder.weight": of["W_dec"].T.contiguous()}
    biases = {"encoder.bias": of["b_enc"], "decoder.bias": of["b_dec"]}
    save_file(
        {**tensors, **biases, "log_jumprelu_threshold": of["threshold"].log()}, folder / "sae_weights.safetensors"
    )
    return DISTILL_SCALE * of["W_enc"]


def pickled_of_8b(name: str, encoder: str, decoder: str) -> Callable[[Path], torch.Tensor]:
    """Loaders that know the width of Llama 8B and 65,536 features by heart."""

    def lay_out(repository: Path) -> torch.Tensor:
        of = weights(4096, 65536)
        repository.mkdir(parents=True)
        kept = of["W_enc"].bfloat16()
        tensors = {f"{encoder}.weight": kept.T, f"{decoder}.weight": of["W_dec"].T.bfloat16()}
        torch.save({**tensors, f"{encoder}.bias": of["b_enc"], f"{decoder}.bias": of["b_dec"]}, repository / name)
        return kept.float()

    return lay_out


def mntss(repository: Path) -> torch.Tensor:
    of = weights()
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
    write(repository / "config.yaml", yaml.safe_dump({"model_name": "google/gemma-2-2b", **hooks}))
    encoder = {"W_enc_0": of["W_enc"].T.contiguous(), "b_enc_0": of["b_enc"], "b_dec_0": of["b_dec"]}
    save_file(encoder, repository / "W_enc_0.safetensors")
    save_file({"W_dec_0": torch.zeros(D_SAE, 2, D_IN)}, repository / "W_dec_0.safetensors")
    return of["W_enc"]


@dataclass(frozen=True)
class Release:
    """A release: what it is called, where it lies, how it is laid out there, and the model that it says it is of."""

    release: str
    id: str
    repository: str
    lay_out: Callable[[Path], torch.Tensor]
    model: str
    family: str
    hook: tuple[int, str]
    weights: str
    n_layers: int = 1
    width: int = D_IN
    pickled: bool = False


RELEASES = {
    "gemma-scope-embedding": Release(
        "gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6", "google/gemma-scope-2b-pt-res",
        gemma_scope("embedding/width_4k/average_l0_6", 4096), "gemma-2-2b", "gemma2", (0, "embed"), ".npz", width=2304,
    ),
    "gemma-scope-mlp": Release(
        "gemma-scope-2b-pt-mlp", "layer_0/width_16k/average_l0_119", "google/gemma-scope-2b-pt-mlp",
        gemma_scope("layer_0/width_16k/average_l0_119", 16384), "gemma-2-2b", "gemma2", (0, "mlp_out"), ".npz",
        width=2304,
    ),
    "gemma-scope-2": Release(
        "gemma-scope-2-270m-pt-res-all", "layer_0_width_16k_l0_big", "google/gemma-scope-2-270m-pt",
        gemma_scope_2("resid_post_all/layer_0_width_16k_l0_big", "model.layers.0.output"),
        "gemma-3-270m", "gemma3_text", (0, "resid_post"), ".safetensors",
    ),
    "gemma-scope-2-transcoder": Release(
        "gemma-scope-2-270m-pt-transcoders-all", "layer_0_width_16k_l0_big_affine", "google/gemma-scope-2-270m-pt",
        gemma_scope_2(
            "transcoder_all/layer_0_width_16k_l0_big_affine", "model.layers.0.pre_feedforward_layernorm.output", True
        ),
        "gemma-3-270m", "gemma3_text", (0, "mlp_in"), ".safetensors",
    ),
    "llama-scope": Release(
        "llama_scope_lxr_8x", "l0r_8x", "fnlp/Llama3_1-8B-Base-LXR-8x", llama_scope, "Llama-3.1-8B", "llama",
        (0, "resid_post"), ".safetensors",
    ),
    "qwen-scope": Release(
        "qwen-scope-3-1.7b-base-w32k-l50", "layer0", "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", qwen_scope,
        "Qwen3-1.7B-Base", "qwen3", (0, "resid_post"), ".pt", width=2048, pickled=True,
    ),
    "saebench": Release(
        "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109", "blocks.12.hook_resid_post__trainer_0",
        "canrager/saebench_gemma-2-2b_width-2pow12_date-1109", dictionary_learning, "gemma-2-2b", "gemma2",
        (12, "resid_post"), ".pt", n_layers=13, pickled=True,
    ),
    "hook-z": Release(
        "gpt2-small-hook-z-kk", "blocks.0.hook_z", "ckkissane/attn-saes-gpt2-small-all-layers", hook_z, "gpt2", "gpt2",
        (0, "hook_z"), ".pt", pickled=True,
    ),
    "mwhanna": Release(
        "mwhanna-qwen3-0.6b-transcoders-lowl0", "layer_0", "mwhanna/qwen3-0.6b-transcoders-lowl0", mwhanna,
        "Qwen3-0.6B", "qwen3", (0, "mlp_in"), ".safetensors",
    ),
    "gemma-2-transcoder": Release(
        "gemma-scope-2b-pt-transcoders", "layer_0/width_16k/average_l0_76", "google/gemma-scope-2b-pt-transcoders",
        gemma_scope("layer_0/width_16k/average_l0_76", 16384), "gemma-2-2b", "gemma2", (0, "ln2_normalized"), ".npz",
        width=2304,
    ),
    "llama-scope-r1-distill": Release(
        "llama_scope_r1_distill", "l0r_800m_slimpajama", "fnlp/Llama-Scope-R1-Distill", llama_scope_r1_distill,
        "DeepSeek-R1-Distill-Llama-8B", "llama", (0, "resid_post"), ".safetensors",
    ),
    "deepseek-r1": Release(
        "deepseek-r1-distill-llama-8b-qresearch", "blocks.19.hook_resid_post",
        "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19",
        pickled_of_8b("DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", "encoder", "decoder"), "DeepSeek-R1-Distill-Llama-8B",
        "llama", (19, "resid_post"), ".pt", n_layers=20, width=4096, pickled=True,
    ),
    "goodfire": Release(
        "goodfire-llama-3.1-8b-instruct", "layer_19", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        pickled_of_8b("Llama-3.1-8B-Instruct-SAE-l19.pth", "encoder_linear", "decoder_linear"), "Llama-3.1-8B-Instruct",
        "llama", (19, "resid_post"), ".pth", n_layers=20, width=4096, pickled=True,
    ),
    "mntss": Release(
        "mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_0", "mntss/clt-gemma-2-2b-2.5M", mntss, "gemma-2-2b", "gemma2",
        (0, "resid_mid"), ".safetensors",
    ),
}  # fmt: skip


def job(directory: Path, of: Release, **sae: Any) -> str:
    """JOB.yaml of a release, and the tiny model that it is of."""
    model = directory / of.model
    if not model.exists():
        changes: dict[str, Any] = {"hidden_size": of.width, "num_hidden_layers": of.n_layers}
        if of.family != "gpt2":
            changes["head_dim"] = 8
        save_decoder(model, of.family, **changes)
        write_corpus(directory / "c.jsonl", 30)
    mapping = {
        "corpus": {"path": "c.jsonl", "text": "text", "id": "id"},
        "model": {"name": str(model), "dtype": "float32", "max_tokens": 64},
        "saes": [{"release": of.release, "id": of.id, "name": "tiny", **sae}],
        "pool": ["max", "count"],
        "store": "store",
        "workers": {"max": 1, "gpus": 0},
    }
    return str(write_job(directory / "job.yaml", mapping))


def sparsemill(hub: Hub, directory: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(directory / "hf"),
        "SPARSEMILL_CACHE": str(directory / "cache"),
    }
    command = [sys.executable, "-m", "sparsemill", *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory, timeout=300)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASES)
def test_a_release_of_the_registry_becomes_a_bundle(tmp_path: Path, name: str) -> None:
    of = RELEASES[name]
    expected = of.lay_out(tmp_path / "hub")
    with serve_hub({of.repository: tmp_path / "hub"}) as hub:
        if of.pickled:
            refused = sparsemill(hub, tmp_path, "prepare", job(tmp_path, of))
            assert refused.returncode == 2
            assert "a pickle, in which code can hide; set allow_pickle: true" in refused.stderr.splitlines()[-1]
            assert not hub.downloads(of.weights)
        allowed = {"allow_pickle": True} if of.pickled else {}
        done = sparsemill(hub, tmp_path, "prepare", job(tmp_path, of, **allowed), "--json")
        assert done.returncode == 0, done.stderr
        assert {request.split("/")[4] for request in hub.downloads(of.weights)} == {FIRST}
        of_shapes = [request for request in hub.ranges if request.endswith("params.safetensors 0-7")]
        assert bool(of_shapes) == name.startswith("gemma-scope-2")  # the shapes alone, before the weights
    bundle = open_bundle(json.loads(done.stdout)["bundle"])
    (info,) = bundle.saes
    assert (info.hook, info.mismatch, info.unverified) == (of.hook, (), ())
    assert info.source["revision"] == FIRST
    kept = load_file(bundle.path / info.file_name)["W_enc"]
    torch.testing.assert_close(kept, expected.T.contiguous(), rtol=1e-6, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma-scope-2-transcoder", "llama-scope", "saebench", "hook-z"])
def test_a_release_of_the_registry_is_extracted(tmp_path: Path, name: str) -> None:
    of = RELEASES[name]
    of.lay_out(tmp_path / "hub")
    allowed = {"allow_pickle": True} if of.pickled else {}
    with serve_hub({of.repository: tmp_path / "hub"}) as hub:
        done = sparsemill(hub, tmp_path, "extract", job(tmp_path, of, **allowed))
    assert done.returncode == 0, done.stderr
    store = FeatureStore.open(str(tmp_path / "store"))
    matrix = store.matrix("tiny", pool="max").X
    assert matrix.shape == (30, D_SAE)
    assert matrix.nnz > 30
