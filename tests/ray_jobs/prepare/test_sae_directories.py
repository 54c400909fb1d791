"""SAEs in directories as their authors lay them out, encoded as sae-lens encodes what its own loaders read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.engine.encoder import Inputs, SaeEncoder
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import JobSpec, job_from_mapping
from tests.tiny import tiny_gemma2, tiny_sae

D_IN, D_SAE, K = 32, 96, 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gemma2(tmp_path_factory.mktemp("checkpoint"))


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Of a random SAE, by sae-lens' names and in its orientation."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "W_enc": torch.randn(D_IN, D_SAE, generator=generator) / D_IN**0.5,
        "W_dec": torch.randn(D_SAE, D_IN, generator=generator) / D_IN**0.5,
        "b_enc": 0.3 * torch.randn(D_SAE, generator=generator),
        "b_dec": 0.3 * torch.randn(D_IN, generator=generator),
        "threshold": 0.5 + torch.rand(D_SAE, generator=generator),
    }


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def as_modules(of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "encoder.weight": of["W_enc"].T.contiguous(),
        "decoder.weight": of["W_dec"].T.contiguous(),
        "encoder.bias": of["b_enc"],
        "decoder.bias": of["b_dec"],
    }


def gemma_scope(path: Path, of: dict[str, torch.Tensor]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    np.savez(path / "params.npz", **{name: tensor.numpy() for name, tensor in of.items()})


def gemma_scope_2(path: Path, of: dict[str, torch.Tensor], reads: str = "model.layers.2.output") -> None:
    config = {"architecture": "jump_relu", "model_name": "tiny-gemma2", "hf_hook_point_in": reads}
    write_json(path / "config.json", config)
    save_file({name.lower(): tensor for name, tensor in of.items()}, path / "params.safetensors")


def llama_scope(path: Path, of: dict[str, torch.Tensor]) -> None:
    norms = {"in": 3.0, "out": 3.0}
    config = {"d_model": D_IN, "d_sae": D_SAE, "jump_relu_threshold": 0.4, "hook_point_in": "blocks.2.hook_resid_post"}
    write_json(path / "hyperparams.json", {**config, "dataset_average_activation_norm": norms})
    (path / "checkpoints").mkdir(exist_ok=True)
    save_file(as_modules(of), path / "checkpoints" / "final.safetensors")


def sparsify(path: Path, of: dict[str, torch.Tensor]) -> None:
    config = {"d_in": D_IN, "expansion_factor": D_SAE // D_IN, "num_latents": 0, "k": K, "normalize_decoder": True}
    write_json(path / "cfg.json", config)
    tensors = {**as_modules(of), "W_dec": of["W_dec"].T.contiguous(), "b_dec": of["b_dec"]}
    del tensors["decoder.weight"], tensors["decoder.bias"]
    save_file(tensors, path / "sae.safetensors")


def dictionary_learning(path: Path, of: dict[str, torch.Tensor], kind: str = "JumpReluAutoEncoder") -> None:
    trainer = {"layer": 2, "activation_dim": D_IN, "dict_size": D_SAE, "dict_class": kind, "k": K}
    config = {"trainer": {**trainer, "lm_name": "tests/tiny-gemma2"}, "buffer": {"ctx_len": 128}}
    write_json(path / "config.json", config)
    torch.save(dict(of), path / "ae.pt")


def plain(path: Path, of: dict[str, torch.Tensor]) -> None:
    metadata = {"model_name": "tiny-gemma2", "hook_name": "blocks.2.hook_resid_post", "prepend_bos": True}
    config = {"architecture": "jumprelu", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    rest = {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"}
    write_json(path / "cfg.json", {**config, **rest, "metadata": {**metadata, "sae_lens_version": "6.0.0"}})
    save_file(of, path / "renamed.safetensors")


@dataclass(frozen=True)
class Case:
    """A layout: how it is written, where, what the job has to say, and what stays open."""

    write: Callable[..., None]
    folder: str = "mine"
    says: dict[str, Any] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    site: str = "resid_post"


PLACE = {"layer": 2, "site": "resid_post"}
CASES = {
    "gemma-scope": Case(gemma_scope, says=PLACE, unverified=("model", "site", "layer")),
    "gemma-scope-2": Case(gemma_scope_2, says={"allow_mismatch": False}),
    "llama-scope": Case(llama_scope, unverified=("model",)),
    "sparsify": Case(sparsify, "layers.2", unverified=("model",)),
    "sparsify-elsewhere": Case(sparsify, says=PLACE, unverified=("model", "site", "layer")),
    "dictionary-learning": Case(dictionary_learning, says={"allow_pickle": True}),
    "dictionary-learning-topk": Case(
        lambda path, of: dictionary_learning(path, of, "AutoEncoderTopK"), says={"allow_pickle": True}
    ),
    "plain": Case(plain),
}


def job(model: Path, **sae: Any) -> JobSpec:
    mapping = {
        "corpus": {"path": "unused.jsonl"},
        "model": {"name": str(model), "dtype": "float32"},
        "saes": [{"name": "s0", **sae}],
        "store": "unused",
    }
    return job_from_mapping(mapping, Path.cwd())


def refusal(model: Path, **sae: Any) -> str:
    with pytest.raises(BundleError) as caught:
        prepare(job(model, **sae))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoded(bundle: Bundle, x_ND: torch.Tensor) -> np.ndarray:
    """Activations by the engine."""
    found = np.zeros((len(x_ND), D_SAE), dtype=np.float32)
    for active in SaeEncoder(bundle, bundle.saes[0], "cpu").active(Inputs(x_ND)):
        found[active.token, active.feature] = active.value
    return found


def from_hub(path: Path, loader: str, repository: str, folder: str, scale: float | None = None, **told: Any) -> Any:
    """The SAE as sae-lens' own loader for the hub reads it, with the hub's files already here."""
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    with pytest.MonkeyPatch.context() as patch:

        def download(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
            return str(path / f"{subfolder}/{filename}".removeprefix("/").removeprefix(f"{folder}/"))

        patch.setattr(loaders, "hf_hub_download", download)
        shapes = lambda *_: {"w_enc": [D_IN, D_SAE]}  # noqa: E731
        patch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
        read = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader]
        sae = SAE.load_from_disk(
            path,
            dtype="float32",
            converter=lambda _p, device, cfg_overrides: read(
                repository, folder, device, False, {**told, **cfg_overrides}
            )[:2],
        )
    if scale is not None:
        sae.fold_activation_norm_scaling_factor(scale)
    return sae


WIDTHS = {"d_in": D_IN, "d_sae": D_SAE}
EXPECTED: dict[str, Callable[[Path], Any]] = {
    "gemma-scope": lambda path: from_hub(path, "gemma_2", "google/gemma-scope-2b-pt-res", "layer_2", **WIDTHS),
    "gemma-scope-2": lambda path: from_hub(path, "gemma_3", "google/gemma-scope-2-1b-pt", "resid_post/layer_2"),
    "llama-scope": lambda path: from_hub(path, "llama_scope", "fnlp/x", "L2R", scale=D_IN**0.5 / 3.0),
    "sparsify": lambda path: from_hub(path, "sparsify", "x", "layers.2", d_sae=D_SAE),
    "dictionary-learning": lambda path: from_hub(path, "dictionary_learning_1", "x", "y"),
    "dictionary-learning-topk": lambda path: from_hub(path, "dictionary_learning_1", "x", "y"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_sae_in_its_authors_layout_is_encoded_as_sae_lens_encodes_it(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    case, path = CASES[name], tmp_path / CASES[name].folder
    case.write(path, weights())
    bundle = open_bundle(prepare(job(tiny_model, path=str(path), **case.says)))
    (info,) = bundle.saes
    assert (info.layer, info.site, info.unverified) == (2, case.site, case.unverified)
    x_ND = 3 * torch.randn(40, D_IN, generator=torch.Generator().manual_seed(2))
    if name in EXPECTED:
        expected = EXPECTED[name](path)
    elif name == "plain":
        sae_lens_own = tmp_path / "own"
        plain(sae_lens_own, weights())
        (sae_lens_own / "renamed.safetensors").rename(sae_lens_own / "sae_weights.safetensors")
        from sae_lens import SAE

        expected = SAE.load_from_disk(sae_lens_own, dtype="float32")
    else:
        (path.parent / "layers.2").symlink_to(path)
        expected = EXPECTED["sparsify"](path.parent / "layers.2")
    with torch.no_grad():
        acts = expected.encode(x_ND).numpy()
    assert (acts > 0).any() and (acts == 0).any()
    np.testing.assert_allclose(encoded(bundle, x_ND), acts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma-scope", "sparsify-elsewhere"])
def test_what_neither_directory_nor_job_says_is_asked_for(tiny_model: Path, tmp_path: Path, name: str) -> None:
    CASES[name].write(tmp_path / "mine", weights())
    said = refusal(tiny_model, path=str(tmp_path / "mine"))
    assert "does not say which layer and site it reads" in said and "add layer: and site: to this SAE" in said
    assert "add site: to this SAE" in refusal(tiny_model, path=str(tmp_path / "mine"), layer=2)


def test_a_copy_of_gemma_scopes_repository_says_what_its_folders_say(tmp_path: Path) -> None:
    model = tiny_gemma2(tmp_path, name="gemma-2-2b")
    path = tmp_path / "gemma-scope-2b-pt-mlp" / "layer_1" / "width_16k" / "average_l0_119"
    gemma_scope(path, weights())
    (info,) = open_bundle(prepare(job(model, path=str(path)))).saes
    assert (info.layer, info.site, info.unverified, info.mismatch) == (1, "mlp_out", (), ())
    assert "the job says layer 3" in refusal(model, path=str(path), layer=3)
    other = tiny_gemma2(tmp_path, name="gemma-2-9b")
    assert "it was trained on gemma-2-2b, the job's model is gemma-2-9b" in refusal(other, path=str(path))


@pytest.mark.parametrize(
    ("reads", "site"),
    [
        ("model.layers.1.output", "resid_post"),
        ("model.layers.1.post_feedforward_layernorm.output", "mlp_out"),
    ],
)
def test_gemma_scope_2_says_in_its_config_where_it_reads(
    tiny_model: Path, tmp_path: Path, reads: str, site: str
) -> None:
    gemma_scope_2(tmp_path / "mine", weights(), reads)
    (info,) = open_bundle(prepare(job(tiny_model, path=str(tmp_path / "mine")))).saes
    assert (info.layer, info.site, info.unverified) == (1, site, ())


def test_sparsify_says_the_model_beside_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    sparsify(tmp_path / "run" / "layers.2", weights())
    write_json(tmp_path / "run" / "config.json", {"model": "someone/tiny-gemma2"})
    (info,) = open_bundle(prepare(job(tiny_model, path=str(tmp_path / "run" / "layers.2")))).saes
    assert info.unverified == ()
    write_json(tmp_path / "run" / "config.json", {"model": "EleutherAI/pythia-70m"})
    assert "it was trained on EleutherAI/pythia-70m" in refusal(tiny_model, path=str(tmp_path / "run" / "layers.2"))


@pytest.mark.parametrize("changed", [{"signed": True}, {"activation": "groupmax"}, {"transcode": True}])
def test_settings_of_sparsify_that_its_loader_does_not_follow_are_refused(
    tiny_model: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    path = tmp_path / "layers.2"
    sparsify(path, weights())
    write_json(path / "cfg.json", {**json.loads((path / "cfg.json").read_text()), **changed})
    assert f"says {next(iter(changed))}: " in refusal(tiny_model, path=str(path))


def test_a_pickle_in_a_directory_waits_for_leave(tiny_model: Path, tmp_path: Path, cache: Path) -> None:
    dictionary_learning(tmp_path / "mine", weights())
    said = refusal(tiny_model, path=str(tmp_path / "mine"))
    assert "ae.pt, a pickle, in which code can hide; set allow_pickle: true" in said
    assert not (cache / "converted").exists()


def test_objects_in_a_numpy_archive_are_not_opened(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    said = refusal(tiny_model, path=str(tmp_path / "mine"), **PLACE)
    assert "cannot be loaded by sae-lens" in said and "allow_pickle=False" in said


def test_an_archive_of_something_else_is_said_to_be_no_sae(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "params.npz", x=np.zeros(3))
    assert "holds no W_enc" in refusal(tiny_model, path=str(tmp_path / "mine"), **PLACE)


def test_an_unknown_layout_lists_those_that_are_known(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    torch.save(weights(), tmp_path / "mine" / "layer0.sae.pt")
    said = refusal(tiny_model, path=str(tmp_path / "mine"))
    for known in ("sae-lens (cfg.json and sae_weights.safetensors)", "Gemma Scope (params.npz)", "save_model"):
        assert known in said
    assert "there is no directory" in refusal(tiny_model, path=str(tmp_path / "nowhere"))


def test_a_pointer_instead_of_weights_is_named(tiny_model: Path, tmp_path: Path) -> None:
    llama_scope(tmp_path / "mine", weights())
    weights_file = tmp_path / "mine" / "checkpoints" / "final.safetensors"
    weights_file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "is a Git LFS pointer" in refusal(tiny_model, path=str(tmp_path / "mine"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma-scope", "llama-scope", "dictionary-learning", "plain"])
def test_a_changed_file_makes_another_bundle(tiny_model: Path, tmp_path: Path, name: str) -> None:
    case, path = CASES[name], tmp_path / CASES[name].folder
    spec = job(tiny_model, path=str(path), **case.says)
    case.write(path, weights())
    first = prepare(spec)
    assert prepare(spec) == first
    case.write(path, weights(seed=1))
    second = prepare(spec)
    assert second != first
    assert open_bundle(second).sha256 != open_bundle(first).sha256


def test_sae_lens_own_layout_keeps_its_bundle(tiny_model: Path, tmp_path: Path) -> None:
    """Moved elsewhere, it is the same SAE: nothing but its files is in the name of its bundle."""
    sae = tiny_sae(tmp_path / "a")
    first = prepare(job(tiny_model, path=str(sae)))
    sae.rename(tmp_path / "b")
    assert prepare(job(tiny_model, path=str(tmp_path / "b"))) == first
