"""A text generator continues prompts greedily, from a directory of this machine, and is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from featurestore.errors import BundleError
from ray_jobs.naming.generator import NEW_TOKENS, find_generator, generate
from tests.tiny import tiny_gemma2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_gemma2(tmp_path_factory.mktemp("generator")))


def test_an_answer_is_the_likeliest_token_after_the_other(model: Path) -> None:
    prompts = ["love and hate", "the quick brown fox"]
    found = find_generator(str(model))
    answers = list(generate(found, prompts))
    assert found.name == model.name
    tokenizer, reference = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        n_prompt = ids.shape[1]
        with torch.inference_mode():
            while ids.shape[1] < n_prompt + NEW_TOKENS:
                following = reference(ids).logits[0, -1].argmax()
                ids = torch.cat([ids, following[None, None]], dim=1)
                if following == tokenizer.eos_token_id:
                    break
        assert answer == tokenizer.decode(ids[0, n_prompt:], skip_special_tokens=True)


def test_a_model_that_is_not_here_is_not_fetched() -> None:
    with pytest.raises(BundleError, match="google/gemma-3-270m-it: there is no such model; give the directory"):
        find_generator("google/gemma-3-270m-it")


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"it has no config\.json"):
        find_generator(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(BundleError, match="cannot be read as a text generator") as refused:
        list(generate(find_generator(str(tmp_path)), ["x"]))
    assert "\n" not in str(refused.value)
