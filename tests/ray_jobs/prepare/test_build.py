"""Bundles from model directories and SAE directories: what goes in, what is reused, what is refused and how."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from featurestore.errors import BundleError
from ray_jobs.backbone import backbone
from ray_jobs.backbone.bundle import CONFIG_NAME, TOKENIZER_NAME, WEIGHTS_NAME, open_bundle
from ray_jobs.backbone.sae_families import SaeWeights, fold
from ray_jobs.backbone.sae_kinds import TRANSCODERS
from ray_jobs.engine.encoder import SaeEncoder
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.pooling import pool_saes
from ray_jobs.prepare import sae_loader as saes
from ray_jobs.prepare.build import default_cache_dir, prepare
from ray_jobs.prepare.compute_settings import settle
from ray_jobs.prepare.models import same_model
from ray_jobs.spec import JobSpec, job_from_mapping
from tests.ray_jobs.backbone.decoders_for_tests import save_decoder
from tests.reference import ReferenceModel, assert_row_equals, encode
from tests.tiny import tiny_gemma2, tiny_sae, tiny_texts

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gemma2(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def tiny_sae_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sae(tmp_path_factory.mktemp("sae"), layer=2)


def job(model: Path | str, *saes: dict[str, Any], **model_keys: Any) -> JobSpec:
    named = [{"name": f"s{number}", **sae} for number, sae in enumerate(saes)]
    mapping = {
        "corpus": {"path": "unused.jsonl"},
        "model": {"name": str(model), "dtype": "float32", **model_keys},
        "saes": named,
        "store": "unused",
    }
    return job_from_mapping(mapping, Path.cwd())


def refusal(spec: JobSpec, cache: Path) -> str:
    with pytest.raises(BundleError) as caught:
        prepare(spec, cache)
    assert not list(cache.glob("*"))  # nothing half-built is left
    assert not list(cache.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_identical_job_reuses_the_bundle(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    said: list[str] = []
    spec = job(tiny_model, {"path": str(tiny_sae_dir)})
    first = prepare(spec, tmp_path, said.append)
    assert len(said) == 2
    assert prepare(spec, tmp_path, said.append) == first
    assert len(said) == 2
    assert list(tmp_path.iterdir()) == [first]


def test_the_dtype_is_the_one_that_the_job_is_settled_with(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "default_device", lambda: "cuda")
    monkeypatch.setattr(backbone, "default_dtype", lambda device: "bfloat16" if device == "cuda" else "float32")
    left_open = job(tiny_model, {"path": str(tiny_sae_dir)}, dtype=None)
    on_cpus = left_open.model_copy(update={"workers": left_open.workers.model_copy(update={"gpus": 0.0})})
    for spec, dtype in ((left_open, "bfloat16"), (on_cpus, "float32")):
        assert settle(spec, None).dtype == dtype
        assert open_bundle(prepare(spec, tmp_path)).dtype == dtype


def test_other_content_or_settings_make_another_bundle(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    sae = shutil.copytree(tiny_sae_dir, tmp_path / "sae")
    cache = tmp_path / "cache"
    spec = job(tiny_model, {"path": str(sae)})
    made = {prepare(spec, cache), prepare(job(tiny_model, {"path": str(sae)}, dtype="bfloat16"), cache)}
    tiny_sae(sae, layer=2, seed=9)
    made.add(prepare(spec, cache))
    assert len({open_bundle(path).sha256 for path in made}) == len(made) == 3


def test_a_mended_file_of_a_tokenizer_makes_another_bundle(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "gpt2", "gpt2")
    (model / TOKENIZER_NAME).unlink()
    letters = ["<|endoftext|>", *"abc", "ab", "bc"]
    (model / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(letters)}))
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    spec = job(model, {"path": str(tiny_sae(tmp_path / "sae", layer=1, model_name="gpt2"))})
    found = []
    for merges in ("#version: 0.2\na b\n", "#version: 0.2\nb c\n"):
        (model / "merges.txt").write_text(merges)
        bundle = open_bundle(prepare(spec, tmp_path / "cache"))
        found.append(Tokenizer.from_file(str(bundle.path / TOKENIZER_NAME)).encode("abc").tokens)
    assert found == [["ab", "c"], ["a", "bc"]]


def test_the_bundles_hash_does_not_depend_on_where_its_sources_lie(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "elsewhere" / tiny_model.name)
    sae = shutil.copytree(tiny_sae_dir, tmp_path / "other-sae")
    here = open_bundle(prepare(job(tiny_model, {"path": str(tiny_sae_dir)}), tmp_path / "a"))
    there = open_bundle(prepare(job(model, {"path": str(sae)}), tmp_path / "b"))
    assert here.sha256 == there.sha256
    assert there.model.source == str(model)


def test_a_damaged_bundle_is_built_again(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    spec = job(tiny_model, {"path": str(tiny_sae_dir)})
    path = prepare(spec, tmp_path)
    (path / WEIGHTS_NAME).unlink()
    assert prepare(spec, tmp_path) == path
    open_bundle(path, verify=True)


def test_two_jobs_that_name_one_bundle_by_other_paths_build_it_once(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_sae_dir, tmp_path / "copy")
    waits, lines, found = threading.Event(), [], []
    second = threading.Thread(
        target=lambda: found.append(
            prepare(job(tiny_model, {"path": str(copy)}), tmp_path / "cache", lambda line: waits.set())
        )
    )

    def first(line: str) -> None:  # half-way: an SAE is written, the model is not
        lines.append(line)
        if line.startswith("taking layers"):
            second.start()
            assert waits.wait(30)

    built = prepare(job(tiny_model, {"path": str(tiny_sae_dir)}), tmp_path / "cache", first)
    second.join(30)
    assert found == [built]
    assert sum(line.startswith("taking layers") for line in lines) == 1


PREPARE = """
import resource, signal, sys, sparsemill
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(sparsemill.main(["prepare", sys.argv[2]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("largest", [5_000, 30_000])  # less than the SAE's file, than the model's
def test_a_disk_that_takes_no_more_is_one_sentence(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path, largest: int
) -> None:
    path, cache = tmp_path / "job.yaml", tmp_path / "cache"
    path.write_text(json.dumps(job(tiny_model, {"path": str(tiny_sae_dir)}).model_dump(mode="json")), encoding="utf-8")
    environment = {**os.environ, "SPARSEMILL_CACHE": str(cache)}
    command = [sys.executable, "-c", PREPARE, str(largest), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path.cwd(), timeout=300)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    sentence = (
        f"the bundle cannot be written to {cache / 'bundles'} (File too large); free space or set SPARSEMILL_CACHE"
    )
    assert done.stderr.splitlines()[-1].endswith(sentence)
    assert not list((cache / "bundles").iterdir())


@pytest.mark.parametrize("name", [WEIGHTS_NAME, "sae_s0.safetensors", TOKENIZER_NAME, CONFIG_NAME])
@pytest.mark.parametrize("how", [lambda data: data[: len(data) // 2], lambda data: b"?" * len(data)])
def test_a_worker_names_the_damaged_file_of_a_bundle(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path, name: str, how: Callable[[bytes], bytes]
) -> None:
    bundle = open_bundle(prepare(job(tiny_model, {"path": str(tiny_sae_dir)}), tmp_path))
    (bundle.path / name).write_bytes(how((bundle.path / name).read_bytes()))
    with pytest.raises(BundleError) as caught:
        Extractor(bundle, ExtractSettings())
    assert str(caught.value).startswith(f"{bundle.path / name} is damaged (")
    assert str(caught.value).endswith(f"; delete {bundle.path} and prepare again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_one_sentence(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "copy" / tiny_model.name))
    (model / name).write_bytes((model / name).read_bytes()[:200])
    said = refusal(job(model, {"path": str(tiny_sae_dir)}), tmp_path / "cache")
    assert str(model) in said


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path / "bundles"
    monkeypatch.delenv("SPARSEMILL_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "sparsemill" / "bundles"


def test_half_precision_rounds_weights_but_not_biases_and_cutoffs(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    path = prepare(job(tiny_model, {"path": str(tiny_sae_dir)}, dtype="bfloat16"), tmp_path)
    sae, model = load_file(path / "sae_s0.safetensors"), load_file(path / WEIGHTS_NAME)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in sae.items()} == {
        "W_enc": (torch.bfloat16, (96, 32)),
        "bias": (torch.float32, (96,)),
        "cutoff": (torch.float32, (96,)),
        "b_dec": (torch.float32, (32,)),
    }
    assert {tensor.dtype for tensor in model.values()} == {torch.bfloat16}
    exact = load_file(prepare(job(tiny_model, {"path": str(tiny_sae_dir)}), tmp_path) / "sae_s0.safetensors")
    assert torch.equal(sae["W_enc"], exact["W_enc"].bfloat16())
    assert torch.equal(sae["cutoff"], exact["cutoff"])


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("gemma-2-2b", "google/gemma-2-2b", True),
        ("Gemma 3 270m", "google/gemma-3-270m", True),
        ("gpt2-small", "openai-community/gpt2", True),
        ("gemma-2-9b", "google/gemma-2-9b-it", False),
        ("gemma-2-2b", "google/gemma-2-2b-it", False),
        ("gemma-2b", "google/gemma-2-2b", False),
        ("gemma-2-2b", "google/gemma-2-27b", False),
        ("gpt2-medium", "openai-community/gpt2-medium", True),
        ("gpt2-small", "openai-community/gpt2-medium", False),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1", True),
        ("mistral-7b", "mistralai/Mistral-7B-v0.3", False),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B", True),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3-8B", False),
        ("DeepSeek-R1-Distill-Llama-8B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", True),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "meta-llama/Llama-3.1-8B", False),
        ("qwen3-4b", "Qwen/Qwen3-4B", True),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", False),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m", False),
    ],
)
def test_fault_3_models_are_told_apart_by_their_whole_name(first: str, second: str, same: bool) -> None:
    assert same_model(first, second) is same
    assert same_model(second, first) is same


def test_fault_3_an_sae_of_another_model_is_refused(tmp_path: Path) -> None:
    model = tiny_gemma2(tmp_path, name="gemma-2-9b-it")
    sae = tiny_sae(tmp_path / "sae", model_name="gemma-2-9b")
    message = refusal(job(model, {"path": str(sae)}), tmp_path / "cache")
    assert "SAE 's0' does not belong here: it was trained on gemma-2-9b, the job's model is gemma-2-9b-it" in message
    assert "allow_mismatch: true" in message


def test_fault_3_an_allowed_mismatch_is_recorded(tmp_path: Path) -> None:
    model = tiny_gemma2(tmp_path, name="gemma-2-9b-it")
    sae = tiny_sae(tmp_path / "sae", model_name="gemma-2-9b", layer=1)
    spec = job(model, {"path": str(sae), "layer": 3, "allow_mismatch": True})
    (info,) = open_bundle(prepare(spec, tmp_path / "cache")).saes
    assert info.layer == 3
    assert info.mismatch == (
        "it was trained on gemma-2-9b, the job's model is gemma-2-9b-it",
        "it reads layer 1 (blocks.1.hook_resid_post), the job says layer 3",
    )


def test_another_layer_or_site_than_the_jobs_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    sae = str(tiny_sae(tmp_path / "sae", layer=2))
    assert "the job says layer 1" in refusal(job(tiny_model, {"path": sae, "layer": 1}), cache)
    mlp = str(tiny_sae(tmp_path / "mlp", hook_name="blocks.2.hook_mlp_out"))
    named = refusal(job(tiny_model, {"path": mlp, "site": "resid_post"}), cache)
    assert "it reads mlp_out (blocks.2.hook_mlp_out), the job says site resid_post" in named
    unknown = str(tiny_sae(tmp_path / "pre", hook_name="blocks.2.attn.hook_q"))
    assert "it reads blocks.2.attn.hook_q, which is none of embed, resid_pre" in refusal(
        job(tiny_model, {"path": unknown}), cache
    )


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_a_transcoder_is_its_encoder_at_its_input(tiny_model: Path, tmp_path: Path, architecture: str) -> None:
    sae = tiny_sae(
        tmp_path / "sae", architecture=architecture, d_out=48, hook_name="blocks.1.ln2.hook_normalized", d_in=32
    )
    bundle = open_bundle(prepare(job(tiny_model, {"path": str(sae)}), tmp_path / "cache"))
    assert (bundle.saes[0].layer, bundle.saes[0].site) == (1, "ln2_normalized")
    x_ND = 3 * torch.randn(20, 32, generator=torch.Generator().manual_seed(2))
    encoder = SaeEncoder(bundle, bundle.saes[0], "cpu")
    rows = pool_saes([encoder], x_ND, np.array([20]), ("max", "sum"))["s0"]
    acts = encode(sae, x_ND.numpy())
    assert (acts > 0).any()
    assert_row_equals(rows.row(0), acts, ("max", "sum"))


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk"])
@pytest.mark.parametrize("apply_b_dec", [False, True])
def test_an_sae_of_a_centred_stream_is_given_one(tmp_path: Path, architecture: str, apply_b_dec: bool) -> None:
    """TransformerLens centres what GPT-2 writes to its stream; the features are those of x - mean(x)."""
    model = save_decoder(tmp_path / "tiny-gpt2", "gpt2")
    sae = tiny_sae(
        tmp_path / "sae", architecture=architecture, apply_b_dec_to_input=apply_b_dec, model_name="tiny-gpt2", layer=1
    )
    config = json.loads((sae / "cfg.json").read_text(encoding="utf-8"))
    config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    (sae / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    bundle = open_bundle(prepare(job(model, {"path": str(sae)}), tmp_path / "cache"))
    x_ND = 3 * torch.randn(20, 32, generator=torch.Generator().manual_seed(2)) + 5
    rows = pool_saes([SaeEncoder(bundle, bundle.saes[0], "cpu")], x_ND, np.array([20]), ("max", "sum"))["s0"]
    acts = encode(sae, (x_ND - x_ND.mean(dim=1, keepdim=True)).numpy())
    assert (acts > 0).any()
    assert_row_equals(rows.row(0), acts, ("max", "sum"))


def test_saes_that_want_and_do_not_want_a_bos_are_not_mixed(tiny_model: Path, tmp_path: Path) -> None:
    behind, without = tiny_sae(tmp_path / "a", layer=1), tiny_sae(tmp_path / "b", layer=2)
    config = json.loads((without / "cfg.json").read_text(encoding="utf-8"))
    config["metadata"]["prepend_bos"] = False
    (without / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    both = job(tiny_model, {"path": str(behind)}, {"path": str(without)})
    assert "SAE 's0' was trained behind a beginning-of-sequence token and SAE 's1' without one" in refusal(
        both, tmp_path / "cache"
    )
    bundle = open_bundle(prepare(job(tiny_model, {"path": str(without)}), tmp_path / "cache"))
    assert bundle.tokenizer.bos == ()


@pytest.mark.parametrize("hook_name", ["blocks.1.hook_resid_post", "model.layers.1", "model.layers.1.output"])
def test_the_layer_is_read_from_the_hook_name(tiny_model: Path, tmp_path: Path, hook_name: str) -> None:
    sae = tiny_sae(tmp_path / "sae", hook_name=hook_name)
    (info,) = open_bundle(prepare(job(tiny_model, {"path": str(sae)}), tmp_path / "cache")).saes
    assert (info.layer, info.site, info.mismatch, info.unverified) == (1, "resid_post", (), ())


def test_what_metadata_leaves_open_is_recorded_as_unverified(tiny_model: Path, tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae", model_name=None)
    (info,) = open_bundle(prepare(job(tiny_model, {"path": str(sae)}), tmp_path / "cache")).saes
    assert info.unverified == ("model",)


def test_an_sae_that_cannot_fit_is_refused_even_when_mismatches_are_allowed(tiny_model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    wide = str(tiny_sae(tmp_path / "wide", d_in=48))
    spec = job(tiny_model, {"path": wide, "allow_mismatch": True})
    assert "reads 48 dimensions, but tiny-gemma2 has d_model 32" in refusal(spec, cache)
    deep = str(tiny_sae(tmp_path / "deep", layer=4))
    spec = job(tiny_model, {"path": deep, "allow_mismatch": True})
    assert "reads layer 4, but tiny-gemma2 has layers 0 to 3" in refusal(spec, cache)


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "standard"},
        {"architecture": "gated", "normalize_activations": "layer_norm"},
        {"architecture": "topk", "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": True},
        {"architecture": "matryoshka_batchtopk", "normalize_activations": "constant_norm_rescale"},
    ],
)
def test_a_bundles_sae_encodes_like_the_sae_it_was_made_of(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    sae = tiny_sae(tmp_path / "sae", **settings)
    bundle = open_bundle(prepare(job(tiny_model, {"path": str(sae)}), tmp_path / "cache"))
    x_ND = 3 * torch.randn(20, 32, generator=torch.Generator().manual_seed(2))
    (encoder,) = (SaeEncoder(bundle, info, "cpu") for info in bundle.saes)
    rows = pool_saes([encoder], x_ND, np.array([8, 12]), ("max", "sum", "count"))["s0"]
    acts = encode(sae, x_ND.numpy())
    assert (acts > 0).any()
    for number, tokens in enumerate((slice(0, 8), slice(8, 20))):
        assert_row_equals(rows.row(number), acts[tokens], ("max", "sum", "count"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"architecture": "abstopk"}, "architecture 'abstopk' is not supported"),
        ({"normalize_activations": "covariance_whitening"}, "normalize_activations=covariance_whitening"),
    ],
)
def test_unsupported_saes_are_refused_by_name(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    sae = str(tiny_sae(tmp_path / "sae", **settings))
    assert named in refusal(job(tiny_model, {"path": sae}), tmp_path / "cache")


def test_an_sae_that_is_not_encoded_as_sae_lens_does_is_refused(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold_forgetting_the_threshold(_architecture: str, tensors: dict[str, torch.Tensor]) -> SaeWeights:
        return fold("standard", tensors)

    monkeypatch.setattr(saes, "fold", fold_forgetting_the_threshold)
    message = refusal(job(tiny_model, {"path": str(tiny_sae_dir)}), tmp_path / "cache")
    assert message.startswith("SAE 's0' is not encoded here as sae-lens encodes it (feature ")
    assert "choose another SAE and report this one" in message


def test_sources_that_are_not_there_are_named(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    cache, empty, sae = tmp_path / "cache", tmp_path / "empty", {"path": str(tiny_sae_dir)}
    empty.mkdir()
    assert "is an SAE in no layout known here" in refusal(job(tiny_model, {"path": str(empty)}), cache)
    assert "it has no config.json" in refusal(job(empty, sae), cache)
    assert f"there is no file {tmp_path / 'no.gguf'}" in refusal(job(tmp_path / "no.gguf", sae), cache)
    assert "neither a directory, a .gguf file nor a hub name" in refusal(job(tmp_path / "nothing", sae), cache)


def test_files_that_are_not_what_they_claim_are_refused(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    sae = {"path": str(tiny_sae_dir)}
    (tmp_path / "fake.gguf").write_bytes(b"not a model")
    assert "fake.gguf" in refusal(job(tmp_path / "fake.gguf", sae), tmp_path / "cache")
    broken = shutil.copytree(tiny_sae_dir, tmp_path / "broken")
    (broken / "cfg.json").write_text("{}")
    assert "cannot be loaded by sae-lens" in refusal(job(tiny_model, {"path": str(broken)}), tmp_path / "cache")


def test_pickled_weights_are_not_opened(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / tiny_model.name))
    torch.save(load_file(model / WEIGHTS_NAME), model / "pytorch_model.bin")
    (model / WEIGHTS_NAME).unlink()
    assert "weights must be safetensors" in refusal(job(model, {"path": str(tiny_sae_dir)}), tmp_path / "cache")


def test_missing_tensors_are_named(tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / tiny_model.name))
    tensors = load_file(model / WEIGHTS_NAME)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / WEIGHTS_NAME)
    assert "lacks layers.1.mlp.up_proj.weight" in refusal(job(model, {"path": str(tiny_sae_dir)}), tmp_path / "cache")


def test_only_the_shards_that_hold_the_kept_layers_are_read(
    tiny_model: Path, tiny_sae_dir: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / tiny_model.name))
    tensors = load_file(model / WEIGHTS_NAME)
    last = {name: tensor for name, tensor in tensors.items() if name.startswith("model.layers.3.")}
    save_file({name: tensor for name, tensor in tensors.items() if name not in last}, model / "part-1.safetensors")
    places = {name: "part-2.safetensors" if name in last else "part-1.safetensors" for name in tensors}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (model / WEIGHTS_NAME).unlink()
    whole = open_bundle(prepare(job(tiny_model, {"path": str(tiny_sae_dir)}), tmp_path / "a"))
    assert open_bundle(prepare(job(model, {"path": str(tiny_sae_dir)}), tmp_path / "b")).sha256 == whole.sha256


def llama(path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)


def gemma3_text(path: Path) -> None:
    from transformers import Gemma3ForCausalLM

    Gemma3ForCausalLM(gemma3_text_config()).save_pretrained(path)


def gemma3_multimodal(path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=gemma3_text_config(), vision_config=vision, mm_tokens_per_image=1)
    Gemma3ForConditionalGeneration(config).save_pretrained(path)


def gemma3_text_config() -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=8, max_position_embeddings=4096,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip


@pytest.mark.parametrize("write", [llama, gemma3_text])
def test_other_decoders_equal_their_reference(tiny_model: Path, tmp_path: Path, write: Callable[[Path], None]) -> None:
    model = tmp_path / write.__name__
    torch.manual_seed(0)
    write(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, model / name)
    sae = tiny_sae(tmp_path / "sae", model_name=write.__name__, architecture="standard", layer=2)
    weights = load_file(sae / "sae_weights.safetensors")
    weights["W_enc"] *= 100  # these checkpoints' residuals are small: let features fire
    save_file(weights, sae / "sae_weights.safetensors")
    bundle = open_bundle(prepare(job(model, {"path": str(sae)}), tmp_path / "cache"))
    rows = Extractor(bundle, ExtractSettings(pools=("max", "count"))).extract(tiny_texts(3))
    reference = ReferenceModel(model)
    for number, text in enumerate(tiny_texts(3)):
        acts = encode(sae, reference.residual(reference.windows(text), 2))
        assert (acts > 0).mean() > 0.01
        assert_row_equals(rows.saes["s0"].row(number), acts, ("max", "count"))


def test_of_a_multimodal_gemma_3_the_text_decoder_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "gemma3"
    gemma3_multimodal(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, model / name)
    sae = tiny_sae(tmp_path / "sae", model_name="gemma3", layer=1)
    bundle = open_bundle(prepare(job(model, {"path": str(sae)}), tmp_path / "cache"))
    assert (bundle.model.model_type, bundle.model.n_layers) == ("gemma3_text", 4)
    kept, whole = load_file(bundle.path / WEIGHTS_NAME), load_file(model / WEIGHTS_NAME)
    (name,) = [name for name in whole if name.endswith("layers.1.mlp.up_proj.weight") and "language_model" in name]
    np.testing.assert_array_equal(kept["layers.1.mlp.up_proj.weight"], whole[name])


def change_json(path: Path, **changes: Any) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(found | changes))


def test_a_multimodal_checkpoint_whose_whole_config_says_quantised_is_refused(
    tiny_sae_dir: Path, tmp_path: Path
) -> None:
    gemma3_multimodal(model := tmp_path / "gemma3")
    change_json(model / CONFIG_NAME, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    spec = job(model, {"path": str(tiny_sae_dir)})
    assert "gemma3 holds quantised weights; give the original" in refusal(spec, tmp_path / "cache")


def test_a_checkpoint_that_only_modelopt_calls_quantised_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / tiny_model.name))
    sae = {"path": str(tiny_sae(tmp_path / "sae"))}
    said = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    change_json(model / "hf_quant_config.json", quantization=said)
    assert "tiny-gemma2 holds quantised weights" in refusal(job(model, sae), tmp_path / "cache")
    change_json(model / "hf_quant_config.json", quantization=said | {"quant_algo": None})  # its cache alone
    assert open_bundle(prepare(job(model, sae), tmp_path / "cache")).saes


@pytest.mark.parametrize(("dtype", "called"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
@pytest.mark.parametrize("family", ["llama", "mixtral"])  # experts lie apart in the file, and transformers fuses them
def test_weights_that_need_a_scale_are_refused_by_name(
    family: str, dtype: torch.dtype, called: str, tmp_path: Path
) -> None:
    model = save_decoder(tmp_path / family, family)
    tensors = load_file(model / WEIGHTS_NAME)
    (name, *_) = sorted(
        name for name in tensors if ".layers.0." in name and name.endswith(("w1.weight", "up_proj.weight"))
    )
    tensors[name] = tensors[name].to(dtype)
    save_file(tensors | {f"{name}_scale": torch.ones(1)}, model / WEIGHTS_NAME, metadata={"format": "pt"})
    said = refusal(
        job(model, {"path": str(tiny_sae(tmp_path / "sae", layer=1, model_name=family))}), tmp_path / "cache"
    )
    assert f"holds quantised weights: {name} is stored as {called}; give the original" in said


def with_tokens(model: Path, **special: str) -> Path:
    """Give a checkpoint's tokenizer tokens that its embedding has no row for, as fine-tunes do."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(model)
    return model


def test_a_pad_token_that_the_embedding_has_no_row_for_pads_nothing(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "a" / "llama", "llama")
    padded = with_tokens(save_decoder(tmp_path / "b" / "llama", "llama"), pad_token="[PAD]")
    sae = {"path": str(tiny_sae(tmp_path / "sae", layer=1, model_name="llama"))}
    bundles = [open_bundle(prepare(job(path, sae), tmp_path / "cache")) for path in (model, padded)]
    assert [bundle.tokenizer.pad for bundle in bundles] == [0, 1]  # its own, and its end-of-sequence token
    texts = ["the river and the stone " * 9, "love", "good music"]  # so that the short ones are padded
    before, after = (Extractor(bundle, ExtractSettings(pools=("max",))).extract(texts) for bundle in bundles)
    assert after.errors == [None] * 3
    for number in range(3):
        one, other = before.saes["s0"].row(number), after.saes["s0"].row(number)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.values["max"], other.values["max"])


@pytest.mark.parametrize("keys", [{}, {"chat": True}])
def test_tokens_around_every_text_that_the_embedding_has_no_row_for_are_refused(
    keys: dict[str, Any], tmp_path: Path
) -> None:
    model = save_decoder(tmp_path / "llama", "llama")
    with_tokens(model, **({"eos_token": "<|im_end|>"} if keys else {"bos_token": "<|begin|>"}))
    if keys:
        marks = "{% for message in messages %}<s>{{ message['content'] }}<|im_end|>{% endfor %}"
        (model / "chat_template.jinja").write_text(marks)
    else:
        change_json(model / TOKENIZER_NAME, post_processor=None)  # the SAE wants one all the same
    sae = {"path": str(tiny_sae(tmp_path / "sae", layer=1, model_name="llama"))}
    said = refusal(job(model, sae, **keys), tmp_path / "cache")
    assert "before or behind every text, but the model's embedding ends at" in said, said


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub switched off, as HF_HUB_OFFLINE=1 does, with nothing cached."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
def test_a_hub_model_out_of_reach_is_one_sentence(tiny_sae_dir: Path, tmp_path: Path) -> None:
    message = refusal(job("google/gemma-2-2b", {"path": str(tiny_sae_dir)}), tmp_path / "cache")
    assert message.startswith(
        "model google/gemma-2-2b (revision main) could not be fetched: the Hugging Face hub could not be reached"
    )


@pytest.mark.usefixtures("offline")
def test_an_sae_release_out_of_reach_is_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    message = refusal(job(tiny_model, {"release": "tiny/saes", "id": "layer2"}), tmp_path / "cache")
    assert "release 'tiny/saes', id 'layer2' could not be fetched: the Hugging Face hub could not be reached" in message


@pytest.mark.usefixtures("offline")
def test_an_sae_is_judged_by_its_config_before_its_weights_are_fetched(tiny_model: Path, tmp_path: Path) -> None:
    """What sae-lens says of Gemma Scope by itself is enough to refuse it; nobody is asked."""
    release = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}
    cache = tmp_path / "cache"
    assert "it was trained on gemma-2-2b, the job's model is tiny-gemma2" in refusal(job(tiny_model, release), cache)
    model = tiny_gemma2(tmp_path, name="gemma-2-2b")
    assert "reads layer 12, but gemma-2-2b has layers 0 to 3" in refusal(job(model, release), cache)
    embedding = {"release": "gemma-scope-2b-pt-res", "id": "embedding/width_4k/average_l0_6"}
    assert "reads 2304 dimensions, but gemma-2-2b has d_model 32" in refusal(job(model, embedding), cache)


def test_the_weights_of_a_directory_are_not_read_where_its_config_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae", model_name="gemma-2-9b")
    (sae / "sae_weights.safetensors").write_bytes(b"damaged")
    assert "it was trained on gemma-2-9b" in refusal(job(tiny_model, {"path": str(sae)}), tmp_path / "cache")


def test_an_unknown_sae_release_or_id_is_said_to_be_unknown(tiny_model: Path, tmp_path: Path) -> None:
    for release in (
        {"release": "no-such-release", "id": "x"},
        {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_99/width_16k/canonical"},
    ):
        assert "is not known to sae-lens" in refusal(job(tiny_model, release), tmp_path / "cache")
