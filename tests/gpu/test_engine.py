"""The engine on a GPU: the same features as transformers in float32, as the CPU, and under want of memory.

Needs a CUDA device and neither Ray nor sae-lens, as the engine does:

    python -m pytest tests/gpu -p no:cacheprovider
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu_setup
from benchmarks.arithmetic import Shape
from benchmarks.gpu_ways import Transformers
from ray_jobs.backbone.bundle import Bundle, SaeInfo
from ray_jobs.backbone.sae_families import SaeWeights, fold
from ray_jobs.engine.device_pooling import pool_on_device
from ray_jobs.engine.encoder import Inputs, SaeEncoder
from ray_jobs.engine.extractor import ExtractedRows, Extractor, ExtractSettings
from ray_jobs.engine.token_values import TokenReader
from tests.reference import jaccard, pool_dense

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

POOLS = ("max", "sum", "count", "last")
BATCH = 1_024
POISON = 17
"""Number of a word whose embedding is not a number; no document but the poisoned one has it."""


class Windowed(gpu_setup.Case):
    """A tiny Gemma 2 whose sliding window is shorter than most documents."""

    def config(self, n_layers: int) -> Any:
        config = super().config(n_layers)
        config.sliding_window = 24
        return config


CASE = Windowed(Shape("tiny-2b", 64, 4, 2, 32, 128), 4, 2, (256,), 600)


@dataclass(frozen=True)
class Setup:
    """A bundle, documents, and what transformers and numpy find in them.

    Attributes:
        bundle: Of one SAE.
        documents: Of 8 to 255 tokens.
        r: Products of each document's tokens with the SAE's rows, float32 [tokens, features].
        acts: Activations, likewise.
    """

    bundle: Bundle
    documents: list[gpu_setup.Document]
    r: list[np.ndarray]
    acts: list[np.ndarray]

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Setup]:
    """setups(dtype): the reference is always the same float32 model on the CPU."""
    documents = [
        document
        for document in gpu_setup.documents(64, 60, 0.8, 256, CASE.vocab_size)
        if POISON not in document.ids.tolist()
    ]
    model = gpu_setup.random_model(CASE, "cpu", dtype="float32")
    with torch.no_grad():
        model.model.embed_tokens.weight[POISON] = float("nan")
    made: dict[str, Setup] = {}

    def make(dtype: str) -> Setup:
        if dtype in made:
            return made[dtype]
        copy = gpu_setup.random_model(CASE, "cpu", dtype=dtype)
        copy.load_state_dict(model.state_dict())
        parts: list[torch.Tensor] = []
        Transformers(model, CASE.layer, parts.append, whole=False).run(documents)
        folder = tmp_path_factory.mktemp(dtype)
        ((bundle, _),) = gpu_setup.write_bundles(folder, "tiny", CASE, copy, torch.cat(parts), "cpu", dtype).values()
        weights = SaeEncoder(bundle, bundle.saes[0], "cpu").weights
        assert weights.cutoff_F is not None
        W_DF, bias_F, cutoff_F = weights.W_FD.float().numpy().T, weights.bias_F.numpy(), weights.cutoff_F.numpy()
        r = [part.numpy() @ W_DF for part in parts]
        made[dtype] = Setup(bundle, documents, r, [np.where(one > cutoff_F, one + bias_F, 0) for one in r])
        return made[dtype]

    return make


def extractor_of(bundle: Bundle, device: str, attn: str, batch_tokens: int = BATCH) -> Extractor:
    return Extractor(
        bundle,
        ExtractSettings(
            pools=POOLS,
            hidden=("mean", "last"),
            max_tokens=256,
            attn_implementation=attn,
            batch_tokens=batch_tokens,
            device=device,
        ),
    )


def rows_of(rows: ExtractedRows) -> Any:
    (sparse,) = rows.saes.values()
    return sparse


def assert_near(rows: ExtractedRows, setup: Setup) -> None:
    """Equal sets, but for features within a rounding error of their threshold; values within 1e-4."""
    cutoff_F = SaeEncoder(setup.bundle, setup.bundle.saes[0], "cpu").weights.cutoff_F
    assert cutoff_F is not None
    n_features = 0
    for number, (r_TF, acts_TF) in enumerate(zip(setup.r, setup.acts, strict=True)):
        row = rows_of(rows).row(number)
        near_F = (np.abs(r_TF - cutoff_F.numpy()) < 1e-4 * np.abs(r_TF).max()).any(axis=0)
        expected = np.flatnonzero((acts_TF > 0).any(axis=0))
        assert not set(np.setxor1d(row.indices, expected)) - set(np.flatnonzero(near_F))
        sure = np.flatnonzero(~near_F)
        for pool in POOLS:
            found_F = np.zeros(acts_TF.shape[1])
            found_F[row.indices] = row.values[pool]
            np.testing.assert_allclose(
                found_F[sure], pool_dense(acts_TF, pool)[sure], rtol=1e-4, atol=1e-4 * float(acts_TF.max())
            )
        n_features += len(expected)
    assert n_features > 1_000


@pytest.mark.parametrize("attn", ["eager", "flex_attention"])
def test_float32_is_what_transformers_computes(setups: Callable[[str], Setup], attn: str) -> None:
    setup = setups("float32")
    rows = extractor_of(setup.bundle, "cuda", attn).extract(setup.texts)
    assert rows.errors == [None] * len(setup.texts)
    assert_near(rows, setup)


@pytest.mark.parametrize("attn", ["eager", "flex_attention"])
def test_bfloat16_strays_no_further_than_on_a_cpu(setups: Callable[[str], Setup], attn: str) -> None:
    setup = setups("bfloat16")

    def agreement(device: str, attn: str) -> float:
        sparse = rows_of(extractor_of(setup.bundle, device, attn).extract(setup.texts))
        return float(
            np.mean(
                [
                    jaccard(sparse.row(number).indices, np.flatnonzero((acts_TF > 0).any(axis=0)))
                    for number, acts_TF in enumerate(setup.acts)
                ]
            )
        )

    on_gpu, on_cpu = agreement("cuda", attn), agreement("cpu", "eager")
    print(f"agreement with float32: GPU {on_gpu:.4f}, CPU {on_cpu:.4f}")
    assert on_gpu > on_cpu - 0.01


@pytest.mark.parametrize("n_words", [1, 3, 40])
def test_one_short_document_is_read_token_by_token_as_on_a_cpu(setups: Callable[[str], Setup], n_words: int) -> None:
    """Alone and behind the common head, whose positions it begins after."""
    bundle = setups("float32").bundle
    text = " ".join(f"w{20 + number}" for number in range(n_words))
    features = {bundle.saes[0].name: list(range(bundle.saes[0].d_sae))}

    def values(device: str) -> np.ndarray:
        reader = TokenReader(bundle, ExtractSettings(max_tokens=256, device=device), features)
        (found,) = reader.read([text])
        assert found.error is None
        return found.values[bundle.saes[0].name]

    here, there = values("cpu"), values("cuda")
    assert len(here) >= n_words
    switched = (here > 0) != (there > 0)  # by a rounding error at the threshold
    assert switched.mean() < 0.01
    np.testing.assert_allclose(there[~switched], here[~switched], rtol=1e-3, atol=1e-4 * float(np.abs(here).max()))


def test_the_same_texts_give_the_same_bytes(setups: Callable[[str], Setup]) -> None:
    setup = setups("bfloat16")
    extractor = extractor_of(setup.bundle, "cuda", "flex_attention")
    first, second = extractor.extract(setup.texts), extractor.extract(setup.texts)
    one, other = rows_of(first), rows_of(second)
    np.testing.assert_array_equal(one.indptr, other.indptr)
    np.testing.assert_array_equal(one.indices, other.indices)
    for pool in POOLS:
        assert one.values[pool].tobytes() == other.values[pool].tobytes()
    for name, dense in first.dense.items():
        assert dense.tobytes() == second.dense[name].tobytes()


def test_hidden_vectors_are_those_of_the_cpu(setups: Callable[[str], Setup]) -> None:
    setup = setups("float32")
    here = extractor_of(setup.bundle, "cpu", "eager").extract(setup.texts).dense
    there = extractor_of(setup.bundle, "cuda", "flex_attention").extract(setup.texts).dense
    for name, dense in here.items():
        np.testing.assert_allclose(there[name], dense, rtol=1e-3, atol=1e-4 * float(np.abs(dense).max()))


def test_poisoned_documents_cost_themselves_alone(setups: Callable[[str], Setup]) -> None:
    """One of more than a block of attention, one that neighbours surround, and one of three words."""
    setup = setups("float32")
    extractor = extractor_of(setup.bundle, "cuda", "flex_attention")
    longest = max(setup.texts, key=len)
    poisoned = {5: f"w{POISON} {longest}", 10: f"{setup.texts[0]} w{POISON} {setup.texts[1]}", 40: f"w40 w{POISON} w41"}
    texts = list(setup.texts)
    for place, text in poisoned.items():
        texts.insert(place, text)
    sound, rows = rows_of(extractor.extract(setup.texts)), extractor.extract(texts)
    assert {number for number, error in enumerate(rows.errors) if error} == set(poisoned)
    assert all("not finite" in str(rows.errors[number]) for number in poisoned)
    others = [number for number in range(len(texts)) if number not in poisoned]
    for number, other in enumerate(others):
        row = rows_of(rows).row(other)
        assert jaccard(row.indices, sound.row(number).indices) > 0.97  # thresholds are values of some of these tokens


@pytest.mark.parametrize("attn", ["eager", "flex_attention"])
def test_want_of_memory_makes_batches_smaller_and_loses_nothing(setups: Callable[[str], Setup], attn: str) -> None:
    setup = setups("float32")
    texts = setup.texts * 40
    total = torch.cuda.get_device_properties(0).total_memory
    extractor = extractor_of(setup.bundle, "cuda", attn, batch_tokens=2**17)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected = rows_of(extractor.extract(texts))
    peak = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.5 * peak) / total)
    try:
        rows = extractor.extract(texts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert rows.errors == [None] * len(texts)
    assert extractor.batch_tokens < 2**17
    overlaps = [jaccard(rows_of(rows).row(n).indices, expected.row(n).indices) for n in range(len(texts))]
    assert min(overlaps) > 0.95


@pytest.mark.parametrize("chunk_elements", [2**9, 2**26])
@pytest.mark.parametrize("pools", [POOLS, ("top5",), ("max", "top1", "top8")])
def test_pooling_is_that_of_the_cpu_bit_for_bit(pools: Sequence[str], chunk_elements: int) -> None:
    """Of small whole numbers, whose products are exact on both."""
    generator = np.random.default_rng(5)
    d_in, d_sae, lengths = 16, 300, generator.integers(1, 40, 50)
    x_ND = torch.from_numpy(generator.integers(-4, 5, (int(lengths.sum()), d_in))).float()
    tensors = {
        "W_enc": torch.from_numpy(generator.integers(-3, 4, (d_in, d_sae))).float(),
        "b_enc": torch.from_numpy(generator.integers(-3, 4, d_sae)).float(),
        "threshold": torch.full((d_sae,), 25.5),
        "b_dec": torch.zeros(d_in),
    }
    info = SaeInfo("sae", 0, "resid_post", d_in, d_sae, "jumprelu", False, {}, (), ())

    def pooled(device: str) -> Any:
        weights = {name: tensor.to(device) for name, tensor in fold("jumprelu", tensors).tensors().items()}
        encoder = SaeEncoder.of(info, SaeWeights.of(weights), "device")
        return pool_on_device(encoder, Inputs(x_ND.to(device)), lengths, pools, chunk_elements, 2**10)

    here, there = pooled("cpu"), pooled("cuda")
    assert len(here.indices) > 1_000
    np.testing.assert_array_equal(there.indptr, here.indptr)
    np.testing.assert_array_equal(there.indices, here.indices)
    for pool in pools:
        np.testing.assert_array_equal(there.values[pool], here.values[pool])
