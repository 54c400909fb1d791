"""The truncated decoder equals transformers, packed or padded, by every attention, and holds only what is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from featurestore.errors import JobSpecError
from ray_jobs.backbone import pipeline
from ray_jobs.backbone.attention import FLEX_BLOCK
from ray_jobs.backbone.backbone import (
    PackedBackbone,
    TransformersBackbone,
    default_attention,
    default_dtype,
    open_backbone,
)
from ray_jobs.backbone.bundle import WEIGHTS_NAME, Bundle, open_bundle
from ray_jobs.backbone.sites import Hook
from ray_jobs.backbone.tokens import Window
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.reference import Fed, ReferenceModel
from tests.tiny import tiny_gemma2, tiny_sae

BOS = np.array([2], dtype=np.int32)
LAYER_2 = Hook(2, "resid_post")
LENGTHS = [40, 3, 17, 1, 90, 16, 16, 2]
WINDOW_SHORTER, WINDOW_LONGER = 8, 4096


def windows_of_lengths(lengths: Sequence[int], head: np.ndarray = BOS, start: int | None = None) -> list[Window]:
    """Documents of random tokens behind `head`; pooled from `start`, by default from the head's end."""
    rng = np.random.default_rng(5)
    rows = [np.concatenate([head, rng.integers(300, 330, size=n).astype(np.int32)]) for n in lengths]
    return [
        Window(number, ids, len(head) if start is None else start, len(ids) - (number % 3 == 2))
        for number, ids in enumerate(rows)
    ]


def residual_of(reference: ReferenceModel, windows: Sequence[Window], layer: int) -> np.ndarray:
    """What transformers gives for each window alone, one below the other."""
    return np.concatenate(
        [reference.residual([Fed(w.ids.tolist(), slice(w.start, w.stop))], layer) for w in windows if w.n_pooled]
    )


@pytest.fixture(scope="module", params=[WINDOW_SHORTER, WINDOW_LONGER], ids=["short-window", "long-window"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ReferenceModel]:
    root = tmp_path_factory.mktemp("model")
    path = tiny_gemma2(root, sliding_window=request.param)
    return bundle_of(path, root), ReferenceModel(path)


def bundle_of(path: Path, root: Path, dtype: str = "float32") -> Bundle:
    job = job_from_mapping(
        {
            "corpus": {"path": "unused.jsonl"},
            "model": {"name": str(path), "dtype": dtype},
            "saes": [
                {"path": str(tiny_sae(root / f"sae{layer}", layer=layer)), "name": f"l{layer}"} for layer in (1, 2)
            ],
            "store": "unused",
        },
        root,
    )
    return open_bundle(prepare(job, cache_dir=root))


def test_nothing_beyond_the_deepest_hook_is_kept(bundle: Bundle) -> None:
    with safe_open(bundle.path / WEIGHTS_NAME, framework="pt") as file:
        names = set(file.keys())
    assert {name.split(".")[1] for name in names if name.startswith("layers.")} == {"0", "1", "2"}
    assert not [name for name in names if "lm_head" in name or name == "norm.weight"]


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_packed_documents_equal_transformers_one_by_one(model: tuple[Bundle, ReferenceModel], attention: str) -> None:
    bundle, reference = model
    windows = windows_of_lengths(LENGTHS)
    residuals = open_backbone(bundle, "cpu", attention, BOS).forward(windows, 512)
    for layer in (1, 2):
        expected = residual_of(reference, windows, layer)
        np.testing.assert_allclose(residuals[Hook(layer, "resid_post")].numpy(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_a_document_alone_equals_itself_in_company(model: tuple[Bundle, ReferenceModel], attention: str) -> None:
    backbone = open_backbone(model[0], "cpu", attention, BOS)
    windows = windows_of_lengths(LENGTHS)
    together = backbone.forward(windows, 512)[LAYER_2]
    alone = torch.cat([backbone.forward([window], 512)[LAYER_2] for window in windows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_without_the_soft_cap_it_would_be_seen(model: tuple[Bundle, ReferenceModel], attention: str) -> None:
    bundle, reference = model
    windows = windows_of_lengths(LENGTHS)
    found = open_backbone(bundle, "cpu", attention, BOS).forward(windows, 512)[LAYER_2].numpy()
    layers = [layer.self_attn for layer in reference.model.model.layers]
    cap = reference.model.config.attn_logit_softcapping
    try:
        for layer in layers:
            layer.attn_logit_softcapping = None
        uncapped = residual_of(reference, windows, 2)
    finally:
        for layer in layers:
            layer.attn_logit_softcapping = cap
    assert np.abs(found - uncapped).max() > 0.1


@pytest.mark.slow  # compiles the kernel, about half a minute
def test_compiled_flex_attention_equals_transformers(model: tuple[Bundle, ReferenceModel]) -> None:
    from ray_jobs.backbone.attention import FlexAttention

    bundle, reference = model
    backbone = open_backbone(bundle, "cpu", "flex_attention", BOS)
    assert isinstance(backbone, PackedBackbone)
    assert isinstance(backbone._attention, FlexAttention)
    backbone._attention = FlexAttention(backbone._attention.shape, backbone._attention._windows, compiled=True)
    for lengths in (LENGTHS, [300, 290, 129, 64, 65]):
        windows = windows_of_lengths(lengths)
        expected = residual_of(reference, windows, 2)
        np.testing.assert_allclose(backbone.forward(windows, 1024)[LAYER_2].numpy(), expected, rtol=1e-4, atol=3e-5)


def test_windows_apart_share_no_block_of_attention(bundle: Bundle) -> None:
    backbone = open_backbone(bundle, "cpu", "flex_attention", BOS)
    windows = windows_of_lengths([300, 1, 128, 290, 129, 64])
    assert backbone.apart is not None
    assert [len(batch) for batch in backbone.apart(windows, lambda: 1024)] == [1] * len(windows)
    backbone.fills = True  # as on a GPU
    batches = list(backbone.apart(windows, lambda: 640))
    assert sorted(window.document for batch in batches for window in batch) == list(range(len(windows)))
    for batch in batches:
        lengths = [len(window.ids) for window in batch]
        assert sum(lengths) <= 640
        owner = np.repeat(np.arange(len(batch)), lengths)
        for first in range(0, len(owner), FLEX_BLOCK):
            assert len(set(owner[first : first + FLEX_BLOCK])) == 1
        for window in batch:
            original = windows[window.document]
            np.testing.assert_array_equal(window.ids[: len(original.ids)], original.ids)
            assert (window.start, window.stop) == (original.start, original.stop)


def test_documents_longer_than_a_block_of_queries_equal_transformers(model: tuple[Bundle, ReferenceModel]) -> None:
    bundle, reference = model
    windows = windows_of_lengths([300, 290, 129, 64, 65])
    found = open_backbone(bundle, "cpu", "eager", BOS).forward(windows, 1024)[LAYER_2]
    np.testing.assert_allclose(found.numpy(), residual_of(reference, windows, 2), rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("head", [[], [2], [2, 4, 301, 302, 303, 5]], ids=["none", "bos", "template"])
@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_a_common_head_is_seen_and_pooled_where_asked(
    model: tuple[Bundle, ReferenceModel], head: list[int], attention: str
) -> None:
    bundle, reference = model
    ids = np.array(head, dtype=np.int32)
    windows = windows_of_lengths([30, 5, 12], ids, start=0)
    windows += [Window(3, window.ids, len(ids), len(window.ids)) for window in windows]
    found = open_backbone(bundle, "cpu", attention, ids).forward(windows, 512)[LAYER_2]
    np.testing.assert_allclose(found.numpy(), residual_of(reference, windows, 2), rtol=1e-4, atol=2e-5)


class Elsewhere(torch.Tensor):
    """Positions that are on a GPU, as far as Python can see; whoever asks for their values waits for it."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # what is computed from them is an ordinary tensor

    @property
    def is_cuda(self) -> bool:
        return True

    def max(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("waits for the device")


@pytest.mark.parametrize("lengths", [[1], [3], [2, 5, 1]])
def test_rotary_tables_reach_behind_the_common_head_without_waiting_for_a_gpu(
    bundle: Bundle, lengths: list[int]
) -> None:
    head = windows_of_lengths([39])[0].ids
    backbone = open_backbone(bundle, "cpu", "eager", head)
    assert isinstance(backbone, PackedBackbone)
    batch = backbone._packed([np.full(n, 300, dtype=np.int32) for n in lengths], len(head), 1)
    positions = batch.position_N
    elsewhere = replace(batch, position_N=positions.as_subclass(Elsewhere))
    _, _, rotary = backbone._stage(elsewhere, backbone.device)
    wider = replace(batch, first_position=1_000)  # tables that are long enough whatever the bound is
    _, _, expected = backbone._stage(wider, backbone.device)
    for kind, tables in rotary.items():
        for found, other in zip(tables, expected[kind], strict=True):
            assert len(found) == sum(lengths)
            torch.testing.assert_close(found, other, rtol=0, atol=0)


def test_transformers_own_modules_give_the_same(model: tuple[Bundle, ReferenceModel]) -> None:
    from ray_jobs.backbone.backbone import _load

    bundle, reference = model
    windows = windows_of_lengths(LENGTHS)
    for budget in (1, 100, 10_000):
        backbone = TransformersBackbone(bundle, _load(bundle, "eager"), pipeline.place(bundle, "cpu"))
        found = backbone.forward(windows, budget)[LAYER_2]
        np.testing.assert_allclose(found.numpy(), residual_of(reference, windows, 2), rtol=1e-4, atol=2e-5)


def test_a_model_without_a_soft_cap_has_none(tmp_path: Path) -> None:
    path = tiny_gemma2(tmp_path, softcap=None)
    windows = windows_of_lengths(LENGTHS)
    expected = residual_of(ReferenceModel(path), windows, 2)
    for attention in ("eager", "flex_attention"):
        found = open_backbone(bundle_of(path, tmp_path), "cpu", attention, BOS).forward(windows, 512)[LAYER_2]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=2e-5)


def test_an_attention_that_transformers_does_not_have_for_a_model_is_refused(tmp_path: Path) -> None:
    bundle = bundle_of(tiny_gemma2(tmp_path, softcap=None), tmp_path)
    with pytest.raises(JobSpecError, match=r"model\.attn: transformers has no 'sdpa' for tiny-gemma2"):
        open_backbone(bundle, "cpu", "sdpa", BOS)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 2**-10)])
def test_a_documents_residual_hardly_depends_on_its_neighbours(tmp_path: Path, dtype: str, bound: float) -> None:
    sae = tiny_sae(tmp_path / "sae", layer=2, d_in=128)
    job = {
        "corpus": {"path": "unused.jsonl"},
        "model": {"name": str(tiny_gemma2(tmp_path, d_model=128)), "dtype": dtype},
        "saes": [{"path": str(sae), "name": "sae"}],
        "store": "unused",
    }
    bundle = open_bundle(prepare(job_from_mapping(job, tmp_path), cache_dir=tmp_path))
    backbone = open_backbone(bundle, "cpu", "eager", BOS)
    for length in (1, 2, 4, 9):
        (document,) = windows_of_lengths([length])
        alone = backbone.forward([document], 4096)[LAYER_2]
        for n_others in (1, 3, 10, 50):
            others = windows_of_lengths(np.random.default_rng(n_others).integers(1, 40, n_others).tolist())
            for place in (0, n_others // 2, n_others):
                before = sum(window.n_pooled for window in others[:place])
                together = backbone.forward([*others[:place], document, *others[place:]], 4096)[LAYER_2]
                found = together[before : before + length]
                # half a unit of bfloat16's eighth bit is 2**-9: less than one rounding of every number
                assert (found - alone).norm() <= bound * alone.norm()


def test_in_bfloat16_weights_are_bfloat16_and_the_residual_stream_is_not(make_bundle: Callable[..., Bundle]) -> None:
    backbone = open_backbone(make_bundle("bfloat16"), "cpu", "eager", BOS)
    assert isinstance(backbone, PackedBackbone)
    assert {layer.gate.dtype for layer in backbone._layers} == {torch.bfloat16}
    residual = backbone.forward(windows_of_lengths([20]), 512)[LAYER_2]
    assert residual.dtype == torch.float32
    assert (residual != residual.bfloat16().float()).float().mean() > 0.5


def test_weights_are_shared_with_the_file_and_not_copied(bundle: Bundle) -> None:
    backbone = open_backbone(bundle, "cpu", "eager", BOS)
    assert isinstance(backbone, PackedBackbone)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc/self/maps on this system")
    mapped = [line.split()[0].split("-") for line in maps.read_text().splitlines() if str(bundle.path) in line]
    address = backbone._layers[0].gate.data_ptr()
    assert any(int(first, 16) <= address < int(last, 16) for first, last in mapped)


def test_sdpa_is_refused_for_a_model_with_a_soft_cap(bundle: Bundle) -> None:
    with pytest.raises(JobSpecError, match="'sdpa' drops the attention soft cap of tiny-gemma2; use 'eager'"):
        open_backbone(bundle, "cpu", "sdpa", BOS)


def test_the_dtype_and_the_attention_follow_the_hardware() -> None:
    flags = torch.cpu.get_capabilities()
    native = flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16")
    assert default_dtype("cpu") == ("bfloat16" if native else "float32")
    assert default_dtype("cuda") == "bfloat16"
    assert default_attention("cpu", "gemma2") == "eager"
    assert default_attention("cuda", "gemma3_text") == "flex_attention"
    assert default_attention("cuda", "llama") == "eager"
