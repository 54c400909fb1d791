"""Activations at single tokens, against transformers with a hook and arithmetic by hand from the SAE's own tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.token_values import TokenReader, TokenValues
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.reference import Fed, ReferenceModel
from tests.tiny import NAN_WORD, tiny_sae, tiny_texts

SETTINGS = ExtractSettings(max_tokens=64)
TEXTS = tiny_texts(20, seed=11, min_words=3, max_words=50)
FEATURES = {"relu1": range(0, 96, 5), "jump2": range(96), "wide2": [199, 0, 50]}


def read(bundle: Bundle, texts: Sequence[str], settings: ExtractSettings = SETTINGS) -> list[TokenValues]:
    return list(TokenReader(bundle, settings, FEATURES).read(texts))


def by_hand(sae: Path, residual: np.ndarray, apply_b_dec: bool) -> np.ndarray:
    """Activations [tokens, features] in float64, from the tensors as they lie on disk."""
    state = {name: value.astype(np.float64) for name, value in load_file(sae / "sae_weights.safetensors").items()}
    x = residual.astype(np.float64) - (state["b_dec"] if apply_b_dec else 0.0)
    pre = x @ state["W_enc"] + state["b_enc"]
    return np.where(pre > state.get("threshold", 0.0), pre, 0.0)


def test_values_are_those_of_transformers_and_of_arithmetic_by_hand(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: dict[str, tuple[Path, int]]
) -> None:
    found = read(bundle, TEXTS)
    fired = 0
    for text, values in zip(TEXTS, found, strict=True):
        windows = reference.windows(text, max_tokens=64)
        for name, (sae, layer) in tiny_saes.items():
            expected = by_hand(sae, reference.residual(windows, layer), name != "jump2")[:, list(FEATURES[name])]
            # float32 sums of some dozen terms in another order
            np.testing.assert_allclose(values.values[name][values.pooled], expected, rtol=1e-4, atol=1e-5)
            fired += int((expected > 0).sum())
    assert fired > 1000


def test_tokens_are_those_of_the_tokenizer_and_their_texts_make_the_document(
    bundle: Bundle, reference: ReferenceModel
) -> None:
    texts = [*TEXTS, "a\u00a0b", "🙂🙂", " leading and trailing  "]
    for text, values in zip(texts, read(bundle, texts, ExtractSettings(max_tokens=512)), strict=True):
        own = [text[start:stop] for start, stop in zip(values.start, values.stop, strict=True)]
        assert "".join(own) == text
        assert values.names[0] == "<bos>" and own[0] == "" and not values.pooled[0]
        encoding = reference.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert len(own) == 1 + len(encoding["input_ids"])
        for (start, stop), found in zip(encoding["offset_mapping"], own[1:], strict=True):
            assert found in ("", text[start:stop])  # of the bytes of one character the first has it


def test_a_control_token_in_a_text_is_text_with_offsets(bundle: Bundle) -> None:
    text = "love <bos> and <start_of_turn> hate"
    (values,) = read(bundle, [text])
    assert values.names[0] == "<bos>" and not any(values.names[1:])
    assert "".join(text[start:stop] for start, stop in zip(values.start, values.stop, strict=True)) == text
    place = text.index("<bos>")
    assert [int(start) for start in values.start if place <= start < place + 5] == list(range(place, place + 5))


def test_windows_list_every_token_once_with_the_values_of_the_window_that_pools_it(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: dict[str, tuple[Path, int]]
) -> None:
    settings = ExtractSettings(max_tokens=16, long_documents="windows", stride=4)
    (text,) = tiny_texts(1, seed=3, min_words=60, max_words=60)
    (values,) = read(bundle, [text], settings)
    windows = reference.windows(text, max_tokens=16, stride=4)
    assert len(windows) > 5
    expected = by_hand(tiny_saes["jump2"][0], reference.residual(windows, 2), False)
    np.testing.assert_allclose(values.values["jump2"][values.pooled], expected, rtol=1e-4, atol=1e-5)
    assert int(values.stop[-1]) == len(text) and not values.truncated


def test_a_text_that_is_cut_ends_where_it_was_cut(bundle: Bundle, reference: ReferenceModel) -> None:
    (text,) = tiny_texts(1, seed=3, min_words=60, max_words=60)
    (values,) = read(bundle, [text], ExtractSettings(max_tokens=16))
    assert values.truncated and len(values.names) == 16
    offsets = reference.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert int(values.stop[-1]) == offsets[14][1] < len(text)


@pytest.mark.parametrize("tokens", ["content", "all"])
def test_a_chat_template_is_listed_and_counts_only_where_all_tokens_do(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: dict[str, tuple[Path, int]], tokens: str
) -> None:
    settings = ExtractSettings(max_tokens=64, chat=True, tokens=tokens)  # type: ignore[arg-type]
    text = "love and hate"
    (values,) = read(bundle, [text], settings)
    whole = reference.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=True, return_dict=False
    )
    content = reference.content(text)
    place = next(i for i in range(len(whole)) if whole[i : i + len(content)] == content)
    fed = Fed(whole, slice(0, None) if tokens == "all" else slice(place, place + len(content)))
    expected = by_hand(tiny_saes["jump2"][0], reference.residual([fed], 2), False)
    np.testing.assert_allclose(values.values["jump2"][values.pooled], expected, rtol=1e-4, atol=1e-5)
    assert values.names[:2] == ("<bos>", "<start_of_turn>")
    assert values.pooled.all() == (tokens == "all")
    assert not values.values["jump2"][~values.pooled].any()
    own = slice(place, place + len(content))
    assert "".join(text[a:b] for a, b in zip(values.start[own], values.stop[own], strict=True)) == text
    assert (values.start == values.stop).sum() == len(values.names) - len(content)


def test_a_text_that_fails_costs_itself_only(bundle: Bundle) -> None:
    sound = read(bundle, ["love and hate"])[0]
    bad, good, empty = read(bundle, [f"love {NAN_WORD} hate", "love and hate", ""])
    assert bad.error == "the model's activations at layer 1 are not finite"
    assert good.error is None
    np.testing.assert_allclose(good.values["jump2"], sound.values["jump2"], rtol=1e-5)
    assert empty.error is None and empty.names == ()


def test_pooling_the_values_gives_what_the_engine_stores(bundle: Bundle) -> None:
    rows = Extractor(bundle, SETTINGS).extract(TEXTS)
    for number, values in enumerate(read(bundle, TEXTS)):
        assert values.pooled.sum() == rows.n_tokens[number]
        row = rows.saes["jump2"].row(number)
        np.testing.assert_array_equal(np.flatnonzero(values.values["jump2"].any(axis=0)), row.indices)
        dense = values.values["jump2"][:, row.indices]
        np.testing.assert_allclose(dense.max(axis=0), row.values["max"], rtol=1e-5)
        np.testing.assert_allclose(dense.sum(axis=0), row.values["sum"], rtol=1e-5)
        np.testing.assert_array_equal((dense > 0).sum(axis=0), row.values["count"])


@pytest.mark.parametrize("architecture", ["gated", "topk", "batchtopk"])
def test_every_family_is_cut_without_changing_a_value(tiny_model: Path, tmp_path: Path, architecture: str) -> None:
    sae = tiny_sae(tmp_path / "sae", architecture=architecture)
    job = job_from_mapping(
        {
            "corpus": {"path": "unused.jsonl"},
            "model": {"name": str(tiny_model), "dtype": "float32"},
            "saes": [{"path": str(sae), "name": "sae"}],
            "store": "unused",
        },
        tmp_path,
    )
    bundle = open_bundle(prepare(job, cache_dir=tmp_path / "cache"))
    rows = Extractor(bundle, SETTINGS).extract(TEXTS[:5])
    features = [90, 3, 17, 40, 41, 42, 43, 44]
    for number, values in enumerate(TokenReader(bundle, SETTINGS, {"sae": features}).read(TEXTS[:5])):
        row = rows.saes["sae"].row(number)
        stored = dict(zip(row.indices.tolist(), row.values["max"].tolist(), strict=True))
        expected = [stored.get(feature, 0.0) for feature in features]
        np.testing.assert_allclose(values.values["sae"].max(axis=0), expected, rtol=1e-5)


def test_no_feature_no_encoder(make_bundle: Callable[..., Bundle]) -> None:
    (values,) = TokenReader(make_bundle(), SETTINGS, {}).read(["love"])
    assert values.values == {} and values.pooled.sum() == len(values.pooled) - 1 > 0
