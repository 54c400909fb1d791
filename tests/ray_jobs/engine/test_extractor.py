"""The engine against the reference: whole model, eager, one text at a time, sae-lens' encode, numpy pooling."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.tokens import Window
from ray_jobs.engine import extractor as module
from ray_jobs.engine.extractor import ExtractedRows, Extractor, ExtractSettings
from tests.reference import Fed, ReferenceModel, assert_row_equals, encode, jaccard, rows_by_name, undecided
from tests.tiny import NAN_WORD, UNEMBEDDED_WORD, tiny_texts

POOLS = ("max", "sum", "count", "last", "top3", "top20")
SETTINGS = ExtractSettings(pools=POOLS, hidden=("mean", "last"), max_tokens=4096, batch_tokens=512, threads=1)
TEXTS = tiny_texts(24, seed=7)

Saes = dict[str, tuple[Path, int]]


def assert_matches_reference(
    rows: ExtractedRows, number: int, windows: list[Fed], reference: ReferenceModel, saes: Saes
) -> None:
    for name, row in rows_by_name(rows, number).items():
        sae_dir, layer = saes[name]
        residual = reference.residual(windows, layer)
        assert rows.n_tokens[number] == len(residual)
        assert_row_equals(row, encode(sae_dir, residual), POOLS, left_out=undecided(sae_dir, residual))
        mean = rows.dense[f"resid_post_{layer}__hidden_mean"][number]
        np.testing.assert_allclose(mean, residual.mean(axis=0), rtol=1e-4, atol=1e-5)
        last = rows.dense[f"resid_post_{layer}__hidden_last"][number]
        np.testing.assert_allclose(last, residual[-1], rtol=1e-4, atol=1e-5)


def assert_same_rows(first: ExtractedRows, i: int, second: ExtractedRows, j: int) -> None:
    assert first.n_tokens[i] == second.n_tokens[j]
    assert first.errors[i] == second.errors[j]
    for name in first.saes:
        one, other = first.saes[name].row(i), second.saes[name].row(j)
        np.testing.assert_array_equal(one.indices, other.indices)
        for pool in one.values:
            np.testing.assert_allclose(one.values[pool], other.values[pool], rtol=1e-4, atol=5e-6)


@pytest.fixture(scope="module")
def extractor(bundle: Bundle) -> Extractor:
    return Extractor(bundle, SETTINGS)


@pytest.fixture(scope="module")
def rows(extractor: Extractor) -> ExtractedRows:
    return extractor.extract(TEXTS)


def test_features_equal_the_reference_for_all_poolings_layers_and_saes_in_one_pass(
    rows: ExtractedRows, reference: ReferenceModel, tiny_saes: Saes
) -> None:
    assert rows.errors == [None] * len(TEXTS)
    assert max(rows.n_tokens) > 8 * 4  # far beyond the sliding window
    for number, text in enumerate(TEXTS):
        assert_matches_reference(rows, number, reference.windows(text), reference, tiny_saes)


def test_the_soft_cap_saturates_so_that_dropping_it_would_be_seen(
    reference: ReferenceModel, tiny_saes: Saes, rows: ExtractedRows
) -> None:
    config = reference.model.config
    layers = [layer.self_attn for layer in reference.model.model.layers]
    try:
        for attention in layers:
            attention.attn_logit_softcapping = None
        with pytest.raises(AssertionError):
            assert_matches_reference(rows, 0, reference.windows(TEXTS[0]), reference, tiny_saes)
    finally:
        for attention in layers:
            attention.attn_logit_softcapping = config.attn_logit_softcapping


def test_one_layer_alone_gives_what_it_gives_beside_others(
    make_bundle: Callable[..., Bundle], rows: ExtractedRows
) -> None:
    alone = Extractor(make_bundle(saes=("relu1",)), SETTINGS).extract(TEXTS)
    for number in range(len(TEXTS)):
        one, other = alone.saes["relu1"].row(number), rows.saes["relu1"].row(number)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.values["sum"], other.values["sum"], rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("batch_tokens", [1, 100, 100_000])
def test_features_do_not_depend_on_the_batch_budget(bundle: Bundle, rows: ExtractedRows, batch_tokens: int) -> None:
    other = Extractor(bundle, replace(SETTINGS, batch_tokens=batch_tokens)).extract(TEXTS)
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, other, number)


def test_features_do_not_depend_on_neighbours_or_place(extractor: Extractor, rows: ExtractedRows) -> None:
    backwards = extractor.extract([*reversed(TEXTS), "the river " * 200])
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, backwards, len(TEXTS) - 1 - number)
    for number in (0, 5):
        assert_same_rows(rows, number, extractor.extract([TEXTS[number]]), 0)


def test_the_same_call_gives_the_same_bytes(extractor: Extractor, rows: ExtractedRows) -> None:
    again = extractor.extract(TEXTS)
    for name, sparse in rows.saes.items():
        assert sparse.indices.tobytes() == again.saes[name].indices.tobytes()
        for pool in POOLS:
            assert sparse.values[pool].tobytes() == again.saes[name].values[pool].tobytes()
    for name, dense in rows.dense.items():
        assert dense.tobytes() == again.dense[name].tobytes()


@pytest.mark.parametrize("stride", [0, 7])
def test_windows_pool_each_token_once(bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes, stride: int) -> None:
    settings = replace(SETTINGS, max_tokens=20, long_documents="windows", stride=stride)
    rows = Extractor(bundle, settings).extract(TEXTS)
    for number, text in enumerate(TEXTS):
        assert rows.n_tokens[number] == len(reference.content(text))
        assert_matches_reference(rows, number, reference.windows(text, 20, stride), reference, tiny_saes)
    assert not rows.truncated.any()


def test_a_truncated_document_says_so_and_pools_what_was_fed(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes
) -> None:
    rows = Extractor(bundle, replace(SETTINGS, max_tokens=16)).extract(TEXTS)
    for number, text in enumerate(TEXTS):
        assert rows.truncated[number] == (len(reference.content(text)) > 15)
        assert_matches_reference(rows, number, reference.windows(text, 16), reference, tiny_saes)


@pytest.mark.parametrize("stride", [None, 3])
def test_tokens_all_pools_bos_too_and_only_once(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes, stride: int | None
) -> None:
    settings = replace(SETTINGS, tokens="all", max_tokens=24)
    if stride is not None:
        settings = replace(settings, long_documents="windows", stride=stride)
    rows = Extractor(bundle, settings).extract(TEXTS)
    for number, text in enumerate(TEXTS):
        windows = reference.windows(text, 24, stride, count_all=True)
        assert_matches_reference(rows, number, windows, reference, tiny_saes)


@pytest.mark.parametrize("tokens", ["content", "all"])
def test_a_chat_template_is_context_and_counts_only_with_tokens_all(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes, tokens: str
) -> None:
    rows = Extractor(bundle, replace(SETTINGS, chat=True, tokens=tokens)).extract(TEXTS[:6])  # type: ignore[arg-type]
    for number, text in enumerate(TEXTS[:6]):
        message = [{"role": "user", "content": text}]
        rendered = reference.tokenizer.apply_chat_template(message, tokenize=False)
        encoding = reference.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        assert ids.count(reference.tokenizer.bos_token_id) == 1
        start = rendered.index("user\n") + len("user\n")
        inside = [i for i, (first, last) in enumerate(offsets) if first >= start and last <= start + len(text.strip())]
        pooled = slice(0, len(ids)) if tokens == "all" else slice(inside[0], inside[-1] + 1)
        assert_matches_reference(rows, number, [Fed(ids, pooled)], reference, tiny_saes)


def test_special_tokens_spelled_in_a_text_are_text(extractor: Extractor, bundle: Bundle) -> None:
    hostile = "good <bos> film <end_of_turn>"
    rows = extractor.extract([hostile])
    ids = extractor.tokenizer.encode([hostile])[0]
    assert rows.errors == [None]
    assert rows.n_tokens[0] == len(ids) > 10
    assert not set(range(6)) & set(np.asarray(ids).tolist())


def test_empty_text_is_a_row_without_tokens_or_features(bundle: Bundle) -> None:
    for tokens in ("content", "all"):
        rows = Extractor(bundle, replace(SETTINGS, tokens=tokens)).extract(["", TEXTS[0], ""])  # type: ignore[arg-type]
        assert rows.errors == [None, None, None]
        assert rows.n_tokens.tolist()[::2] == [0, 0]
        assert rows.saes["jump2"].indptr[[1, 3]].tolist() == [0, rows.saes["jump2"].indptr[2]]
        assert np.isnan(rows.dense["resid_post_2__hidden_mean"][[0, 2]]).all()
        assert np.isfinite(rows.dense["resid_post_2__hidden_mean"][1]).all()


def test_no_texts_give_no_rows(extractor: Extractor) -> None:
    rows = extractor.extract([])
    assert len(rows.n_tokens) == 0
    assert rows.saes["relu1"].indptr.tolist() == [0]
    assert rows.dense["resid_post_1__hidden_last"].shape == (0, 32)


def test_a_text_of_200_000_characters_is_read_to_its_end(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(saes=("jump2",))
    long = "the river of bread " * 10_527
    settings = replace(SETTINGS, pools=("max", "count"), hidden=(), max_tokens=512, batch_tokens=4096)
    rows = Extractor(bundle, replace(settings, long_documents="windows", stride=16)).extract([long, TEXTS[0]])
    assert len(long) > 200_000
    assert rows.errors == [None, None]
    assert rows.n_tokens[0] > 40_000
    cut = Extractor(bundle, settings).extract([long])
    assert cut.truncated.tolist() == [True]
    assert cut.n_tokens[0] == 511


def test_one_word_of_200_000_characters_does_not_stall(bundle: Bundle) -> None:
    rows = Extractor(bundle, replace(SETTINGS, max_tokens=64)).extract(["a" * 200_000])
    assert rows.errors == [None]
    assert rows.n_tokens[0] == 63


def failing_forward(extractor: Extractor, fails: Callable[[Sequence[Window], int], Exception | None]) -> list[int]:
    """Let forward raise what `fails(windows, call number)` returns; the list records the windows of each call."""
    forward, calls = extractor.backbone.forward, []

    def wrapped(windows: Sequence[Window], row_tokens: int) -> dict[int, torch.Tensor]:
        calls.append(len(windows))
        if error := fails(windows, len(calls)):
            raise error
        return forward(windows, row_tokens)

    extractor.backbone.forward = wrapped  # type: ignore[method-assign]
    return calls


def test_a_document_that_makes_the_forward_raise_costs_only_itself(bundle: Bundle, rows: ExtractedRows) -> None:
    extractor = Extractor(bundle, replace(SETTINGS, batch_tokens=100_000))
    poison = extractor.tokenizer.encode(["zq"])[0].tobytes()
    calls = failing_forward(
        extractor,
        lambda windows, _call: (
            ValueError("this text is not for me") if any(poison in w.ids.tobytes() for w in windows) else None
        ),
    )
    texts = [*TEXTS[:10], "bread zq stone", *TEXTS[10:]]
    poisoned = extractor.extract(texts)
    assert poisoned.errors[10] == "the model failed on this document: ValueError: this text is not for me"
    assert poisoned.n_tokens[10] == 0
    assert len(poisoned.saes["jump2"].row(10).indices) == 0
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, poisoned, number + (number >= 10))
    assert len(calls) <= 1 + 2 * math.ceil(math.log2(len(texts)))  # halved, not one by one


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_batch_that_runs_out_of_memory_is_halved_and_the_budget_stays_halved(
    bundle: Bundle, rows: ExtractedRows, error: Exception
) -> None:
    extractor = Extractor(bundle, replace(SETTINGS, batch_tokens=512))
    failing_forward(extractor, lambda _windows, call: error if call == 2 else None)
    scarce = extractor.extract(TEXTS)
    assert scarce.errors == [None] * len(TEXTS)
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, scarce, number)
    assert extractor.batch_tokens <= 256
    again = extractor.extract(TEXTS)
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, again, number)


def test_a_document_that_never_fits_gets_its_error_and_no_other_does(bundle: Bundle, rows: ExtractedRows) -> None:
    extractor = Extractor(bundle, replace(SETTINGS, batch_tokens=4096))
    failing_forward(
        extractor,
        lambda windows, _call: torch.OutOfMemoryError() if sum(len(w.ids) for w in windows) > 200 else None,
    )
    scarce = extractor.extract([*TEXTS, "the river of bread " * 100])
    assert scarce.errors[:-1] == [None] * len(TEXTS)
    assert scarce.errors[-1] is not None
    assert "memory ran out on this document alone" in scarce.errors[-1]
    assert scarce.saes["jump2"].row(len(TEXTS)).indices.size == 0
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, scarce, number)


def test_memory_that_runs_out_while_pooling_is_retried_too(
    bundle: Bundle, rows: ExtractedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_saes, calls = module.pool_saes, []

    def scarce(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory")
        return pool_saes(*arguments)

    monkeypatch.setattr(module, "pool_saes", scarce)
    found = Extractor(bundle, SETTINGS).extract(TEXTS)
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, found, number)


def test_what_a_failed_batch_held_is_let_go_before_its_halves_are_run(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_saes = module.pool_saes
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def scarce(encoders: Any, x_ND: torch.Tensor, *arguments: Any) -> Any:
        alive.append(sum(ref() is not None for ref in held))
        scratch = torch.zeros(1)
        held.extend([weakref.ref(x_ND), weakref.ref(scratch)])
        if len(x_ND) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pool_saes(encoders, x_ND, *arguments)

    monkeypatch.setattr(module, "pool_saes", scarce)
    gc.disable()
    try:
        found = Extractor(bundle, SETTINGS).extract(TEXTS)
    finally:
        gc.enable()
    assert found.errors.count(None) > 10
    assert max(alive) <= 2  # of a batch with two layers, the first one's


def test_a_chain_of_exceptions_that_is_a_circle_is_gone_through_once() -> None:
    first, second, third = ValueError("1"), ValueError("2"), ValueError("3")
    first.__cause__, first.__context__, second.__cause__ = second, third, first
    try:
        raise third
    except ValueError:
        pass
    assert third.__traceback__ is not None
    assert module._without_frames(first) is first
    assert third.__traceback__ is None


def test_a_row_that_is_filled_up_is_made_shorter_when_memory_runs_out(bundle: Bundle, rows: ExtractedRows) -> None:
    extractor = Extractor(bundle, replace(SETTINGS, attn_implementation="flex_attention", batch_tokens=2048))
    extractor.backbone.fills = True  # as on a GPU
    forward = extractor.backbone.forward

    def scarce(windows: Sequence[Window], row_tokens: int) -> Any:
        row = -(-max(row_tokens, sum(len(window.ids) for window in windows)) // 128) * 128
        if row > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(windows, row_tokens)

    extractor.backbone.forward = scarce  # type: ignore[method-assign]
    one = extractor.extract(TEXTS[:1])  # alone in its row
    assert one.errors == [None]
    assert_same_rows(rows, 0, one, 0)
    assert 64 < extractor.batch_tokens <= 256
    extractor.batch_tokens = 2048
    found = extractor.extract(TEXTS)
    assert found.errors == [None] * len(TEXTS)
    assert 64 < extractor.batch_tokens <= 256
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, found, number)


def test_activations_that_are_not_finite_fail_that_document_only(extractor: Extractor, rows: ExtractedRows) -> None:
    poisoned = extractor.extract([*TEXTS[:3], f"good {NAN_WORD} bread", *TEXTS[3:]])
    assert poisoned.errors[3] == "the model's activations at layer 1 are not finite"
    assert np.isnan(poisoned.dense["resid_post_1__hidden_mean"][3]).all()
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, poisoned, number + (number >= 3))


def test_so_they_do_where_a_whole_batch_is_one_row_of_attention(bundle: Bundle, rows: ExtractedRows) -> None:
    poisoned = Extractor(bundle, replace(SETTINGS, attn_implementation="flex_attention")).extract(
        [*TEXTS[:3], f"good {NAN_WORD} bread", *TEXTS[3:9], NAN_WORD, *TEXTS[9:]]
    )
    assert [number for number, error in enumerate(poisoned.errors) if error] == [3, 10]
    for number in range(len(TEXTS)):
        assert_same_rows(rows, number, poisoned, number + (number >= 3) + (number >= 9))


def test_one_bad_window_fails_the_whole_document(bundle: Bundle) -> None:
    settings = replace(SETTINGS, max_tokens=12, long_documents="windows", stride=2)
    rows = Extractor(bundle, settings).extract([f"{TEXTS[0]} {NAN_WORD} {TEXTS[1]}", TEXTS[2]])
    assert rows.errors == ["the model's activations at layer 1 are not finite", None]
    assert rows.n_tokens[0] == 0
    assert rows.saes["jump2"].indptr[1] == 0


def test_texts_that_cannot_be_fed_are_rows_with_an_error(extractor: Extractor, rows: ExtractedRows) -> None:
    texts = [None, "lone \ud800 surrogate", TEXTS[0], f"a {UNEMBEDDED_WORD}", "never read"]
    mixed = extractor.extract(texts, errors=[None, None, None, None, "broken JSON"])
    assert mixed.errors[0] == "the document has no text"
    assert mixed.errors[1] is not None
    assert "cannot be tokenised" in mixed.errors[1]
    assert mixed.errors[3] is not None
    assert UNEMBEDDED_WORD in mixed.errors[3]
    assert mixed.errors[4] == "broken JSON"
    assert_same_rows(rows, 0, mixed, 2)


def test_progress_ends_at_all_documents_and_tokens(extractor: Extractor) -> None:
    seen: list[tuple[int, int]] = []
    rows = extractor.extract([*TEXTS, "", None], on_progress=lambda docs, tokens: seen.append((docs, tokens)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(TEXTS) + 2, int(rows.n_tokens.sum()))


def test_last_alone_stores_only_the_features_of_the_last_token(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes
) -> None:
    rows = Extractor(bundle, replace(SETTINGS, pools=("last",), hidden=())).extract(TEXTS[:4])
    for number, text in enumerate(TEXTS[:4]):
        acts = encode(tiny_saes["jump2"][0], reference.residual(reference.windows(text), 2))
        assert_row_equals(rows.saes["jump2"].row(number), acts, ("last",))


def test_last_alone_encodes_one_token_of_each_document_and_skips_its_other_windows(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_saes, encoded = module.pool_saes, []

    def counted(encoders: Any, x: torch.Tensor, *arguments: Any) -> Any:
        encoded.append(len(x))
        return pool_saes(encoders, x, *arguments)

    monkeypatch.setattr(module, "pool_saes", counted)
    settings = replace(SETTINGS, pools=("last",), hidden=("last",), max_tokens=20, long_documents="windows", stride=4)
    extractor = Extractor(bundle, settings)
    calls = failing_forward(extractor, lambda _windows, _call: None)
    rows = extractor.extract(TEXTS)
    assert sum(encoded) == len(bundle.hook_layers) * len(TEXTS)
    assert sum(calls) == len(TEXTS)
    for number, text in enumerate(TEXTS):
        windows = reference.windows(text, 20, 4)
        assert rows.n_tokens[number] == len(reference.content(text))
        acts = encode(tiny_saes["jump2"][0], reference.residual(windows, 2))
        assert_row_equals(rows.saes["jump2"].row(number), acts, ("last",))


def test_bfloat16_finds_nearly_the_same_features(make_bundle: Callable[..., Bundle], rows: ExtractedRows) -> None:
    half = Extractor(make_bundle("bfloat16"), SETTINGS).extract(TEXTS)
    for name in rows.saes:
        overlap = [jaccard(rows.saes[name].row(i).indices, half.saes[name].row(i).indices) for i in range(len(TEXTS))]
        assert np.mean(overlap) > 0.95  # random weights: attention logits far above the cap amplify rounding
