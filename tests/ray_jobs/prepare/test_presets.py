"""Presets: every residual SAE of Gemma Scope by a short name, and a job made of one or several."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from featurestore.errors import UsageError
from ray_jobs.prepare.presets import find_preset, preset_job, presets
from ray_jobs.prepare.registry import entries, registered_saes
from ray_jobs.spec import job_from_mapping

MISSION = [
    *(f"gemma-2-2b/l{layer}_{width}" for layer in (5, 12, 19) for width in ("16k", "65k", "1m")),
    *(f"gemma-2-9b/l{layer}_{width}" for layer in (9, 20, 31) for width in ("16k", "131k", "1m")),
    *(f"gemma-2-9b-it/l{layer}_{width}" for layer in (9, 20, 31) for width in ("16k", "131k")),
    *("gemma-2-2b/l12_131k", "gemma-2-9b/l20_65k", "gemma-2-27b/l22_131k"),
]
"""The layers and widths of the paper's models, as far as the registry has them."""


@pytest.mark.parametrize("name", MISSION)
def test_the_models_layers_and_widths_of_the_paper_are_presets_that_can_be_run(name: str, tmp_path: Path) -> None:
    preset = find_preset(name)
    model, _, tail = name.partition("/")
    assert preset.sae.accepted and preset.sae.needs is None
    assert (preset.sae.model, preset.sae.site) == (f"google/{model}", "resid_post")
    assert tail.startswith(f"l{preset.sae.layer}_")
    job = job_from_mapping(preset_job([name], "c.jsonl", "store"), tmp_path, name)
    assert (job.model.name, job.model.max_tokens, job.model.dtype) == (f"google/{model}", 1024, None)
    assert (job.saes[0].release, job.saes[0].id, job.saes[0].name) == (preset.sae.release, preset.sae.id, tail)
    assert job.pool == ("max", "sum", "count")


def test_every_residual_sae_of_gemma_scope_is_reached_but_for_other_l0s_and_seeds() -> None:
    places = {
        (sae.model, sae.layer, sae.site, sae.d_sae)
        for sae in registered_saes()
        if sae.release.startswith("gemma-scope") and "-res" in sae.release
    }
    reached = {(one.sae.model, one.sae.layer, one.sae.site, one.sae.d_sae) for one in presets().values()}
    assert reached == places


def test_canonical_saes_are_those_with_an_l0_nearest_a_hundred() -> None:
    """So a layer and width that the canonical releases lack gets the one that they would have chosen."""
    there = defaultdict(list)
    for sae in registered_saes():
        if sae.release in ("gemma-scope-2b-pt-res", "gemma-scope-9b-pt-res", "gemma-scope-9b-it-res"):
            there[sae.model, sae.layer, sae.site, sae.d_sae].append(abs(float(sae.l0 or 0) - 100))
    for preset in presets().values():
        if preset.sae.model.startswith("google/gemma-2-") and "27b" not in preset.name:
            key = (preset.sae.model, preset.sae.layer, preset.sae.site, preset.sae.d_sae)
            assert abs(float(preset.sae.l0 or 0) - 100) == min(there[key]), preset
    assert find_preset("gemma-2-2b/l12_16k").sae.release == "gemma-scope-2b-pt-res-canonical"
    assert find_preset("gemma-2-2b/l12_131k").sae.release == "gemma-scope-2b-pt-res"


def test_of_gemma_scope_2_the_last_word_is_the_class_of_the_l0() -> None:
    medium = find_preset("gemma-3-4b-it/l17_65k_medium").sae
    assert (medium.release, medium.id) == ("gemma-scope-2-4b-it-res", "layer_17_width_65k_l0_medium")
    assert find_preset("gemma-3-270m/l9_262k_small").sae.model == "google/gemma-3-270m"
    everywhere = find_preset("gemma-3-4b-pt/l1_16k_big").sae  # only the release of all layers has it
    assert (everywhere.release, everywhere.layer) == ("gemma-scope-2-4b-pt-res-all", 1)
    assert not [name for name in presets() if "seed" in name]


def test_several_presets_of_one_model_are_one_job(tmp_path: Path) -> None:
    names = ["gemma-2-2b/l5_16k", "google/gemma-2-2b/l19_65k"]
    mapping = preset_job(names, "r/*.parquet", "s3://bucket/s", "body", "key")
    assert mapping["corpus"] == {"path": "r/*.parquet", "text": "body", "id": "key"}
    assert [sae.name for sae in job_from_mapping(mapping, tmp_path).saes] == ["l5_16k", "l19_65k"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["gemma-2-9b-ti/l20_16k"], "none is of a model 'gemma-2-9b-ti'; did you mean 'gemma-2-9b-it'?"),
        (["gemma-2-9b-it/l20_17k"], "there is no preset 'gemma-2-9b-it/l20_17k'; did you mean 'l20_16k'?"),
        (["gemma-3-4b-it/l17_65k"], "lacks the class of its L0: l17_65k_big, l17_65k_medium, l17_65k_small"),
        (["gemma-2-2b/l12_16k", "gemma-2-9b/l9_16k"], "the presets of a job are of one model: gemma-2-2b/l12_16k"),
        (["gemma-2-2b"], "there is no preset 'gemma-2-2b'; gemma-2-2b has "),
        ([""], "there is no preset '': none is of a model ''"),
    ],
)
def test_a_preset_that_is_not_there_is_one_sentence(names: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        preset_job(names, "c", "s")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_names_an_sae_that_sae_lens_has() -> None:
    there = {(entry.release, entry.id) for entry in entries()}
    assert {(one.sae.release, one.sae.id) for one in presets().values()} <= there
