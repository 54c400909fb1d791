"""An encoder cut to some features gives what the whole one gives of them, whatever the family and the route."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.sae_families import SaeWeights, fold
from ray_jobs.engine.encoder import Inputs, SaeEncoder
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.pooling import pool_saes
from ray_jobs.engine.sparse_rows import SparseRows
from tests.ray_jobs.engine.test_encoder import ROUTES, info_of, random_weights
from tests.tiny import tiny_texts

LENGTHS = np.array([5, 1, 30, 21], dtype=np.int64)
WANTED = np.array([0, 3, 4, 77, 150, 299], dtype=np.int64)


def only(rows: SparseRows, features: np.ndarray) -> SparseRows:
    """Some of the columns."""
    kept = np.isin(rows.indices, features)
    before = np.concatenate([[0], np.cumsum(kept)])
    return SparseRows(before[rows.indptr], rows.indices[kept], {pool: v[kept] for pool, v in rows.values.items()})


def assert_equal(found: SparseRows, expected: SparseRows, rtol: float) -> None:
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    for pool, values in expected.values.items():
        np.testing.assert_allclose(found.values[pool], values, rtol=rtol)


def weights_of(family: str) -> SaeWeights:
    if family != "gated":
        weights = random_weights(32, 300, 1)
        return (
            weights if family == "threshold" else SaeWeights(weights.W_FD, weights.bias_F, None, None, weights.b_dec_D)
        )
    generator = torch.Generator().manual_seed(2)
    names = ("b_gate", "b_mag", "r_mag")
    vectors = {name: 0.3 * torch.randn(300, generator=generator) for name in names}
    tensors = {"W_enc": torch.randn(32, 300, generator=generator) / 32**0.5, "b_dec": torch.zeros(32), **vectors}
    tensors["b_gate"] -= 1.5
    return fold("gated", tensors)


@pytest.mark.parametrize("route", [*ROUTES, "device"])
@pytest.mark.parametrize("family", ["threshold", "gated", "topk"])
def test_a_cut_encoder_pools_what_the_whole_one_pools_of_these_features(family: str, route: str) -> None:
    info = info_of(32, 300, k=20 if family == "topk" else None, apply_b_dec=True)
    weights = weights_of(family)
    x_ND = 3 * torch.randn(int(LENGTHS.sum()), 32, generator=torch.Generator().manual_seed(5))
    pools = ("max", "sum", "count")
    whole, cut = (
        pool_saes([SaeEncoder.of(info, weights, route, features)], x_ND, LENGTHS, pools)["s"]  # type: ignore[arg-type]
        for features in (None, WANTED)
    )
    expected = only(whole, WANTED)
    assert 5 < len(expected.indices) < len(whole.indices)
    # a prefiltered pair is a dot product of its own; matrix products of other widths may add in another order
    assert_equal(cut, expected, rtol=0 if route == "prefiltered" else 1e-5)


def test_only_the_rows_asked_for_are_kept() -> None:
    encoder = SaeEncoder.of(info_of(32, 300), random_weights(32, 300, 1), features=WANTED)
    assert encoder.weights.W_FD.shape == (len(WANTED), 32)
    assert encoder.n_rows == len(WANTED)


def test_no_feature_at_all_gives_empty_rows() -> None:
    encoder = SaeEncoder.of(info_of(32, 300), random_weights(32, 300, 1), features=np.empty(0, dtype=np.int64))
    x_ND = torch.randn(57, 32, generator=torch.Generator().manual_seed(5))
    assert not list(pool_saes([encoder], x_ND, LENGTHS, ("max",))["s"].indices)
    assert not any(len(found.value) for found in encoder.active(Inputs(x_ND)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_extractor_of_some_features_gives_the_same_rows_and_leaves_out_what_nobody_asks_for(
    make_bundle: Callable[..., Bundle], tiny_saes: dict[str, tuple[Path, int]], dtype: str
) -> None:
    bundle = make_bundle(dtype)
    settings = ExtractSettings(pools=("max", "sum"), max_tokens=24, long_documents="windows", stride=4)
    texts = [*tiny_texts(12, seed=3), "", None]
    wanted = {"relu1": np.array([2, 40, 41, 90], dtype=np.int64)}
    whole = Extractor(bundle, settings).extract(texts)
    extractor = Extractor(bundle, settings, wanted)
    found = extractor.extract(texts)
    assert set(found.saes) == {"relu1"}
    assert len(extractor.backbone._layers) == tiny_saes["relu1"][1] + 1  # type: ignore[attr-defined]
    assert found.errors == whole.errors
    np.testing.assert_array_equal(found.n_tokens, whole.n_tokens)
    expected = only(whole.saes["relu1"], wanted["relu1"])
    assert len(expected.indices)
    assert_equal(found.saes["relu1"], expected, rtol=1e-5)
