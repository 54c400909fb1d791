"""Run the truncated decoder: windows of documents in, what each hook reads out.

Weights are memory-mapped and assigned to a model built without storage, so a process costs little beyond the page cache
that all processes share. Layers end at the deepest hook; final norm and head are not even loaded. Activations are taken
in the layers themselves: entries of transformers' `hidden_states` are off by one, or behind the final norm.

There are two ways to run the layers, chosen by what the model is. `PackedBackbone` computes Gemma 2 and 3 with our own
layer (`gemma`), documents end to end without padding. `TransformersBackbone` runs every other decoder by transformers'
own modules, right-padded, with hooks where `decoders` says that they belong; `VisionBackbone` is the same behind a
vision tower, whose image positions attend both ways. All keep the residual stream in float32 between the layers
whatever the dtype of the matrices: its few huge dimensions would otherwise round away what the layers add.

Shapes: N tokens, B rows, T positions, D d_model, P positions of the documents' common head.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from featurestore.errors import BundleError, JobSpecError
from ray_jobs.backbone import gemma
from ray_jobs.backbone.attention import (
    FLEX_BLOCK,
    AttentionShape,
    DenseAttention,
    FlexAttention,
    Head,
    PackedBatch,
    moved,
)
from ray_jobs.backbone.batching import fill_batches, pad
from ray_jobs.backbone.bundle import CONFIG_NAME, WEIGHTS_NAME, Bundle, bundle_file
from ray_jobs.backbone.decoder_layouts import family_of
from ray_jobs.backbone.decoders import attention_of, decoder_of, drop_final_norm, layers_of, norms_of, watch
from ray_jobs.backbone.gemma_model import open_gemma
from ray_jobs.backbone.pipeline import Placement, layers_kept, moved_to, place
from ray_jobs.backbone.sites import Hook
from ray_jobs.backbone.tokens import Window

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Apart = Callable[[Sequence[Window], Callable[[], int]], Iterable[list[Window]]]

ROW_SIZES = 64
"""Shapes that kernels may be compiled for in one process: batches of the budget, of its multiples for longer windows,
and of its halves where memory ran out, each with and without a sliding window shorter than its documents."""

BEFORE_ATTENTION = {"embed", "resid_pre", "attn_in"}

SOFTCAP_EXACT = ("eager", "flex_attention")
"""Attention implementations that apply a logit soft cap; others drop it silently or refuse it."""


class Backbone(Protocol):
    """A truncated decoder on a device.

    Attributes:
        device: Where tokens enter; of several, the first.
        placement: Where each layer is, and what is hooked in it.
        fills: Whether every batch is padded to the full budget of tokens, and so takes the memory of a full one.
        apart: Where activations of one window that are not finite can spoil other windows of its batch: a function that
            takes windows and the budget of a batch, and gives batches in which they cannot. None where they never can.
    """

    device: torch.device
    placement: Placement
    fills: bool
    apart: Apart | None

    def forward(self, windows: Sequence[Window], row_tokens: int) -> dict[Hook, torch.Tensor]:
        """Run one batch.

        Args:
            windows: What is fed; positions `[start, stop)` of each are wanted.
            row_tokens: The budget of a batch in tokens; where kernels are compiled for one shape, it is padded to it.

        Returns:
            Hook -> its activations at the wanted positions, window after window, float32 [N, D], where its layer is.
        """
        ...


def default_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str) -> str:
    """`bfloat16` on GPUs and on CPUs that multiply in it (4.7 x float32 there), else `float32` (bfloat16 is slower)."""
    if device.startswith("cuda"):
        return "bfloat16"
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if any(capabilities.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


def default_attention(device: str, model_type: str) -> str:
    """The fastest attention that is exact: `flex_attention` for our own layers on a GPU, else `eager`."""
    return "flex_attention" if device.startswith("cuda") and model_type in gemma.MODEL_TYPES else "eager"


def check_attention(bundle: Bundle, attn_implementation: str) -> None:
    """Refuse an attention implementation that is not exact for this model, or is not there for it.

    Raises:
        JobSpecError: The model caps its attention logits and the implementation does not; or it is `flex_attention` and
            the model is none that this engine runs by its own layers.
    """
    if attn_implementation == "flex_attention" and bundle.model.model_type not in gemma.MODEL_TYPES:
        raise JobSpecError(
            f"model.attn: 'flex_attention' is there for {' and '.join(gemma.MODEL_TYPES)}, "
            f"{bundle.model.name} is {bundle.model.model_type}; use 'eager'"
        )
    if bundle.model.softcap is not None and attn_implementation not in SOFTCAP_EXACT:
        raise JobSpecError(
            f"model.attn: {attn_implementation!r} drops the attention soft cap of {bundle.model.name}; "
            f"use {' or '.join(repr(name) for name in SOFTCAP_EXACT)}"
        )


def open_backbone(
    bundle: Bundle, device: str, attn_implementation: str, head: np.ndarray, n_devices: int = 1
) -> Backbone:
    """Load a bundle's decoder.

    Args:
        bundle: A prepared bundle.
        device: torch device, e.g. `cpu` or `cuda`.
        attn_implementation: `eager`, `flex_attention`, or another name of transformers.
        head: Ids that every window begins with, int32 [P].
        n_devices: Devices of that kind that share the layers (`ray_jobs.backbone.pipeline`).

    Raises:
        BundleError: The weights do not fit the config.
        JobSpecError: The attention implementation is not exact for this model, or there are fewer devices.
    """
    check_attention(bundle, attn_implementation)
    if bundle.vision is not None and n_devices > 1:
        raise JobSpecError("workers.gpus: a model of images runs on one GPU; set it to 1")
    placement = place(bundle, device, n_devices)
    flex = attn_implementation == "flex_attention"
    if bundle.vision is not None:
        whole = _load(bundle, attn_implementation)
        del layers_of(decoder_of(whole))[bundle.last_layer + 1 :]
        return VisionBackbone(bundle, whole, placement)
    light = open_gemma(bundle) if attn_implementation in SOFTCAP_EXACT else None
    model: Any = light or _load(bundle, "eager" if flex else attn_implementation)
    layers = model.layers if light else layers_of(model)
    del layers[bundle.last_layer + 1 :]  # of a bundle of which only some SAEs are used
    if gemma.is_supported(model.config) and attn_implementation in SOFTCAP_EXACT:
        return PackedBackbone(bundle, model, placement, attn_implementation, head)
    if flex:
        raise JobSpecError(
            f"model.attn: {bundle.model.name} is a {bundle.model.model_type} of a kind that 'flex_attention' is not "
            "there for (other activation, biases or attention than Gemma's own); set model.attn: eager"
        )
    return TransformersBackbone(bundle, model, placement)


class PackedBackbone:
    """Gemma 2 or 3 over documents end to end.

    With dense attention the documents' common head is run once, when the model is opened: its keys and values are kept,
    and of each document only the tokens behind the head are run. With flex attention on a GPU a batch is one row of a
    fixed number of tokens, so that every kernel is compiled for a single shape.

    Args:
        bundle: A prepared bundle.
        model: Its decoder, as transformers builds it.
        placement: Where it runs.
        attn_implementation: `eager` for `DenseAttention`, `flex_attention`.
        head: Ids that every window begins with, int32 [P].
    """

    def __init__(
        self, bundle: Bundle, model: Any, placement: Placement, attn_implementation: str, head: np.ndarray
    ) -> None:
        config, device = model.config, placement.first
        self.device, self.placement, self.dtype = device, placement, getattr(torch, bundle.dtype)
        self._sites = _sites_of(bundle, len(model.layers))
        self._eps, self._head_dim, self._embed_scale = config.rms_norm_eps, config.head_dim, config.hidden_size**0.5
        self._embedding = model.embed_tokens.weight.detach().to(device)
        self._layers = [gemma.layer_weights(layer.to(placement.of(n))) for n, layer in enumerate(model.layers)]
        self._kinds = list(config.layer_types)
        self._windows = [config.sliding_window if kind == "sliding_attention" else None for kind in self._kinds]
        self._rotary = {where: _RotaryTables(model.rotary_emb, where) for where in placement.devices}
        shape = AttentionShape(
            n_heads=config.num_attention_heads,
            n_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            scale=config.query_pre_attn_scalar**-0.5,
            softcap=getattr(config, "attn_logit_softcapping", None),
        )
        flex = attn_implementation == "flex_attention"
        # a masked value counts 0 times, and 0 * inf is NaN: one document can spoil its row, but no other rectangle
        self.apart: Apart | None = self._apart if flex else None
        self.fills = flex and device.type == "cuda"
        if self.fills:
            torch._dynamo.config.recompile_limit = ROW_SIZES * len(
                placement.devices
            )  # beyond it torch goes on uncompiled
        self._project: Any = torch.compile(gemma.project, dynamic=False) if self.fills else gemma.project
        self._finish: Any = torch.compile(gemma.finish, dynamic=False) if self.fills else gemma.finish
        self._head = head[:0]
        self._head_keys: list[Head | None] = [None] * len(self._layers)
        self._head_activations: dict[Hook, torch.Tensor] = {}
        self._attention: DenseAttention | FlexAttention
        if flex:
            self._attention = FlexAttention(shape, sorted(set(self._windows), key=str), self.fills)
            self._score_dtype = self.dtype
        else:
            self._attention = DenseAttention(shape)
            self._score_dtype = torch.float32
        if device.type == "cpu" and self.dtype != torch.float32:
            self._find_peaks(head)
        if not flex:
            self._run_head(head)

    @torch.inference_mode()
    def forward(self, windows: Sequence[Window], row_tokens: int) -> dict[Hook, torch.Tensor]:
        """See `Backbone.forward`."""
        n_head = len(self._head)
        multiple = -(-row_tokens // FLEX_BLOCK) * FLEX_BLOCK if self.fills else 1
        batch = self._packed([window.ids[n_head:] for window in windows], n_head, multiple)
        activations = self._run(batch)[0]
        wanted, whole = _wanted_rows(windows, n_head)
        if whole:
            rows = slice(0, int(batch.lengths.sum()))
            return {hook: x_ND[rows] for hook, x_ND in activations.items()}
        on_host = torch.from_numpy(wanted)
        rows_of = {where: on_host.to(where, non_blocking=True) for where in self.placement.devices}
        return {
            hook: (torch.cat([self._head_activations[hook], x_ND]) if n_head else x_ND)[
                rows_of[self.placement.of(hook.layer)]
            ]
            for hook, x_ND in activations.items()
        }

    def _apart(self, windows: Sequence[Window], row_tokens: Callable[[], int]) -> Iterable[list[Window]]:
        """Windows that each begin a block: compiled attention loads no block of which a query sees nothing."""
        if not self.fills:  # uncompiled, it multiplies everything with everything
            return [[window] for window in windows]
        return fill_batches([[_filled_up(window, FLEX_BLOCK) for window in windows]], row_tokens)

    def _find_peaks(self, head: np.ndarray) -> None:
        """Find the large dimensions by running some tokens behind the head: frequent ones, which have small ids."""
        n_ids = len(self._embedding)
        # ids below about 500 are control tokens and bytes
        ids = np.geomspace(min(500, n_ids // 2), n_ids - 1, gemma.PEAK_TOKENS).astype(np.int32)
        with torch.inference_mode():
            self._run(self._packed([np.concatenate([head, ids])], 0, 1), find_peaks=True)

    def _run_head(self, head: np.ndarray) -> None:
        """Run the common head once and keep its keys, values and activations."""
        if not len(head):
            return
        with torch.inference_mode():
            self._head_activations, self._head_keys = self._run(self._packed([head], 0, 1), keep_keys=True)
        self._head = head

    def _packed(self, ids: Sequence[np.ndarray], first_position: int, multiple: int) -> PackedBatch:
        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        n_tokens = int(lengths.sum())
        size = -(-n_tokens // multiple) * multiple
        ids_N, position_N, starts_N = (np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64), np.arange(size))
        ids_N[:n_tokens] = np.concatenate(ids)
        starts_N[:n_tokens] = np.repeat(np.cumsum(lengths) - lengths, lengths)  # each token of padding sees itself only
        position_N[:n_tokens] = np.arange(n_tokens) - starts_N[:n_tokens] + first_position
        ids, positions = moved(ids_N, self.device), moved(position_N, self.device)
        return PackedBatch(lengths, ids, positions, starts_N, first_position)

    def _run(
        self, batch: PackedBatch, keep_keys: bool = False, find_peaks: bool = False
    ) -> tuple[dict[Hook, torch.Tensor], list[Head | None]]:
        """All layers: the activations that are hooked, and on request keys and values of all."""
        x_ND = self._embedding[batch.ids_N].float() * self._embed_scale
        where, plan, rotary = self._stage(batch, self.device)
        activations: dict[Hook, torch.Tensor] = {}
        keys: list[Head | None] = []

        def keep(number: int, **found: torch.Tensor) -> None:
            activations.update(
                (Hook(number, site), y_ND.float()) for site, y_ND in found.items() if site in self._sites[number]
            )

        last = len(self._layers) - 1
        for number, weights in enumerate(self._layers):
            if (there := self.placement.of(number)) != where:
                x_ND = x_ND.to(there, non_blocking=True)
                where, plan, rotary = self._stage(batch, there)
            left = self._sites[number] - BEFORE_ATTENTION
            if left != self._sites[number]:
                attn_in_ND = gemma.rms_norm(x_ND, weights.input_norm, self._eps)
                keep(number, embed=x_ND, resid_pre=x_ND, attn_in=attn_in_ND)
            if number == last and not left:
                break
            q_NHE, k_NKE, v_NKE = self._project(
                x_ND, weights, *rotary[self._kinds[number]], self._head_dim, self._eps, self.dtype, self._score_dtype
            )
            o_NO = self._attention.attend(plan, self._windows[number], self._head_keys[number], q_NHE, k_NKE, v_NKE)
            if find_peaks:
                weights = self._layers[number] = gemma.with_peaks(x_ND, o_NO, weights, self._eps, self.dtype)
            if keep_keys:
                keys.append(Head(k_NKE, v_NKE))
            if left:
                keep(number, hook_z=o_NO)
            if number == last and left == {"hook_z"}:
                break
            if left <= {"hook_z", "resid_post"}:
                x_ND = self._finish(x_ND, o_NO, weights, self._eps, self.dtype)
                keep(number, resid_post=x_ND)
            else:
                inside = gemma.finish_apart(x_ND, o_NO, weights, self._eps, self.dtype)
                keep(number, **inside)
                x_ND = inside["resid_post"]
        return activations, keys

    def _stage(self, batch: PackedBatch, where: torch.device) -> tuple[torch.device, Any, dict[str, Any]]:
        """What the layers of a device need of a batch: where they are, the attention's plan, rotary tables."""
        here = batch.on(where)
        return where, self._attention.plan(here), self._rotary[where].at(here, set(self._kinds))


class TransformersBackbone:
    """Any other decoder, right-padded, by transformers' own modules.

    Args:
        bundle: A prepared bundle.
        model: Its decoder, as transformers builds it.
        placement: Where it runs.
    """

    def __init__(self, bundle: Bundle, model: Any, placement: Placement) -> None:
        self.device, self.placement = placement.first, placement
        self.fills = False
        self.apart: Apart | None = None  # each window has a row of its own
        self.model = _placed(model, placement)
        self._pad_id = bundle.tokenizer.pad
        decoder = decoder_of(self.model)
        if bundle.dtype != "float32":
            _keep_stream_in_float32(decoder, getattr(torch, bundle.dtype))
        # of windows and their ids, what the model is given beside ids and mask
        self._beside: Callable[[Sequence[Window], torch.Tensor], dict[str, torch.Tensor]] | None = None
        self._captured: dict[Hook, torch.Tensor] = {}
        for hook in bundle.hooks:
            watch(decoder, hook, partial(self._captured.__setitem__, hook))

    @torch.inference_mode()
    def forward(self, windows: Sequence[Window], row_tokens: int) -> dict[Hook, torch.Tensor]:
        """See `Backbone.forward`."""
        parts: list[dict[Hook, torch.Tensor]] = []
        first = 0
        while first < len(windows):  # of windows of unlike length, so many that padding does not break the budget
            longest, last = windows[first].cost, first + 1
            while last < len(windows):
                longest = max(longest, windows[last].cost)
                if (last + 1 - first) * longest > row_tokens:
                    break
                last += 1
            parts.append(self._padded(windows[first:last]))
            first = last
        return {hook: torch.cat([part[hook] for part in parts]) for hook in parts[0]}

    def _padded(self, windows: Sequence[Window]) -> dict[Hook, torch.Tensor]:
        ids_BT, mask_BT = pad(windows, self._pad_id)
        self._captured.clear()
        self.model(
            input_ids=ids_BT.to(self.device),
            attention_mask=mask_BT.to(self.device),
            use_cache=False,
            **(self._beside(windows, ids_BT) if self._beside is not None else {}),
        )
        captured = {hook: x.reshape(*ids_BT.shape, -1) for hook, x in self._captured.items()}
        self._captured.clear()
        wanted_BT = torch.zeros_like(mask_BT, dtype=torch.bool)
        for row, window in enumerate(windows):
            wanted_BT[row, torch.from_numpy(window.pooled)] = True
        wanted_on = {where: wanted_BT.to(where) for where in self.placement.devices}
        found = {}
        for hook, x_BTD in captured.items():
            where = self.placement.of(hook.layer)  # embeddings may be taken on a device before it
            found[hook] = x_BTD.to(where)[wanted_on[where]].float()
        return found


class VisionBackbone(TransformersBackbone):
    """A decoder behind a vision tower, by transformers' own modules: PaliGemma, PaliGemma 2, Gemma 3 with images.

    What attends both ways is told by `token_type_ids`: PaliGemma's whole prefix, image and prompt; of Gemma 3 only the
    image. The decoder's layers are run as `TransformersBackbone` runs them, the tower as it is, in the bundle's dtype.

    Args:
        bundle: A bundle that was prepared for images.
        model: Its model, as transformers builds it.
        placement: Where it runs: one device.
    """

    def __init__(self, bundle: Bundle, model: Any, placement: Placement) -> None:
        super().__init__(bundle, model, placement)
        assert bundle.vision is not None
        self._vision = bundle.vision
        self._beside = self._images

    def _images(self, windows: Sequence[Window], ids_BT: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = np.stack([window.pixels for window in windows if window.pixels is not None])
        types_BT = torch.zeros_like(ids_BT) if self._vision.prefix else (ids_BT == self._vision.token).long()
        return {
            "pixel_values": torch.from_numpy(pixels).to(self.device),
            "token_type_ids": types_BT.to(self.device),
        }


class _RotaryTables:
    """cos and sin at positions, by kind of layer; taken from transformers, which knows all ways of scaling them."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module, self._device = module, device
        self._by_kind = "layer_type" in inspect.signature(module.forward).parameters
        self._tables: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._length = 0

    def at(self, batch: PackedBatch, kinds: set[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Kind of layer -> cos and sin of the first half of a head, [N, 1, E/2] float32."""
        if batch.n_positions > self._length:
            self._length = max(batch.n_positions, 2 * self._length)
            self._tables = {kind: self._table(kind) for kind in kinds}
        position_N = batch.position_N
        return {kind: (cos[position_N, None], sin[position_N, None]) for kind, (cos, sin) in self._tables.items()}

    def _table(self, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        positions = torch.arange(self._length)[None]
        like = torch.empty(0, dtype=torch.float32)
        cos, sin = self._module(like, positions, kind) if self._by_kind else self._module(like, positions)
        half = cos.shape[-1] // 2
        return cos[0, :, :half].contiguous().to(self._device), sin[0, :, :half].contiguous().to(self._device)


def _filled_up(window: Window, multiple: int) -> Window:
    """The window padded to a multiple of so many tokens by repeating its last one; the positions wanted stay."""
    return replace(window, ids=np.pad(window.ids, (0, -len(window.ids) % multiple), mode="edge"))


def _wanted_rows(windows: Sequence[Window], n_head: int) -> tuple[np.ndarray, bool]:
    """Rows of [head, packed documents] that are wanted, and whether they are all of the documents' and no others."""
    rows, offset = [], n_head
    whole = True
    for window in windows:
        pooled = window.pooled
        rows.append(np.where(pooled < n_head, pooled, pooled - n_head + offset))
        whole &= window.start == n_head and window.n_pooled == len(window.ids) - n_head
        offset += len(window.ids) - n_head
    return np.concatenate(rows), whole


def build_empty(
    config: PretrainedConfig,
    attn_implementation: str = "eager",
    final_norm: bool = False,
    n_layers: int | None = None,
) -> Any:
    """The decoder of a config, its parameters without storage, its buffers (rotary tables) real.

    Args:
        config: The config.
        attn_implementation: Of transformers.
        final_norm: Whether it keeps what follows the last layer; a decoder of an unknown family does, for it may use it
            elsewhere too (NanoChat's norm stands before its layers as well).
        n_layers: How many layers it keeps; all of the config's where not given.

    With a vision tower and projector before it, where the config has them; the tower has no soft cap, so `sdpa` is
    exact there, and does not make all scores of thousands of patches.

    Raises:
        BundleError: transformers' decoder is not built of layers behind an embedding.
    """
    from transformers import AutoModel

    attention: Any = attn_implementation
    if hasattr(config, "vision_config"):
        attention = {"": attn_implementation, "text_config": attn_implementation, "vision_config": "sdpa"}
    with _ParametersOnMeta():
        model = AutoModel.from_config(config, attn_implementation=attention, dtype=torch.float32)
    decoder = decoder_of(model)
    layers = layers_of(decoder)
    if n_layers is not None:
        del layers[n_layers:]
    if not final_norm and family_of(decoder.config) is not None:
        drop_final_norm(decoder)
    return model


def build_empty_with_head(config: PretrainedConfig, attn_implementation: str = "eager") -> Any:
    """The whole causal language model of a config in the same way.

    Raises:
        ValueError: transformers has none for it, or not with this attention.
    """
    from transformers import AutoModelForCausalLM

    with _ParametersOnMeta():
        return AutoModelForCausalLM.from_config(
            config, attn_implementation=attn_implementation, dtype=torch.float32
        ).eval()


class _ParametersOnMeta(TorchFunctionMode):
    """Makes parameters (from `empty`, `zeros` or `ones`) without storage; other functions make buffers, which stay.

    So do masks, which are made of truth values, and zeros that rotary tables are filled up with (Gemma 4's).
    """

    _factories: tuple[Callable[..., torch.Tensor], ...] = (torch.empty, torch.zeros, torch.ones)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._factories and kwargs.get("dtype") not in (torch.bool, bool):
            made = func(*args, **{**kwargs, "device": "meta"})
            made.all_zeros = func is torch.zeros
            return made
        if func is torch.cat and len({tensor.is_meta for tensor in args[0]}) == 2:
            real = [torch.zeros_like(t, device="cpu") if getattr(t, "all_zeros", False) else t for t in args[0]]
            return func(real, *args[1:], **kwargs)
        return func(*args, **kwargs)


def _load(bundle: Bundle, attn_implementation: str) -> Any:
    from transformers import AutoConfig

    with bundle_file(bundle.path / CONFIG_NAME):
        config = AutoConfig.from_pretrained(bundle.path / CONFIG_NAME, trust_remote_code=False)
        said = json.loads((bundle.path / CONFIG_NAME).read_text(encoding="utf-8")).get("layer_types")
        if said and said != config.layer_types:  # Gemma 4's makes of the last layer what the last of a whole model is
            config.layer_types = said
        n_layers = layers_kept(bundle)
    try:
        model = build_empty(config, attn_implementation, n_layers=n_layers)
    except ValueError:
        raise JobSpecError(
            f"model.attn: transformers has no {attn_implementation!r} for {bundle.model.name}; use 'eager'"
        ) from None
    assign_weights(model, bundle.path / WEIGHTS_NAME)
    return model.eval()


def assign_weights(module: Any, path: Path) -> None:
    """Give a module that was built without storage the tensors of a bundle's file, memory-mapped.

    Raises:
        BundleError: They are not those that it has.
    """
    from safetensors.torch import load_file

    with bundle_file(path):
        weights = load_file(path)
    try:
        missing, unexpected = module.load_state_dict(weights, strict=False, assign=True)
        lacking = sorted(unexpected) + [name for name in missing if name in dict(module.named_parameters())]
        if lacking:
            raise RuntimeError(f"{lacking[0]} is in one of them only")
    except RuntimeError as error:
        raise BundleError(f"{path} does not fit {CONFIG_NAME} ({_first_line(error)}); prepare again") from None
    unset = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if unset:
        raise BundleError(f"{path}: no values for {', '.join(unset)} of {type(module).__name__}")


def _placed(model: Any, placement: Placement) -> Any:
    """The model with each layer on its device, and what a layer is given moved there; all else is where tokens enter.

    Never is all of it on one device.
    """
    layers = layers_of(decoder_of(model))
    kept = list(layers)
    del layers[:]
    model.to(placement.first)
    layers.extend(kept)
    for number, layer in enumerate(kept):
        where = placement.of(number)
        layer.to(where)
        if len(placement.devices) > 1:
            layer.register_forward_pre_hook(
                lambda _module, args, kwargs, where=where: (moved_to(where, args), moved_to(where, kwargs)),
                with_kwargs=True,
            )
    return model


def _keep_stream_in_float32(model: Any, dtype: torch.dtype) -> None:
    """The residual stream stays in float32 between the layers; matrices multiply in `dtype`.

    Embeddings enter the stream in float32. Norms compute in float32, wherever they stand, and round their result once.
    Whatever else has weights is given its input in `dtype`, also where it reads the stream without a norm before it.
    Its output is in `dtype`, so adding it leaves the stream in float32.
    """
    layers = layers_of(model)
    norms = {id(norm): (name, norm) for name, norm in norms_of(model)}
    inside = {id(module) for module in layers.modules()}
    for _, norm in norms.values():
        norm.float()
        if id(norm) in inside:
            norm.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda _module, _inputs, output: output.float())
        elif id(module) not in norms and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(partial(_given_as, dtype), with_kwargs=True)
    for layer in layers:
        layer.register_forward_pre_hook(partial(_given_as, torch.float32), with_kwargs=True)
        attention_of(layer).register_forward_pre_hook(partial(_given_biases_as, dtype), with_kwargs=True)
    if (rotary := getattr(model, "rotary_emb", None)) is not None:  # its tables follow the stream's dtype
        rotary.register_forward_hook(lambda _module, _inputs, output: _cast_tables(output, dtype))


def _given_as(dtype: torch.dtype, _module: Any, args: Any, kwargs: Any) -> Any:
    """A module's arguments with its first one, the states that it reads, in a dtype."""
    if args:
        return (_cast(args[0], dtype), *args[1:]), kwargs
    return args, {
        **kwargs,
        "hidden_states": _cast(kwargs["hidden_states"], dtype),
    } if "hidden_states" in kwargs else kwargs


def _given_biases_as(dtype: torch.dtype, _module: Any, args: Any, kwargs: Any) -> Any:
    """An attention's arguments with what is added to its scores (mask, ALiBi) in a dtype, as large as that allows."""
    least = torch.finfo(dtype).min
    added = {name: kwargs[name] for name in ("attention_mask", "alibi") if isinstance(kwargs.get(name), torch.Tensor)}
    added = {name: tensor for name, tensor in added.items() if tensor.is_floating_point()}
    return args, {**kwargs, **{name: tensor.clamp(min=least).to(dtype) for name, tensor in added.items()}}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _cast_tables(output: Any, dtype: torch.dtype) -> Any:
    return tuple(_cast(table, dtype) for table in output) if isinstance(output, tuple) else _cast(output, dtype)


def _sites_of(bundle: Bundle, n_layers: int) -> list[set[str]]:
    """The sites wanted in each layer."""
    return [{hook.site for hook in bundle.hooks if hook.layer == number} for number in range(n_layers)]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
