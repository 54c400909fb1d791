"""Choose a model and an SAE for somebody's first job, by what is to be read and what this machine can run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.json_text import json_text

if TYPE_CHECKING:
    from featurestore.starting.cli import ModelChoice

_BORROWED_SAE = (
    "  - release: gemma-scope-2b-pt-res-canonical",
    "    id: layer_12/width_16k/canonical",
    "    name: l12_16k",
    "    allow_mismatch: true",
)
"""An SAE that was trained on Gemma 2 2B, in a job of another model made from it."""


def model_for(reads: str) -> ModelChoice:
    """A model and an SAE for somebody's first job of `text`, `image` or `messages`."""
    return {"text": _text_model, "image": _vision_model, "messages": _chat_model}[reads]()


def _text_model() -> ModelChoice:
    """A model and an SAE for somebody's first job: what this machine can run without an account, or with one."""
    from featurestore.starting.cli import ModelChoice
    from ray_jobs.demo import SAE_DIR, SAE_NAME, model_file
    from ray_jobs.quiet import silence_libraries

    silence_libraries()
    has_token = bool(os.environ.get("HF_TOKEN")) or Path("~/.cache/huggingface/token").expanduser().is_file()
    if has_token and _has_gpu():
        why = "Gemma 2 2B at layer 12, for there is a GPU and an access token of the hub"
        return ModelChoice(
            (
                f"model:  # {why}",
                "  name: google/gemma-2-2b  # its licence has to be accepted on the hub once",
                "  dtype: bfloat16",
                "saes:",
                "  - {release: gemma-scope-2b-pt-res-canonical, id: layer_12/width_16k/canonical, name: l12_16k}",
            ),
            "l12_16k",
            why,
        )
    why = "Gemma 3 270M at layer 9, which runs here without an account or a GPU"
    return ModelChoice(
        (
            f"model:  # {why}",
            f"  name: {json_text(str(model_file()))}",
            "saes:",
            f"  - {{path: {json_text(str(SAE_DIR))}, name: {SAE_NAME}}}",
        ),
        SAE_NAME,
        why,
    )


def _vision_model() -> ModelChoice:
    """A model and an SAE for somebody's first job of images; there is none that needs no account."""
    from featurestore.starting.cli import ModelChoice

    why = "PaliGemma 2 3B at layer 12 of its Gemma 2 2B; it needs an access token of the hub, and a GPU to be quick"
    return ModelChoice(
        (
            f"model:  # {why}",
            "  name: google/paligemma2-3b-pt-224  # its licence has to be accepted on the hub once",
            "  # prompt: caption en  # what is fed behind every image",
            "saes:  # trained on texts of Gemma 2 2B: that it is another model is allowed here, and recorded",
            *_BORROWED_SAE,
        ),
        "l12_16k",
        why,
    )


def _chat_model() -> ModelChoice:
    """A model with a chat template, and an SAE, for somebody's first job of conversations; it needs an account."""
    from featurestore.starting.cli import ModelChoice

    why = "Gemma 2 2B-IT at layer 12, which has a chat template; it needs an access token of the hub"
    return ModelChoice(
        (
            f"model:  # {why}",
            "  name: google/gemma-2-2b-it  # its licence has to be accepted on the hub once",
            "  chat: true  # conversations are rendered by the model's own template",
            "  turns: [user]  # whose turns are pooled",
            "saes:  # trained on Gemma 2 2B: that it is another model is allowed here, and recorded",
            *_BORROWED_SAE,
        ),
        "l12_16k",
        why,
    )


def _has_gpu() -> bool:
    """Whether there is an NVIDIA driver; torch, which would know better, takes seconds to ask."""
    return Path("/proc/driver/nvidia/version").is_file()
