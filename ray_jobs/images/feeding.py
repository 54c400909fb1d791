"""Find out what a model with a vision tower needs for images: settings of its image processor, how images are fed.

How ids are put around an image is what the model's own processor does. It is found out here, once, and compared with
that processor for prompts of many kinds; a processor that does something else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featurestore.base.library_errors import brief
from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import PROCESSOR_NAME, TOKENIZER_NAME, VisionInfo
from ray_jobs.backbone.spelling import text_tokenizer
from ray_jobs.engine.image_inputs import PROCESSORS, image_processor

_DECODERS = ("gemma", "gemma2", "gemma3_text")
_TOWER = "siglip_vision_model"
_PROMPTS = ("", "caption en", "What is this?\n", "\n\nanswer en ¿qué?", "  detect  cat ; dog  ", "word " * 60)
_SETTINGS = (
    *("do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "image_mean", "image_std", "image_seq_length"),
    *("resample", "rescale_factor", "size"),
)
"""What decides pixels; which class read them before, and whether on a GPU, does not."""


def check_takes_images(config: Any, source: str) -> None:
    """Refuse a model that takes no images, or not as the three families do that are known here.

    Raises:
        BundleError: In one sentence.
    """
    if config.model_type not in PROCESSORS:
        raise BundleError(
            f"{source} is a {config.model_type} model, and images are run through PaliGemma, PaliGemma 2 and Gemma 3 "
            "with a vision tower; choose one of those, or remove corpus.image"
        )
    text, tower = config.text_config.model_type, config.vision_config.model_type
    if text not in _DECODERS or tower != _TOWER:
        raise BundleError(f"{source} is a {config.model_type} of {text} behind {tower}, which is not known here")


def save_vision(model: Path, source: str, config: Any, directory: Path) -> VisionInfo:
    """Write the settings of the image processor beside the bundle's tokenizer, and find out how an image is fed.

    Args:
        model: Directory of the checkpoint.
        source: What it is called in sentences.
        config: Its whole config.
        directory: The bundle in the making; its tokenizer is there.

    Raises:
        BundleError: Tokenizer or image processor cannot be read, or the model's processor feeds images in another way.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        processor_class = getattr(transformers, PROCESSORS[config.model_type])
        found = processor_class.from_pretrained(model).to_dict()
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(f"the image processor of {source} cannot be read ({brief(error)})") from None
    side = config.vision_config.image_size
    settings = {name: found[name] for name in _SETTINGS if found.get(name) is not None}
    size = settings.get("size") or {}
    if (size.get("height"), size.get("width")) != (side, side):
        raise BundleError(
            f"the image processor of {source} makes images of {size} pixels, and its model reads {side} x {side}"
        )
    text = json.dumps(settings, indent=1, sort_keys=True, default=str, allow_nan=False) + "\n"
    (directory / PROCESSOR_NAME).write_text(text, encoding="utf-8")
    patches = (side // config.vision_config.patch_size) ** 2
    try:
        make = _paligemma if config.model_type == "paligemma" else _gemma3
        pixels = image_processor(config.model_type, json.loads(text))
        info = make(tokenizer, config, patches)
        _check(info, directory, _own_ids(config, tokenizer, pixels, info), source)
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001 (as above)
        raise BundleError(f"the processor of {source} cannot be used ({brief(error)})") from None
    return info


def _paligemma(tokenizer: Any, config: Any, patches: int) -> VisionInfo:
    """Image, beginning of sequence, prompt and line break, all attending both ways."""
    return VisionInfo(config.image_token_id, patches, patches, (), (tokenizer.bos_token_id,), "", "\n", True)


def _gemma3(tokenizer: Any, config: Any, patches: int) -> VisionInfo:
    """Beginning of sequence, and the image between its two marks and blank lines, then the prompt."""
    before = (tokenizer.bos_token_id, *tokenizer("\n\n", add_special_tokens=False)["input_ids"])
    marks = tokenizer.boi_token_id, tokenizer.eoi_token_id
    tokens = config.mm_tokens_per_image
    return VisionInfo(
        config.image_token_id, tokens, patches, (*before, marks[0]), (marks[1],), "\n\n", "", prefix=False
    )


def _own_ids(config: Any, tokenizer: Any, pixels: Any, info: VisionInfo) -> Callable[[str], list[int]]:
    """Prompt -> ids as the model's own processor makes them."""
    import numpy as np
    import transformers

    if config.model_type == "paligemma":
        pixels.image_seq_length = info.tokens
        processor = transformers.PaliGemmaProcessor(image_processor=pixels, tokenizer=tokenizer)
        mark = "<image>"
    else:
        processor = transformers.Gemma3Processor(
            image_processor=pixels, tokenizer=tokenizer, image_seq_length=info.tokens
        )
        mark = processor.boi_token
    blank = np.zeros((8, 8, 3), dtype=np.uint8)

    def ids(prompt: str) -> list[int]:
        made = processor(images=[blank], text=[f"{mark}{prompt}"], input_data_format="channels_last")
        return [int(i) for i in made["input_ids"][0]]

    return ids


def _check(info: VisionInfo, directory: Path, own: Callable[[str], list[int]], source: str) -> None:
    alone, _ = text_tokenizer(directory / TOKENIZER_NAME)
    for prompt in _PROMPTS:
        text = f"{info.text_before}{prompt}{info.text_after}"
        fed = [*info.before, *(info.token,) * info.tokens, *info.after]
        fed += alone.encode(text, add_special_tokens=False).ids
        if fed != own(prompt):
            raise BundleError(
                f"the processor of {source} feeds images in a way that is not known here (prompt {prompt[:20]!r})"
            )
