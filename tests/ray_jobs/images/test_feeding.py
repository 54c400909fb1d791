"""What a model is fed around an image is found out from its own files, whatever age they have, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from featurestore.errors import BundleError, JobSpecError
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.doctor import _model
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.tiny import tiny_gemma2, tiny_sae
from tests.tiny_vision import tiny_vision

pytestmark = pytest.mark.slow


def mapping_of(model: Path, sae: Path, **corpus: Any) -> dict[str, Any]:
    return {
        "corpus": {"path": "unused", **corpus},
        "model": {"name": str(model), "dtype": "float32"},
        "saes": [{"path": str(sae), "name": "tiny", "allow_mismatch": True}],
        "store": "unused",
    }


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sae(tmp_path_factory.mktemp("sae") / "sae")


def bundled(model: Path, sae: Path) -> Bundle:
    spec = job_from_mapping(mapping_of(model, sae, image="image"), model.parent)
    return open_bundle(prepare(spec, cache_dir=model.parent / "cache"))


def as_the_hub_has_it(model: Path) -> None:
    """Names of tensors and files as checkpoints of 2024 have them."""
    tensors = load_file(model / "model.safetensors")
    old = {
        name.replace("vision_tower.", "vision_tower.vision_model.").replace(
            "model.language_model.", "language_model.model."
        )
        for name in tensors
    }
    assert len(old) == len(tensors)
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in tensors.items()}
    save_file(renamed, model / "model.safetensors", {"format": "pt"})
    processor = json.loads((model / "processor_config.json").read_text(encoding="utf-8"))
    pixels = {**processor["image_processor"], "processor_class": processor.get("processor_class")}
    (model / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    (model / "processor_config.json").unlink()


def as_new(model: Path) -> None:
    """Names as the model's own modules have them."""
    tensors = load_file(model / "model.safetensors")
    renamed = {
        "model." + name.replace("language_model.model.", "language_model."): tensor
        for name, tensor in tensors.items()
        if not name.endswith("lm_head.weight")
    }
    save_file(renamed, model / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", ["paligemma2", "gemma3"])
@pytest.mark.parametrize("change", [as_the_hub_has_it, as_new])
def test_checkpoints_of_all_ages_give_one_bundle(
    kind: str, change: Callable[[Path], None], sae: Path, tmp_path: Path
) -> None:
    model = tiny_vision(tmp_path, kind)
    first = bundled(model, sae)
    other = tmp_path / "other" / model.name
    shutil.copytree(model, other)
    change(other)
    assert bundled(other, sae).sha256 == first.sha256
    assert first.vision is not None
    names = load_file(first.path / "model.safetensors")
    assert {name.partition(".")[0] for name in names} == {"language_model", "vision_tower", "multi_modal_projector"}
    assert not [name for name in names if "layers.3." in name or "head" in name or name == "language_model.norm.weight"]


def test_a_model_without_a_tower_and_a_processor_of_another_size_are_refused(sae: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is a gemma2 model, and images are run through PaliGemma"):
        bundled(tiny_gemma2(tmp_path), sae)
    model = tiny_vision(tmp_path, "paligemma2")
    file = model / "processor_config.json"
    processor = json.loads(file.read_text(encoding="utf-8"))
    processor["image_processor"]["size"] = {"height": 32, "width": 32}
    file.write_text(json.dumps(processor), encoding="utf-8")
    with pytest.raises(BundleError, match=r"makes images of .* pixels, and its model reads 16 x 16"):
        bundled(model, sae)


def test_texts_are_not_run_through_a_decoder_that_looks_both_ways(sae: Path, tmp_path: Path) -> None:
    model = tiny_vision(tmp_path, "paligemma2")
    with pytest.raises(BundleError, match="is not a causal decoder"):
        prepare(job_from_mapping(mapping_of(model, sae), tmp_path), cache_dir=tmp_path / "cache")


def test_flex_attention_is_refused_by_name_and_doctor_knows_the_model(sae: Path, tmp_path: Path) -> None:
    model = tiny_vision(tmp_path, "paligemma2")
    with pytest.raises(
        JobSpecError, match=r"'flex_attention' is there for .*tiny-paligemma2 is paligemma; use 'eager'"
    ):
        Extractor(bundled(model, sae), ExtractSettings(tokens="image", attn_implementation="flex_attention"))
    with pytest.raises(JobSpecError, match="'sdpa' drops the attention soft cap"):
        Extractor(bundled(model, sae), ExtractSettings(tokens="image", attn_implementation="sdpa"))
    found = _model(job_from_mapping(mapping_of(model, sae, image="image"), tmp_path))
    assert (found.verdict, found.said) == ("right", "gemma2, 4 layers, d_model 32")
