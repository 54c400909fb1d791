"""Images through the engine, against whole models with their own processors: one at a time, hooked by hand, float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore.errors import JobSpecError
from ray_jobs.backbone import backbone as backbone_module
from ray_jobs.backbone.backbone import VisionBackbone
from ray_jobs.backbone.batching import fill_batches
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.engine.extractor import ExtractedRows, Extractor, ExtractSettings
from ray_jobs.engine.image_inputs import ImageInputs, small_copy
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.reference import assert_row_equals, encode, undecided
from tests.tiny import tiny_sae
from tests.tiny_vision import KINDS, VisionReference, tiny_images, tiny_vision

LAYER = 2
POOLS = ("max", "sum", "count", "last")
SETTINGS = ExtractSettings(
    pools=POOLS, hidden=("mean", "last"), tokens="image", max_tokens=256, batch_tokens=70, threads=1
)
IMAGES = tiny_images(7, seed=3)
PROMPTS = [
    "",
    "caption en",
    "what is this bread?\n",
    "river stone " * 9,
    "\n\nnaïve 🙂",
    "x",
    "answer <bos> en <image>",
]


class Made:
    """A tiny model with its bundle, its SAE and its reference."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.path = tiny_vision(directory, kind)
        self.sae = tiny_sae(directory / "sae", layer=LAYER, model_name=None)
        mapping = {
            "corpus": {"path": "unused", "image": "image"},
            "model": {"name": str(self.path), "dtype": "float32"},
            "saes": [{"path": str(self.sae), "name": "tiny"}],
            "store": "unused",
        }
        self.bundle: Bundle = open_bundle(prepare(job_from_mapping(mapping, directory), cache_dir=directory / "cache"))
        self.reference = VisionReference(self.path)

    def extract(self, numbers: list[int], **changes: Any) -> ExtractedRows:
        extractor = Extractor(self.bundle, replace(SETTINGS, **changes))
        return extractor.extract([PROMPTS[n] for n in numbers], images=[IMAGES[n] for n in numbers])

    def assert_right(self, rows: ExtractedRows, place: int, number: int, tokens: str = "image") -> None:
        residual = self.reference.residual(IMAGES[number], PROMPTS[number], LAYER, tokens)
        assert rows.errors[place] is None
        assert rows.n_tokens[place] == len(residual)
        acts = encode(self.sae, residual)
        assert (acts > 0).any()
        assert_row_equals(rows.saes["tiny"].row(place), acts, POOLS, left_out=undecided(self.sae, residual))
        mean, last = (rows.dense[f"resid_post_{LAYER}__hidden_{kind}"][place] for kind in ("mean", "last"))
        np.testing.assert_allclose(mean, residual.mean(axis=0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(last, residual[-1], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {}


def model(made: dict[str, Made], factory: pytest.TempPathFactory, kind: str) -> Made:
    if kind not in made:
        made[kind] = Made(factory.mktemp(kind), kind)
    return made[kind]


BOTH = ["paligemma2", pytest.param("gemma3", marks=pytest.mark.slow)]
WITH_PROMPTS_OF_THEIR_OWN = 6  # the last prompt writes control tokens, which a processor would take for control


@pytest.mark.parametrize(
    "kind", [kind if kind == "paligemma2" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_images_alone_and_among_others_are_what_the_whole_model_gives(
    kind: str, made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = model(made, tmp_path_factory, kind)
    together = list(range(WITH_PROMPTS_OF_THEIR_OWN))
    for tokens in ("image", "text", "all"):
        rows = one.extract(together, tokens=tokens)
        for number in together if tokens == "image" else (0, 3):
            one.assert_right(rows, number, number, tokens)
        one.assert_right(one.extract([3], tokens=tokens), 0, 3, tokens)


@pytest.mark.parametrize("kind", BOTH)
def test_what_attends_both_ways_is_seen_to(
    kind: str, made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it causal, as for texts, the comparison with the whole model would fail, at the image and behind it."""
    one = model(made, tmp_path_factory, kind)
    feed = VisionBackbone._images

    def causal(self: VisionBackbone, windows: Any, ids_BT: torch.Tensor) -> dict[str, torch.Tensor]:
        given = feed(self, windows, ids_BT)
        types = given["token_type_ids"]
        return {**given, "token_type_ids": torch.ones_like(types) if kind == "paligemma2" else torch.zeros_like(types)}

    monkeypatch.setattr(VisionBackbone, "_images", causal)
    rows = one.extract([1, 3])
    for place, number in enumerate((1, 3)):
        with pytest.raises(AssertionError):
            one.assert_right(rows, place, number)


@pytest.mark.parametrize("kind", BOTH)
def test_padding_is_seen_to(
    kind: str, made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were padding not masked, a short prompt beside a long one would get other features than alone."""
    one = model(made, tmp_path_factory, kind)
    pad = backbone_module.pad

    def unmasked(windows: Any, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids_BT, mask_BT = pad(windows, pad_id)
        return ids_BT, torch.ones_like(mask_BT)

    monkeypatch.setattr(backbone_module, "pad", unmasked)
    rows = one.extract([0, 3], tokens="all", batch_tokens=200)
    one.assert_right(rows, 1, 3, "all")  # the longest has none
    if kind == "paligemma2":  # whose prefix sees what stands behind it
        with pytest.raises(AssertionError):
            one.assert_right(rows, 0, 0, "all")


def test_a_prompt_cannot_write_control_tokens(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> None:
    one = model(made, tmp_path_factory, "paligemma2")
    rows = one.extract([6], tokens="text")
    assert rows.errors == [None]
    assert rows.n_tokens[0] > len("answer <bos> en <image>") / 2  # spelled out


def test_an_image_that_fails_costs_itself(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> None:
    one = model(made, tmp_path_factory, "paligemma2")
    images: list[Any] = [IMAGES[0], "the image cannot be decoded: why", np.zeros((4, 4, 2), np.uint8), IMAGES[1]]
    rows = Extractor(one.bundle, SETTINGS).extract(["", "", "", PROMPTS[1]], images=images)
    assert rows.errors[1] == "the image cannot be decoded: why"
    assert str(rows.errors[2]).startswith("the image cannot be processed: ")
    one.assert_right(rows, 0, 0)
    one.assert_right(rows, 3, 1)


@pytest.mark.slow
def test_pictures_three_pixels_high_or_wide_are_not_turned_over(
    made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = model(made, tmp_path_factory, "paligemma2")
    rng = np.random.default_rng(0)
    for shape in ((3, 9, 3), (1, 5, 3), (9, 3, 3), (3, 3, 3), (1, 1, 3)):
        picture = rng.integers(0, 256, shape).astype(np.uint8)
        (mean,) = Extractor(one.bundle, SETTINGS).extract([""], images=[picture]).dense["resid_post_2__hidden_mean"]
        wanted = one.reference.residual(picture, "", LAYER).mean(axis=0)
        np.testing.assert_allclose(mean, wanted, rtol=1e-4, atol=1e-4)


def test_a_long_prompt_is_cut_and_an_image_is_not(
    made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = model(made, tmp_path_factory, "paligemma2")
    rows = one.extract([0, 3], max_tokens=20, tokens="all")
    assert rows.truncated.tolist() == [False, True]
    assert rows.n_tokens.tolist() == [18, 20]
    with pytest.raises(JobSpecError, match="an image of tiny-paligemma2 takes 17 positions and 17 are allowed"):
        one.extract([0], max_tokens=17)


@pytest.mark.slow
def test_batches_hold_as_many_images_as_the_tower_can_take(
    made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A tower with 16 patches for 4 positions of the decoder is what the memory of a batch goes by."""
    one = model(made, tmp_path_factory, "gemma3")
    inputs = ImageInputs(one.bundle, SETTINGS)
    windows = [windows[0] for windows, _ in inputs.encode([""] * 7, IMAGES, range(7))]  # type: ignore[misc]
    assert [window.cost for window in windows] == [16] * 7
    assert [len(batch) for batch in fill_batches([windows], lambda: 70)] == [4, 3]


def test_a_small_copy_is_the_mean_of_each_field(
    made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = model(made, tmp_path_factory, "paligemma2")
    images: list[Any] = [IMAGES[0], "no image"]
    rows = Extractor(one.bundle, replace(SETTINGS, pixels=4)).extract(["", ""], images=images)
    pixels = one.reference.inputs(IMAGES[0], "")["pixel_values"][0].numpy()
    wanted = pixels.reshape(3, 4, 4, 4, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(rows.dense["pixels"][0], wanted.reshape(-1), rtol=1e-5, atol=1e-6)
    assert np.isnan(rows.dense["pixels"][1]).all()
    assert small_copy(pixels[:, :5, :7], 8).shape == (192,)


def test_the_same_images_give_the_same_bytes_and_texts_are_refused(
    made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = model(made, tmp_path_factory, "paligemma2")
    first, second = (one.extract([0, 1, 2, 3, 4]).saes["tiny"] for _ in range(2))
    assert first.values["sum"].tobytes() == second.values["sum"].tobytes()
    with pytest.raises(ValueError, match="as many images as texts"):
        Extractor(one.bundle, SETTINGS).extract(["a text"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paligemma2", "paligemma2"])
def test_in_bfloat16_features_stay_close(
    kind: str, made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The stream between the layers is float32 there too, so it comes no further from float32 than a few percent."""
    one = model(made, tmp_path_factory, kind)
    mapping = {
        "corpus": {"path": "unused", "image": "image"},
        "model": {"name": str(one.path), "dtype": "bfloat16"},
        "saes": [{"path": str(one.sae), "name": "tiny"}],
        "store": "unused",
    }
    bundle = open_bundle(prepare(job_from_mapping(mapping, one.path.parent), cache_dir=one.path.parent / "cache"))
    low = Extractor(bundle, SETTINGS).extract(PROMPTS[:3], images=IMAGES[:3]).dense["resid_post_2__hidden_mean"]
    high = one.extract([0, 1, 2]).dense["resid_post_2__hidden_mean"]
    assert np.abs(low - high).max() < 0.05 * np.abs(high).max()
