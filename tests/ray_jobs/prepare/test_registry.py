"""The registry of SAEs, read without sae-lens: what is said of each, whether it can be run, where it is read from."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.errors import BundleError
from ray_jobs.backbone.sites import SITES
from ray_jobs.prepare import registry
from ray_jobs.prepare.judge_sae import SaeConfig, Wanted, check_kind, judge
from ray_jobs.prepare.models import _MODELS, hub_name, known_config, same_model
from ray_jobs.prepare.registry import RegisteredSae, described, entries, features_of, registered_saes, said_of
from ray_jobs.prepare.registry import width_word as word

ROOT = Path(__file__).parents[3]


def one(release: str, id: str) -> RegisteredSae:
    (found,) = [sae for sae in registered_saes() if (sae.release, sae.id) == (release, id)]
    return found


def test_of_thirteen_thousand_saes_all_but_a_hundredth_can_be_run_and_the_others_say_why() -> None:
    saes = registered_saes()
    assert len(saes) > 13_000
    assert sum(sae.accepted for sae in saes) / len(saes) >= 0.99
    for sae in saes:
        assert sae.accepted == (sae.reason is None)
        assert sae.reason is None or ("\n" not in sae.reason and sae.reason.count("; ") == 1), sae


def test_the_models_of_the_registry_are_known_and_told_apart() -> None:
    for entry in entries():
        assert known_config(entry.model) is not None, entry.model
    assert len({hub_name(entry.model) for entry in entries()}) == len({entry.model for entry in entries()})
    assert [(a, b) for a in _MODELS for b in _MODELS if same_model(a, b) != (a == b)] == []


def test_what_a_model_is_built_like_is_what_others_say() -> None:
    """TransformerLens knows the Gemma and Llama models by heart, transformers has some shapes as defaults."""
    from transformer_lens.loading_from_pretrained import convert_hf_model_config
    from transformers import CONFIG_MAPPING

    by_heart = [name for name in _MODELS if name.startswith(("google/gemma", "meta-llama/"))]
    assert len(by_heart) >= 20
    for name in by_heart:
        said, known = convert_hf_model_config(name), known_config(name)
        assert known.num_hidden_layers == said["n_layers"], name
        assert known.hidden_size == said["d_model"], name
        assert known.head_dim == said["n_heads"] * said["d_head"], name
    for model_type, name in (("gpt2", "gpt2-small"), ("mistral", "mistral-7b")):
        default, known = CONFIG_MAPPING[model_type](), known_config(name)
        assert known.num_hidden_layers == default.num_hidden_layers
        assert known.head_dim == known.hidden_size == default.hidden_size
    assert {known_config(name).model_type for name in _MODELS} <= set(CONFIG_MAPPING)


def test_an_sae_is_described_by_what_names_tell() -> None:
    canonical = one("gemma-scope-9b-it-res-canonical", "layer_20/width_16k/canonical")
    assert (canonical.model, canonical.site, canonical.layer) == ("google/gemma-2-9b-it", "resid_post", 20)
    assert (canonical.d_sae, canonical.l0) == (16_384, 91)
    assert canonical.neuronpedia == "gemma-2-9b-it/20-gemmascope-res-16k"
    assert (canonical.accepted, canonical.needs, canonical.reason) == (True, None, None)
    heads = one("llama_scope_lxa_8x", "l7a_8x")
    assert (heads.model, heads.site, heads.layer, heads.d_sae) == ("meta-llama/Llama-3.1-8B", "attn_out", 7, 32_768)
    transcoder = one("gemma-scope-2-4b-pt-transcoders-all", "layer_10_width_262k_l0_small_affine")
    assert (transcoder.site, transcoder.layer, transcoder.d_sae, transcoder.l0) == ("mlp_in", 10, 262_144, 18)
    splitting = one("gpt2-small-res-jb-feature-splitting", "blocks.8.hook_resid_pre_768")
    assert (splitting.site, splitting.layer, splitting.d_sae) == ("resid_pre", 8, 768)
    step = one("sae_bench_gemma-2-2b_topk_width-2pow12_date-1109", "blocks.12.hook_resid_post__trainer_0_step_308")
    assert (step.d_sae, step.needs) == (4096, "allow_pickle")


def test_a_release_is_of_the_model_that_its_repository_names_where_the_registry_is_wrong() -> None:
    assert one("gemma-scope-9b-it-res", "layer_20/width_16k/average_l0_91").model == "google/gemma-2-9b-it"
    distilled = one("llama_scope_r1_distill", "l0r_800m_slimpajama")
    assert distilled.model == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    assert registry.trained_on("llama_scope_r1_distill", "meta-llama/Llama-3.1-8B") == distilled.model
    assert registry.trained_on("another", "meta-llama/Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"


def test_what_only_a_file_says_is_left_open() -> None:
    (clt,) = [entry for entry in entries() if (entry.release[:5], entry.id) == ("mntss", "layer_3")]
    said = said_of(clt)
    assert (said.hook, said.d_in, said.d_sae) == (None, None, None)
    assert (described(clt).site, described(clt).layer, described(clt).accepted) == (None, 3, True)
    own = said_of(next(entry for entry in entries() if entry.release == "gpt2-small-res-jb"))
    assert (own.architecture, own.normalization) == (None, None)


def test_a_format_or_model_of_a_later_sae_lens_is_not_refused_before_its_config_is_there() -> None:
    later = replace(entries()[0], converter="of next year", model="some/model-of-next-year")
    assert (described(later).accepted, described(later).site) == (True, None)


def test_temporal_saes_are_refused_by_name() -> None:
    temporal = [sae for sae in registered_saes() if "temporal" in sae.release]
    assert temporal
    for sae in temporal:
        assert not sae.accepted
        assert str(sae.reason).startswith("architecture 'temporal' is not supported: its features depend on the tokens")


def test_every_site_of_a_registered_sae_has_its_name() -> None:
    sites = Counter(sae.site for sae in registered_saes())
    assert set(sites) - {None} <= set(SITES)
    assert sites[None] < 0.01 * len(registered_saes())


@pytest.mark.parametrize(
    ("width", "features"),
    [
        *(("4k", 4096), ("16k", 16_384), ("65k", 65_536), ("131k", 131_072), ("128k", 131_072), ("262k", 262_144)),
        *(("524k", 524_288), ("1m", 1_048_576), ("24k", 24_576), ("80k", 81_920), ("768", 768), ("17k", 17_408)),
        *(("16,384", 16_384), ("0k", None), ("", None), ("big", None), ("-4k", None)),
    ],
)
def test_a_width_means_so_many_features(width: str, features: int | None) -> None:
    assert features_of(width) == features


def test_a_number_of_features_has_one_word_that_means_it() -> None:
    widths = {sae.d_sae for sae in registered_saes() if sae.d_sae is not None}
    assert [width for width in widths if features_of(word(width)) != width] == []
    assert (word(16_384), word(131_072), word(1_048_576), word(24_576), word(768)) == (
        "16k",
        "131k",
        "1m",
        "24k",
        "768",
    )


def test_the_registry_is_read_without_torch_or_sae_lens_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys
from ray_jobs.prepare.registry import entries, neuronpedia_id
print(len(entries()), neuronpedia_id("gpt2-small-res-jb", "blocks.0.hook_resid_pre"))
print(sorted({"torch", "sae_lens", "transformers", "polars", "pydantic", "numpy"} & set(sys.modules)))
print("yaml" in sys.modules)
"""
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"SPARSEMILL_CACHE": str(tmp_path), "PATH": ""},
            check=True,
        )
        said.append(done.stdout.splitlines())
    assert said[0] == [f"{len(entries())} gpt2-small/0-res-jb", "[]", "True"]
    assert said[1] == [said[0][0], "[]", "False"]  # from the cache, which the first one wrote
    (kept,) = (tmp_path / "registry").iterdir()
    kept.write_text("damaged", encoding="utf-8")
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path))
    assert len(registry._kept()) == len(entries())
    assert kept.stat().st_size > 1_000_000


def test_a_machine_without_sae_lens_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        registry._kept()
    assert caught.value.name == "sae_lens"


LLAMA = "meta-llama/Llama-3.1-8B"
FINE = SaeConfig(model=LLAMA, hook="blocks.3.hook_resid_post", architecture="standard", normalization="none", d_in=4096)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"architecture": "abstopk"}, "architecture 'abstopk' is not supported"),
        ({"normalization": "covariance_whitening"}, "normalize_activations=covariance_whitening is not supported"),
        ({"reshape": "hook_q"}, "reshape_activations=hook_q is not known"),
        ({"head": 3}, "reads one attention head (blocks.3.hook_resid_post, head 3)"),
        ({"changed": {"fold_value_biases": True}}, "a model loaded with fold_value_biases=True"),
        ({"model": "gemma-2-2b"}, "it was trained on gemma-2-2b, the job's model is meta-llama/Llama-3.1-8B"),
        ({"hook": "blocks.3.attn.hook_q"}, "it reads blocks.3.attn.hook_q, which is none of embed"),
        ({"hook": None}, "its metadata names no layer"),
        ({"hook": "blocks.32.hook_resid_post"}, "reads layer 32, but meta-llama/Llama-3.1-8B has layers 0 to 31"),
        ({"d_in": 2304}, "reads 2304 dimensions, but meta-llama/Llama-3.1-8B has d_model 4096"),
    ],
)
def test_one_judgement_refuses_what_cannot_be_run(changes: dict[str, object], refused: str) -> None:
    with pytest.raises(BundleError, match=re.escape(refused)) as caught:
        judge("this SAE", replace(FINE, **changes), LLAMA, known_config(LLAMA), Wanted())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_site_that_the_family_lacks_is_refused_by_the_models_name_alone() -> None:
    """Pythia computes attention and MLP from one input."""
    said = replace(FINE, model="pythia-70m-deduped", hook="blocks.3.hook_resid_mid", d_in=512)
    with pytest.raises(BundleError, match="gpt_neox computes attention and MLP from one input"):
        judge("this SAE", said, "pythia-70m-deduped", known_config("pythia-70m-deduped"), Wanted())


def test_how_a_model_was_loaded_matters_where_its_norms_centre() -> None:
    said = replace(FINE, changed={"center_writing_weights": True, "fold_ln": False})
    check_kind("this SAE", said)
    assert not judge("this SAE", said, LLAMA, known_config(LLAMA), Wanted()).centred
    gpt2 = replace(said, model="gpt2-small", d_in=768)
    assert judge("this SAE", gpt2, "gpt2", known_config("gpt2"), Wanted()).centred


@pytest.mark.parametrize(
    ("hook", "wanted", "refused"),
    [
        ("blocks.3.mlp.hook_in", Wanted(), True),
        (None, Wanted(layer=3, site="attn_in"), True),
        (None, Wanted(layer=3, site="mlp_in"), True),
        ("blocks.3.mlp.hook_in", Wanted(site="ln2_normalized", allow_mismatch=True), False),
        ("blocks.3.ln2.hook_normalized", Wanted(), False),
        ("blocks.3.hook_mlp_in", Wanted(), False),  # the stream
        ("blocks.3.hook_attn_in", Wanted(), False),
        ("blocks.3.hook_mlp_out", Wanted(), False),
    ],
)
def test_a_norm_without_its_weight_matters_right_behind_it(hook: str | None, wanted: Wanted, refused: bool) -> None:
    said = replace(FINE, hook=hook, changed={"fold_ln": True})
    judge("this SAE", replace(said, changed={"fold_ln": False}), LLAMA, known_config(LLAMA), wanted)
    with pytest.raises(BundleError, match="fold_ln=True, whose norm has no weight") if refused else nullcontext():
        judge("this SAE", said, LLAMA, known_config(LLAMA), wanted)
