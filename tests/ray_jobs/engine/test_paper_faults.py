"""The faults of the reference implementation of arXiv 2502.11367 that an engine can have, each by its number there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.sites import Hook
from ray_jobs.backbone.tokens import windows_of
from ray_jobs.engine.encoder import Active, Inputs
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.pooling import pool_windows
from ray_jobs.engine.sparse_rows import gather_rows
from tests.reference import Fed, ReferenceModel, assert_row_equals, encode
from tests.tiny import NAN_WORD, tiny_texts

POOLS = ("max", "sum", "count")
SETTINGS = ExtractSettings(pools=POOLS, hidden=("last",), batch_tokens=100_000, threads=1)
TEXTS = tiny_texts(8, seed=11)
LAYER_2 = Hook(2, "resid_post")

Saes = dict[str, tuple[Path, int]]


def test_fault_1_a_layer_means_its_own_output_not_the_hidden_state_before_it(
    bundle: Bundle, reference: ReferenceModel
) -> None:
    rows = Extractor(bundle, SETTINGS).extract(TEXTS[:1])
    ids = torch.tensor([reference.windows(TEXTS[0])[0].ids])
    with torch.no_grad():
        states = reference.model(input_ids=ids, output_hidden_states=True).hidden_states
    for layer in bundle.hook_layers:
        found = rows.dense[f"resid_post_{layer}__hidden_last"][0]
        np.testing.assert_allclose(found, states[layer + 1][0, -1], rtol=1e-4, atol=1e-5)
        assert np.abs(found - states[layer][0, -1].numpy()).max() > 0.1


def test_fault_2_padding_is_masked_and_neither_it_nor_bos_is_pooled(
    bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes
) -> None:
    long = "the river of bread and stone " * 30
    rows = Extractor(bundle, SETTINGS).extract([TEXTS[0], long])  # one batch, the first text mostly padding
    acts = encode(tiny_saes["jump2"][0], reference.residual(reference.windows(TEXTS[0]), 2))
    assert_row_equals(rows.saes["jump2"].row(0), acts, POOLS)
    assert rows.n_tokens[0] == len(reference.content(TEXTS[0])) == len(acts)
    (window,) = reference.windows(TEXTS[0])
    bos = encode(tiny_saes["jump2"][0], reference.residual([Fed(window.ids, slice(0, 1))], 2))
    assert (bos > acts.max(axis=0)).any()  # pooling BOS would have been seen


def test_fault_4_sums_do_not_lose_or_overflow(bundle: Bundle) -> None:
    for value in (0.3, 1000.0):
        n_tokens = 70_000
        active = Active(
            np.zeros(n_tokens, dtype=np.int64), np.arange(n_tokens), np.full(n_tokens, value, dtype=np.float32)
        )
        rows = pool_windows([active], np.array([n_tokens]), ("sum",))
        merged = gather_rows([rows.row(0)] * 3, np.zeros(3, dtype=int), np.arange(3), 1, ("sum",))
        np.testing.assert_allclose(merged.values["sum"], 3 * n_tokens * np.float64(np.float32(value)), rtol=1e-6)


def test_fault_4_sums_of_a_bfloat16_model_accumulate_in_float32(make_bundle: Callable[..., Bundle]) -> None:
    extractor = Extractor(make_bundle("bfloat16", saes=("jump2",)), replace(SETTINGS, max_tokens=4096))
    long = "the river of bread and stone " * 200
    row = extractor.extract([long]).saes["jump2"].row(0)
    (window,), _ = windows_of(0, np.asarray(extractor.tokenizer.encode([long])[0]), extractor.policy)
    residual = extractor.backbone.forward([window], extractor.batch_tokens)[LAYER_2]
    active = Active.joined(list(extractor.encoders[LAYER_2][0].active(Inputs(residual))))
    exact = np.bincount(active.feature, weights=active.value.astype(np.float64))
    assert row.values["count"].max() > 500
    np.testing.assert_allclose(row.values["sum"], exact[row.indices], rtol=1e-6)


def test_fault_5_a_failing_document_is_a_row_with_its_error(bundle: Bundle) -> None:
    texts = [TEXTS[0], f"bad {NAN_WORD}", TEXTS[1]]
    rows = Extractor(bundle, SETTINGS).extract(texts)
    assert len(rows.n_tokens) == len(rows.errors) == len(texts)
    assert [error is None for error in rows.errors] == [True, False, True]
    assert all(len(sparse.indptr) == len(texts) + 1 for sparse in rows.saes.values())


def test_fault_8_top_n_counts_active_features_only(bundle: Bundle, reference: ReferenceModel, tiny_saes: Saes) -> None:
    pools = ("count", "top90")
    rows = Extractor(bundle, replace(SETTINGS, pools=pools)).extract(TEXTS)
    for number, text in enumerate(TEXTS):
        acts = encode(tiny_saes["jump2"][0], reference.residual(reference.windows(text), 2))
        assert (acts > 0).sum(axis=1).max() < 90  # fewer active than n, always
        row = rows.saes["jump2"].row(number)
        np.testing.assert_array_equal(row.values["top90"], row.values["count"])
        np.testing.assert_array_equal(row.indices, np.flatnonzero(acts.any(axis=0)))


def test_fault_10_one_pass_serves_all_layers_and_saes(make_bundle: Callable[..., Bundle]) -> None:
    def forwards(saes: tuple[str, ...]) -> int:
        extractor = Extractor(make_bundle(saes=saes), replace(SETTINGS, batch_tokens=256))
        forward, calls = extractor.backbone.forward, []
        extractor.backbone.forward = lambda *batch: calls.append(1) or forward(*batch)  # type: ignore[method-assign]
        extractor.extract(TEXTS)
        return len(calls)

    assert forwards(("relu1", "jump2", "wide2")) == forwards(("wide2",))
