"""Make windows of images: pixels as the model's tower reads them, and ids with as many image tokens as they take.

Pixels come from transformers' own image processor, in its Pillow form, so they are those of the model's processor; ids
are put together from what `prepare` has found around an image, and the prompt's, tokenised on its own with control
tokens spelled out. Which positions are pooled is `tokens`: those of the image, of the text behind it, or all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from featurestore.errors import JobSpecError
from ray_jobs.backbone.bundle import PROCESSOR_NAME, Bundle, bundle_file
from ray_jobs.backbone.tokens import ContentTokenizer, Window

PROCESSORS = {"paligemma": "SiglipImageProcessorPil", "gemma3": "Gemma3ImageProcessorPil"}
"""Model types that take images -> transformers' image processor, in the form that needs no torchvision."""

LOT_IMAGES, LOT_BYTES = 128, 1 << 26
"""Images whose pixels are made ahead of the device, and how large these may be: twice that may be in memory, beside the
image that is being decoded. Two batches of PaliGemma's on a GPU."""


class Images(Protocol):
    """Images of documents, made when they are asked for: uint8 [height, width, 3], or why there is none."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> np.ndarray | str: ...


class ImageChoices(Protocol):
    """What a job says of images: its `model`, and the engine's settings, say it in the same words."""

    @property
    def tokens(self) -> Literal["content", "all", "image", "text"]: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def prompt(self) -> str: ...


class ImageInputs:
    """Makes windows of images for one bundle.

    Args:
        bundle: A bundle that was prepared for images.
        choices: What the job says.

    Raises:
        JobSpecError: `max_tokens` leaves no room for an image and a token of text.
    """

    def __init__(self, bundle: Bundle, choices: ImageChoices) -> None:
        assert bundle.vision is not None
        self._vision, self._choices, self._bundle = bundle.vision, choices, bundle
        self._tokenizer = ContentTokenizer(bundle)
        vision = self._vision
        around = len(vision.before) + vision.tokens + len(vision.after)
        self._room = choices.max_tokens - around
        if self._room < 1:
            raise JobSpecError(
                f"model.max_tokens: an image of {bundle.model.name} takes {around:,} positions and "
                f"{choices.max_tokens:,} are allowed; set it higher"
            )
        self._context = np.array([*vision.before, *(vision.token,) * vision.tokens, *vision.after], dtype=np.int32)
        self._processor: Any = None

    @property
    def lot(self) -> int:
        """Images whose pixels are made at a time."""
        size = self._opened().size
        return max(1, min(LOT_IMAGES, LOT_BYTES // (12 * int(size["height"]) * int(size["width"]))))

    def counts(self, prompts: Sequence[str]) -> list[tuple[int, bool]]:
        """(Pooled tokens, whether some are cut) of documents with these prompts; those without usable ones left out."""
        windows = [self._window(0, ids) for ids in self._ids(prompts) if not isinstance(ids, str)]
        return [(window.n_pooled, cut) for window, cut in windows]

    def encode(
        self, texts: Sequence[str | None], images: Images, numbers: Sequence[int]
    ) -> list[tuple[list[Window], bool] | str]:
        """The window of each document of these numbers and whether its text is cut, or why there is none."""
        found: list[tuple[list[Window], bool] | str] = []
        for number, ids in zip(numbers, self._ids([texts[number] or "" for number in numbers]), strict=True):
            pixels = ids if isinstance(ids, str) else self._pixels(images[number])
            if isinstance(ids, str) or isinstance(pixels, str):
                found.append(str(pixels))
                continue
            window, cut = self._window(number, ids, pixels)
            found.append(([window], cut))
        return found

    def _ids(self, prompts: Sequence[str]) -> list[np.ndarray | str]:
        vision, prompt = self._vision, self._choices.prompt
        encoded = self._tokenizer.encode([f"{vision.text_before}{prompt}{own}{vision.text_after}" for own in prompts])
        return [ids if isinstance(ids, str) else np.asarray(ids, dtype=np.int32) for ids in encoded]

    def _window(self, number: int, ids: np.ndarray, pixels: np.ndarray | None = None) -> tuple[Window, bool]:
        vision, fed = self._vision, np.concatenate([self._context, ids[: self._room]])
        first = len(vision.before)
        start, stop = {
            "image": (first, first + vision.tokens),
            "text": (len(self._context), len(fed)),
        }.get(self._choices.tokens, (0, len(fed)))
        return Window(number, fed, start, stop, 0, pixels, vision.patches), len(ids) > self._room

    def _pixels(self, image: np.ndarray | str) -> np.ndarray | str:
        """What the tower reads of an image, float32 [C, H, W], or why there is nothing."""
        if isinstance(image, str):
            return image
        try:
            made = self._opened()(images=[image], input_data_format="channels_last", return_tensors="np")
            return np.ascontiguousarray(made["pixel_values"][0], dtype=np.float32)
        except Exception as error:  # noqa: BLE001 (whatever it is, it must cost one document only)
            return f"the image cannot be processed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def _opened(self) -> Any:
        if self._processor is None:
            path = self._bundle.path / PROCESSOR_NAME
            with bundle_file(path):
                settings = json.loads(path.read_text(encoding="utf-8"))
                self._processor = image_processor(self._bundle.model.model_type, settings)
        return self._processor


def image_processor(model_type: str, settings: dict[str, Any]) -> Any:
    """transformers' image processor of a model, as its settings say; images are never cut into several."""
    import transformers

    made = getattr(transformers, PROCESSORS[model_type]).from_dict(settings)
    if getattr(made, "do_pan_and_scan", None):
        made.do_pan_and_scan = False
    return made


def small_copy(pixels_CHW: np.ndarray, side: int) -> np.ndarray:
    """A picture made small: the mean of each of `side` x `side` fields, row after row of each colour, float32."""
    channels, height, width = pixels_CHW.shape
    rows, columns = (np.arange(side) * size // side for size in (height, width))
    sums = np.add.reduceat(np.add.reduceat(pixels_CHW.astype(np.float64), rows, axis=1), columns, axis=2)
    tall, wide = (np.maximum(np.diff([*starts, size]), 1) for starts, size in ((rows, height), (columns, width)))
    return (sums / (tall[:, None] * wide)).astype(np.float32).reshape(channels * side * side)
