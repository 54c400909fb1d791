"""The ways from documents to pooled features that the GPU benchmark compares, each of which adds one thing.

`Transformers` is (i) to (iii), `Packed` (iv) and its compiled form, `Engine` (v) what ships. All of them end with the
same product on the host: for every document the features that fire in it, with their max, sum and count.

Shapes: B documents of a batch, T positions, N tokens of a document or batch, D d_model, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from unittest import mock

import numpy as np
import torch

from benchmarks.gpu_setup import BOS, PAD, Document
from ray_jobs.backbone import gemma
from ray_jobs.backbone.batching import fill_batches, pad
from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.sae_families import SaeWeights
from ray_jobs.backbone.tokens import Window, windows_of
from ray_jobs.engine.extractor import Extractor, ExtractSettings

DOCUMENTS = 16
"""Of a padded batch: the logits of 16 documents of 1,024 tokens take 8 GB in bfloat16, and their soft cap copies."""
POOLS = ("max", "sum", "count")


class Way(Protocol):
    """A pipeline, loaded."""

    fewest: int
    """Documents that a run needs to be typical: a few batches."""
    positions: int
    """That went through the model in the last run, padding included."""

    def run(self, documents: Sequence[Document]) -> list[np.ndarray]:
        """The features of each document, ascending; max, sum and count have arrived on the host too."""
        ...


class DensePool:
    """Encode densely, pool densely, a document at a time.

    Args:
        weights: A JumpReLU SAE, rows in bfloat16.
        device: Where the residual stream is.
        dtype: Of rows and input; pre-activations are float32 either way.
    """

    def __init__(self, weights: SaeWeights, device: str, dtype: torch.dtype) -> None:
        assert weights.cutoff_F is not None
        self._W_DF = weights.W_FD.to(device, dtype).T.contiguous()
        self._bias_F, self._cutoff_F = weights.bias_F.to(device), weights.cutoff_F.to(device)

    def __call__(self, x_ND: torch.Tensor) -> np.ndarray:
        """The features of one document's content tokens."""
        x_ND = x_ND.to(self._W_DF.dtype)
        if x_ND.dtype != torch.float32 and x_ND.is_cuda:
            r_NF = torch.mm(x_ND, self._W_DF, out_dtype=torch.float32)
        else:
            r_NF = torch.mm(x_ND.float(), self._W_DF.float())
        acts_NF = torch.where(r_NF > self._cutoff_F, r_NF + self._bias_F, 0.0)
        pooled = torch.stack([acts_NF.amax(0), acts_NF.sum(0), (acts_NF > 0).sum(0).float()]).cpu().numpy()
        features = np.flatnonzero(pooled[2])
        _values = pooled[:, features]
        return features


class Transformers:
    """transformers' Gemma 2, padded batches in corpus order, dense SAE and pooling.

    Args:
        model: `Gemma2ForCausalLM`.
        layer: The hook.
        pool: SAE and pooling.
        whole: All layers and the head with `output_hidden_states`; else the model ends at the hook.
    """

    fewest = 2 * DOCUMENTS

    def __init__(self, model: Any, layer: int, pool: Callable[[torch.Tensor], Any], whole: bool) -> None:
        self._model, self._layer, self._pool, self._whole = model, layer, pool, whole
        self.positions = 0

    @torch.inference_mode()
    def run(self, documents: Sequence[Document]) -> list[Any]:
        """See `Way.run`."""
        device, found = self._model.device, []
        self.positions = 0
        for first in range(0, len(documents), DOCUMENTS):
            windows = [
                Window(
                    number, np.concatenate([np.array([BOS], dtype=np.int32), document.ids]), 1, len(document.ids) + 1
                )
                for number, document in enumerate(documents[first : first + DOCUMENTS])
            ]
            ids_BT, mask_BT = pad(windows, PAD)
            self.positions += ids_BT.numel()
            x_BTD = self._residual(ids_BT.to(device), mask_BT.to(device))
            found += [self._pool(x_BTD[window.document, window.start : window.stop]) for window in windows]
        return found

    def _residual(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        fed = {"input_ids": ids_BT, "attention_mask": mask_BT, "use_cache": False}
        if self._whole:
            states: Sequence[torch.Tensor] = self._model(**fed, output_hidden_states=True).hidden_states
            return states[self._layer + 1]
        captured: list[torch.Tensor] = []

        def capture(_module: Any, _inputs: Any, output: Any) -> None:
            captured.append(output[0] if isinstance(output, tuple) else output)

        hook = self._model.model.layers[self._layer].register_forward_hook(capture)
        try:
            self._model.model(**fed)
        finally:
            hook.remove()
        return captured[0]


def truncate(model: Any, layer: int) -> None:
    """Drop the layers behind the hook, the final norm and the head."""
    model.model.layers = model.model.layers[: layer + 1]
    model.model.config.num_hidden_layers = layer + 1
    model.model.norm = torch.nn.Identity()
    model.lm_head = torch.nn.Identity()


class Packed:
    """The engine's backbone, its batches one after the other; dense SAE and pooling.

    Args:
        extractor: The engine.
        pool: SAE and pooling.
    """

    def __init__(self, extractor: Extractor, pool: DensePool) -> None:
        self._extractor, self._pool = extractor, pool
        self.fewest = typical_documents(extractor.batch_tokens)
        self.positions = 0

    @torch.inference_mode()
    def run(self, documents: Sequence[Document]) -> list[np.ndarray]:
        """See `Way.run`."""
        found: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(documents)
        self.positions = 0
        for batch, x_ND in residuals(self._extractor, documents):
            self.positions += fed(self._extractor, sum(len(window.ids) for window in batch))
            parts = x_ND.split([window.n_pooled for window in batch])
            for window, part_ND in zip(batch, parts, strict=True):
                found[window.document] = self._pool(part_ND)
        return found


class Engine:
    """The whole engine, from texts to rows, as its workers call it."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        (self._sae,) = extractor.bundle.saes
        self.fewest = 2 * typical_documents(extractor.batch_tokens)
        self.positions = 0

    def run(self, documents: Sequence[Document]) -> list[np.ndarray]:
        """See `Way.run`.

        Raises:
            RuntimeError: A document failed, with the engine's sentence about it.
        """
        batches: list[int] = []
        budget = self._extractor.batch_tokens
        rows = self._extractor.extract(
            [document.text for document in documents], on_progress=lambda _done, pooled: batches.append(pooled)
        )
        if failed := [error for error in rows.errors if error is not None]:
            raise RuntimeError(failed[0])
        if self._extractor.batch_tokens != budget:
            raise RuntimeError(f"memory ran out at {budget} tokens a batch; the engine went on with fewer")
        n_tokens = int(rows.n_tokens.sum()) + len(documents)
        self.positions = len(batches) * budget if self._extractor.backbone.device.type == "cuda" else n_tokens
        sae = rows.saes[self._sae.name]
        return np.split(sae.indices, sae.indptr[1:-1])


def open_engine(bundle: Bundle, device: str, max_tokens: int, batch_tokens: int) -> Extractor:
    """The engine on packed rows with FlexAttention."""
    return Extractor(
        bundle,
        ExtractSettings(
            pools=POOLS,
            max_tokens=max_tokens,
            attn_implementation="flex_attention",
            batch_tokens=batch_tokens,
            device=device,
        ),
    )


@contextmanager
def layers_uncompiled() -> Iterator[None]:
    """An engine opened in here compiles its attention only, not what stands before and behind it in a layer."""
    compiled = torch.compile

    def selective(function: Any, **options: Any) -> Any:
        return function if function in (gemma.project, gemma.finish) else compiled(function, **options)

    with mock.patch.object(torch, "compile", selective):
        yield


def residuals(extractor: Extractor, documents: Sequence[Document]) -> Iterator[tuple[list[Window], torch.Tensor]]:
    """The engine's batches of these documents and the residual stream of each, [N, D] float32 on the device."""
    (hook,) = extractor.bundle.hooks
    windows = [windows_of(number, document.ids, extractor.policy)[0][0] for number, document in enumerate(documents)]
    for batch in fill_batches([windows], lambda: extractor.batch_tokens):
        yield batch, extractor.backbone.forward(batch, extractor.batch_tokens)[hook]


def fed(extractor: Extractor, n_tokens: int) -> int:
    """Positions that a batch of so many tokens takes: on a GPU rows are filled up to one shape."""
    multiple = extractor.batch_tokens if extractor.backbone.device.type == "cuda" else 1
    return -(-n_tokens // multiple) * multiple


def typical_documents(batch_tokens: int) -> int:
    """Documents that make about three batches, at 256 tokens each."""
    return max(8, 3 * batch_tokens // 256)
