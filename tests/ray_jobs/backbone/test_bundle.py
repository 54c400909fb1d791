"""Opening bundles: what is there, what is damaged, what identifies them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import MANIFEST_NAME, WEIGHTS_NAME, Bundle, open_bundle


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


def test_a_bundle_tells_its_model_layers_and_saes(bundle: Bundle) -> None:
    assert (bundle.model.name, bundle.model.model_type, bundle.model.n_layers) == ("tiny-gemma2", "gemma2", 4)
    assert bundle.d_model == 32
    assert bundle.dtype == "float32"
    assert bundle.model.softcap == 2.0
    assert bundle.hook_layers == (1, 2)
    assert [(sae.name, sae.architecture, sae.d_sae) for sae in bundle.saes] == [
        ("relu1", "standard", 96),
        ("jump2", "jumprelu", 96),
        ("wide2", "jumprelu", 200),
    ]


def test_it_opens_wherever_it_lies(bundle: Bundle, copy: Path) -> None:
    assert open_bundle(copy, verify=True).sha256 == bundle.sha256


def test_a_directory_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: no bundle\.json there"):
        open_bundle(tmp_path)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "sae_jump2.safetensors").unlink()
    with pytest.raises(BundleError, match=r"lacks sae_jump2\.safetensors"):
        open_bundle(copy)


def test_a_flipped_byte_is_found_when_asked_to_verify(copy: Path) -> None:
    data = bytearray((copy / WEIGHTS_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / WEIGHTS_NAME).write_bytes(bytes(data))
    open_bundle(copy)
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged"):
        open_bundle(copy, verify=True)


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"files": {}}])
def test_an_edited_manifest_is_refused(copy: Path, change: dict) -> None:
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    (copy / MANIFEST_NAME).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BundleError, match="was edited"):
        open_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 99}'])
def test_a_manifest_of_another_kind_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST_NAME).write_text(text)
    with pytest.raises(BundleError, match="prepare again"):
        open_bundle(copy)
