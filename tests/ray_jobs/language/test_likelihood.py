"""Log-likelihoods of choices are transformers' own in float32: alone, in batches, sharing a beginning, in a chat."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ray_jobs.backbone.bundle import HEAD_NAME, WEIGHTS_NAME, Bundle
from ray_jobs.language.likelihood import log_likelihoods
from ray_jobs.language.model import LanguageModel
from ray_jobs.language.tokens import Completions, PromptTokenizer
from tests.ray_jobs.backbone.decoders_for_tests import FAMILIES, save_decoder
from tests.ray_jobs.labels.label_jobs import Direct, questions, whole_bundle
from tests.tiny import NAN_WORD, UNEMBEDDED_WORD

TOLERANCE = 1e-4
ROWS = questions(12)


@pytest.fixture(scope="module")
def bundle(answering: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return whole_bundle(answering, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> LanguageModel:
    return LanguageModel(bundle, "cpu")


@pytest.fixture(scope="module")
def direct(answering: Path) -> Direct:
    return Direct(answering)


def completions(tokenizer: PromptTokenizer, prompt: str, options: list[str]) -> Completions:
    found = tokenizer.completions(prompt, [f" {option}" for option in options])
    assert isinstance(found, Completions), found
    return found


def scored(
    bundle: Bundle, model: LanguageModel, rows: list[tuple[str, list[str]]], budget: int
) -> list[list[float] | str]:
    tokenizer = PromptTokenizer(bundle, chat=False)
    return log_likelihoods(model, [completions(tokenizer, *row) for row in rows], budget)


def test_they_are_those_of_a_direct_computation_alone_and_in_batches(
    bundle: Bundle, model: LanguageModel, direct: Direct
) -> None:
    rows = [(row["question"], row["options"]) for row in ROWS]
    expected = [[direct.log_likelihood(prompt, f" {option}") for option in options] for prompt, options in rows]
    alone = [scored(bundle, model, [row], 1)[0] for row in rows]
    for found in (alone, scored(bundle, model, rows, 4096), scored(bundle, model, rows, 100)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=TOLERANCE)


def test_what_the_choices_begin_with_is_run_once(bundle: Bundle, model: LanguageModel) -> None:
    tokenizer = PromptTokenizer(bundle, chat=False)
    prompt = completions(tokenizer, " ".join(["river"] * 30), ["yes", "no", "good music", "bad music"])
    fed = []
    hook = model.model.get_input_embeddings().register_forward_pre_hook(lambda _m, args: fed.append(args[0].numel()))
    log_likelihoods(model, [prompt], 4096)
    hook.remove()
    assert prompt.shared > 30 and sum(fed) < prompt.shared + 4 * 10


def test_a_cache_that_cannot_be_continued_changes_nothing(
    bundle: Bundle, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(row["question"], row["options"]) for row in ROWS]
    expected = scored(bundle, model, rows, 300)
    monkeypatch.setattr("ray_jobs.language.likelihood.continued", lambda _cache, _rows: None)
    for one, other in zip(scored(bundle, model, rows, 300), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


@pytest.mark.parametrize("system", [None, "Answer with one word."])
def test_a_chat_is_what_the_template_renders_and_the_models_turn(
    system: str | None, answering: Path, direct: Direct, tmp_path: Path
) -> None:
    bundle = whole_bundle(answering, tmp_path, chat=True, **({} if system is None else {"system_prompt": system}))
    model, tokenizer = LanguageModel(bundle, "cpu"), PromptTokenizer(bundle, chat=True)
    before = [] if system is None else [{"role": "system", "content": system}]
    rows = [(row["question"], row["options"]) for row in ROWS[:5]]
    prompts = [tokenizer.completions(prompt, options) for prompt, options in rows]
    found = log_likelihoods(model, [one for one in prompts if isinstance(one, Completions)], 4096)
    for one, (prompt, options) in zip(found, rows, strict=True):
        chat = [*before, {"role": "user", "content": prompt}]
        np.testing.assert_allclose(one, [direct.log_likelihood("", o, chat) for o in options], atol=TOLERANCE)


def test_a_prompt_that_cannot_be_computed_costs_itself_only(bundle: Bundle, model: LanguageModel) -> None:
    rows = [(row["question"], row["options"]) for row in ROWS[:3]]
    found = scored(bundle, model, [rows[0], (f"love {NAN_WORD} hate", ["yes", "no"]), *rows[1:]], 4096)
    assert found[1] == "the model's logits are not finite"
    for one, other in zip([found[0], *found[2:]], scored(bundle, model, rows, 4096), strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


def test_control_tokens_that_are_spelled_out_are_text_and_unknown_ids_are_refused(bundle: Bundle) -> None:
    tokenizer = PromptTokenizer(bundle, chat=False)
    spelled = completions(tokenizer, "is <bos> a word", ["<eos>", "no"])
    assert [int((ids == 2).sum()) for ids in spelled.ids] == [1, 1] and not (spelled.ids[0] == 1).any()
    assert "embedding ends at" in str(tokenizer.completions(f"a {UNEMBEDDED_WORD}", [" b", " c"]))


COMMON = ("gemma3_text", "llama", "gpt_neox", "qwen3_5_text")


@pytest.mark.parametrize(
    "family",
    [*COMMON[:2], *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f not in COMMON[:2])],
)
def test_every_family_has_its_head(family: str, tmp_path: Path) -> None:
    path = save_decoder(tmp_path / f"tiny-{family}", family)
    bundle = whole_bundle(path, tmp_path / "bundles")
    assert bundle.head is not None and (HEAD_NAME in bundle.files) is not bundle.head.tied
    model, direct = LanguageModel(bundle, "cpu"), Direct(path)
    rows = [(row["question"], row["options"]) for row in questions(4, max_words=12)]
    for one, (prompt, options) in zip(scored(bundle, model, rows, 200), rows, strict=True):
        expected = [direct.log_likelihood(prompt, f" {option}") for option in options]
        np.testing.assert_allclose(one, expected, atol=TOLERANCE)


def test_a_head_of_its_own_counts_whatever_the_config_says(tmp_path: Path) -> None:
    tied = save_decoder(tmp_path / "tied" / "tiny-llama", "llama", tie_word_embeddings=True)
    weights = load_file(tied / WEIGHTS_NAME)
    embedding = weights["model.embed_tokens.weight"]
    before = whole_bundle(tied, tmp_path / "bundles")
    assert before.head is not None and before.head.tied and HEAD_NAME not in before.files

    twice = Path(shutil.copytree(tied, tmp_path / "twice" / tied.name))
    save_file({**weights, "lm_head.weight": embedding.clone()}, twice / WEIGHTS_NAME, metadata={"format": "pt"})
    assert whole_bundle(twice, tmp_path / "bundles").sha256 == before.sha256

    tuned = Path(shutil.copytree(tied, tmp_path / "tuned" / tied.name))
    trained = embedding + torch.randn_like(embedding) * 0.1
    save_file({**weights, "lm_head.weight": trained}, tuned / WEIGHTS_NAME, metadata={"format": "pt"})
    bundle, direct = whole_bundle(tuned, tmp_path / "bundles"), Direct(tuned)
    assert bundle.head is not None and not bundle.head.tied
    assert torch.equal(direct.model.get_output_embeddings().weight, trained)  # so does transformers
    rows = [(row["question"], row["options"]) for row in questions(4, max_words=12)]
    for one, (prompt, options) in zip(scored(bundle, LanguageModel(bundle, "cpu"), rows, 200), rows, strict=True):
        expected = [direct.log_likelihood(prompt, f" {option}") for option in options]
        np.testing.assert_allclose(one, expected, atol=TOLERANCE)


@pytest.mark.parametrize("family", ["phi", "gptj"])
def test_a_tied_head_keeps_its_bias(family: str, tmp_path: Path) -> None:
    path = save_decoder(tmp_path / f"tiny-{family}", family, tie_word_embeddings=True)
    bundle, direct = whole_bundle(path, tmp_path / "bundles"), Direct(path)
    assert bundle.head is not None and bundle.head.tied
    assert list(load_file(bundle.path / HEAD_NAME)) == ["bias"]
    rows = [(row["question"], row["options"]) for row in questions(4, max_words=12)]
    for one, (prompt, options) in zip(scored(bundle, LanguageModel(bundle, "cpu"), rows, 200), rows, strict=True):
        expected = [direct.log_likelihood(prompt, f" {option}") for option in options]
        np.testing.assert_allclose(one, expected, atol=TOLERANCE)
