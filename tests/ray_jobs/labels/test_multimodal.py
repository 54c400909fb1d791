"""The language model of a checkpoint of several parts answers as it does in the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.language.likelihood import log_likelihoods
from ray_jobs.language.model import LanguageModel
from ray_jobs.language.tokens import Completions, PromptTokenizer
from tests.ray_jobs.labels.label_jobs import whole_bundle
from tests.tiny import write_tokenizer


def gemma3(path: Path) -> Any:
    """A small random Gemma 3 with a vision tower."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    path.mkdir()
    n_tokens = write_tokenizer(path)
    text = {
        "vocab_size": n_tokens, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8, "final_logit_softcapping": 5.0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    model.eval().save_pretrained(path)
    return model


@pytest.mark.slow
def test_the_head_of_a_model_that_also_sees_is_found(tmp_path: Path) -> None:
    import torch

    whole = gemma3(tmp_path / "tiny-gemma3")
    bundle = whole_bundle(tmp_path / "tiny-gemma3", tmp_path / "bundles")
    prompt = PromptTokenizer(bundle, chat=False).completions("the river is " * 6, [" yes", " no bread"])
    assert isinstance(prompt, Completions)
    (found,) = log_likelihoods(LanguageModel(bundle, "cpu"), [prompt], 4096)
    expected = []
    for ids, start in zip(prompt.ids, prompt.start, strict=True):
        with torch.no_grad():
            fed = torch.from_numpy(ids.astype(np.int64))[None]
            log_proba = whole(input_ids=fed).logits[0].double().log_softmax(-1)
        expected.append(sum(float(log_proba[t - 1, ids[t]]) for t in range(start, len(ids))))
    np.testing.assert_allclose(found, expected, atol=1e-4)
