"""What a model writes is what `generate(do_sample=False)` gives, token for token."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.backbone.bundle import Bundle
from ray_jobs.language.generation import Written, write
from ray_jobs.language.model import LanguageModel
from ray_jobs.language.tokens import PromptTokenizer
from tests.ray_jobs.backbone.decoders_for_tests import FAMILIES, save_decoder
from tests.ray_jobs.labels.label_jobs import Direct, answering_model, whole_bundle
from tests.tiny import NAN_WORD, tiny_texts

N = 12
TEXTS = tiny_texts(10, seed=5, max_words=30)


def written(bundle: Bundle, texts: list[str], chat: bool = False, budget: int = 4096) -> list[Written | str]:
    tokenizer = PromptTokenizer(bundle, chat)
    ids = [tokenizer.prompt(text) for text in texts]
    return write(LanguageModel(bundle, "cpu"), [one for one in ids if isinstance(one, np.ndarray)], N, budget)


def same(found: Written | str, expected: list[int], eos: tuple[int, ...]) -> bool:
    end = next((place for place, token in enumerate(expected) if token in eos), len(expected))
    return isinstance(found, Written) and list(found.ids) == expected[:end]


@pytest.fixture(scope="module")
def stopping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its answers by one of two ids that it likes."""
    path = answering_model(tmp_path_factory.mktemp("stopping"))
    direct = Direct(path)
    liked = [direct.written(text, N)[3] for text in TEXTS[:2]]
    settings = {"eos_token_id": sorted({1, *liked}), "pad_token_id": 0, "bos_token_id": 2}
    (path / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_token_for_token_alone_and_in_batches_with_answers_of_unlike_length(stopping: Path, tmp_path: Path) -> None:
    bundle, direct = whole_bundle(stopping, tmp_path), Direct(stopping)
    assert bundle.head is not None and len(bundle.head.eos) >= 2
    expected = [direct.written(text, N) for text in TEXTS]
    for budget in (1, 150, 4096):
        found = written(bundle, TEXTS, budget=budget)
        assert all(same(one, ids, bundle.head.eos) for one, ids in zip(found, expected, strict=True))
    assert len({len(one.ids) for one in found if isinstance(one, Written)}) > 1, "none stopped early"


def test_its_log_likelihood_and_margin_are_those_of_its_tokens(answering: Path, tmp_path: Path) -> None:
    import torch

    bundle, direct = whole_bundle(answering, tmp_path), Direct(answering)
    (one,) = written(bundle, TEXTS[:1])
    assert isinstance(one, Written)
    prompt = direct.tokenizer(TEXTS[0])["input_ids"]
    ids = direct.written(TEXTS[0], N)
    with torch.no_grad():
        log_proba = direct.model(torch.tensor([prompt + ids])).logits[0].double().log_softmax(-1)
    steps = [log_proba[len(prompt) - 1 + step] for step in range(len(ids))]
    assert one.log_likelihood == pytest.approx(sum(float(p.max()) for p in steps), abs=1e-4)
    leads = [float(p.topk(2).values[0] - p.topk(2).values[1]) for p in steps]
    assert one.margin == pytest.approx(min(leads), abs=1e-4)


@pytest.mark.slow
def test_in_a_chat(answering: Path, tmp_path: Path) -> None:
    bundle, direct = whole_bundle(answering, tmp_path, chat=True), Direct(answering)
    assert bundle.head is not None
    for text, one in zip(TEXTS, written(bundle, TEXTS, chat=True), strict=True):
        assert same(one, direct.written("", N, [{"role": "user", "content": text}]), bundle.head.eos)


@pytest.mark.slow
def test_a_prompt_that_cannot_be_computed_costs_itself_only(answering: Path, tmp_path: Path) -> None:
    bundle = whole_bundle(answering, tmp_path)
    found = written(bundle, [TEXTS[0], f"love {NAN_WORD} hate", TEXTS[1]])
    assert found[1] == "the model's logits are not finite"
    alone = [written(bundle, [text])[0] for text in TEXTS[:2]]
    assert [one.ids for one in (found[0], found[2]) if isinstance(one, Written)] == [
        one.ids for one in alone if isinstance(one, Written)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_writes_as_generate_does(family: str, tmp_path: Path) -> None:
    path = save_decoder(tmp_path / f"tiny-{family}", family)
    bundle, direct = whole_bundle(path, tmp_path / "bundles"), Direct(path)
    assert bundle.head is not None
    for text, one in zip(TEXTS[:4], written(bundle, TEXTS[:4]), strict=True):
        assert same(one, direct.written(text, N), bundle.head.eos)
