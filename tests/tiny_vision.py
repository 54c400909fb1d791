"""Tiny random models that take images, on disk as transformers saves them, and images to feed them.

What makes the big ones hard to run right is there: attention that saturates, a sliding window shorter than an image
with its prompt, image positions that attend both ways, and a tower with more patches than the decoder has positions.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import write_tokenizer

SIDE, PATCH = 16, 4
"""Pixels of an image that the towers read, and of a patch: 16 patches."""

_TOWER = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "vision_use_head": False,
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
KINDS = ("paligemma", "paligemma2", "gemma3")


def tiny_vision(directory: Path, kind: str, seed: int = 0, spread: float = 1.0) -> Path:
    """Write a random model that takes images, with tokenizer and processor; returns `directory/tiny-{kind}`.

    Args:
        directory: Where the model's own directory is made.
        kind: One of KINDS.
        seed: Other seeds give other weights.
        spread: Factor on the deviation of the tower's weights.
    """
    import torch
    from transformers import Gemma3ForConditionalGeneration, PaliGemmaForConditionalGeneration

    path = directory / f"tiny-{kind}"
    path.mkdir(parents=True)
    write_tokenizer(path)
    processor = _processor(path, kind)
    config = _config(kind, processor.tokenizer)
    build = Gemma3ForConditionalGeneration if kind == "gemma3" else PaliGemmaForConditionalGeneration
    model = build(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = 0.1 if parameter.ndim == 1 else 0.2 if "embed_tokens" in name else 0.3
            noise = torch.randn(parameter.shape, generator=generator) * std
            in_tower = "vision_tower" in name
            norm = in_tower and "norm" in name and name.endswith("weight")
            parameter.copy_(noise * (spread if in_tower else 1.0) + (1.0 if norm else 0.0))
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def _config(kind: str, tokenizer: Any) -> Any:
    from transformers import Gemma3Config, PaliGemmaConfig

    text: dict[str, Any] = {**_TEXT, "vocab_size": len(tokenizer)}
    if kind == "gemma3":
        kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
        text |= {"model_type": "gemma3_text", "sliding_window": 8, "layer_types": kinds}
        return Gemma3Config(
            text_config=text,
            vision_config={**_TOWER, "model_type": "siglip_vision_model"},
            mm_tokens_per_image=4,
            image_token_index=tokenizer.image_token_id,
            boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
        )
    if kind == "paligemma2":
        text |= {"model_type": "gemma2", "sliding_window": 8, "attn_logit_softcapping": 2.0}
    else:
        text |= {"model_type": "gemma"}
        del text["query_pre_attn_scalar"]
    return PaliGemmaConfig(
        text_config=text,
        vision_config={**_TOWER, "model_type": "siglip_vision_model", "projection_dim": 32},
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )


def _processor(path: Path, kind: str) -> Any:
    """The model's processor on a tokenizer that has what its prompts need."""
    import transformers

    if kind == "gemma3":
        marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, extra_special_tokens=marks)
        pixels = transformers.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
        tokenizer.save_pretrained(path)
        return transformers.Gemma3Processor(image_processor=pixels, tokenizer=tokenizer, image_seq_length=4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pixels = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    pixels.image_seq_length = (SIDE // PATCH) ** 2
    return transformers.PaliGemmaProcessor(image_processor=pixels, tokenizer=tokenizer)


class VisionReference:
    """A whole model in float32 with its own processor, one image at a time, hooked by hand."""

    def __init__(self, path: Path) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        attention = {"": "eager", "text_config": "eager", "vision_config": "eager"}
        self.model = AutoModelForImageTextToText.from_pretrained(
            path, dtype=torch.float32, attn_implementation=attention
        ).eval()
        self.processor = AutoProcessor.from_pretrained(path, backend="pil")
        self.is_gemma3 = self.model.config.model_type == "gemma3"

    def inputs(self, image: np.ndarray, prompt: str) -> Any:
        """What the processor makes of an image and its prompt."""
        mark = self.processor.boi_token if self.is_gemma3 else "<image>"
        return self.processor(
            images=[image], text=[f"{mark}{prompt}"], return_tensors="pt", input_data_format="channels_last"
        )

    def positions(self, ids: Any, tokens: str) -> np.ndarray:
        """Which positions are pooled: those of the image, all behind them but marks, or all."""
        is_image = np.asarray(ids) == self.model.config.image_token_id
        if tokens == "image":
            return np.flatnonzero(is_image)
        if tokens == "all":
            return np.arange(len(is_image))
        return np.arange(np.flatnonzero(is_image)[-1] + 2, len(is_image))  # one mark stands behind an image

    def residual(self, image: np.ndarray, prompt: str, layer: int, tokens: str = "image", **changes: Any) -> np.ndarray:
        """Output of a decoder layer at the pooled positions, float32 [positions, d_model]."""
        import torch

        captured: list[Any] = []
        inputs = self.inputs(image, prompt)
        inputs.pop("labels", None)
        handle = self.model.model.language_model.layers[layer].register_forward_hook(
            lambda _module, _inputs, output: captured.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            with torch.no_grad():
                self.model(**{**inputs, **changes}, use_cache=False)
        finally:
            handle.remove()
        return captured[0][0].float().numpy()[self.positions(inputs["input_ids"][0], tokens)]


def tiny_images(n: int, seed: int = 0, least: int = 5, most: int = 60) -> list[np.ndarray]:
    """`n` different pictures of all shapes: a gradient with blocks of noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        height, width = rng.integers(least, most, 2)
        y, x = np.mgrid[:height, :width]
        picture = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
        noise = rng.integers(0, 256, (height, width, 3))
        found.append(np.where(rng.random((height, width, 1)) < 0.5, picture, noise).astype(np.uint8))
    return found


def png(image: np.ndarray) -> bytes:
    """An image as the bytes of a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
