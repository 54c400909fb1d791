"""Texts in, one sparse row per SAE and document out.

Tokenise, cut into windows, batch, run the model once for all layers, encode and pool, put windows together. A document
that cannot be processed costs itself only: its row carries an error sentence, its neighbours are run again without it.
What a row holds does not depend on who its neighbours were, up to the rounding of the GEMMs.

Shapes: B windows of a batch, T positions, N counted tokens of a batch, D d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from ray_jobs.engine.backbone import Backbone
from ray_jobs.engine.batching import CPU_BATCH_TOKENS, pad, plan_batches
from ray_jobs.engine.bundle import Bundle
from ray_jobs.engine.encoder import SaeEncoder
from ray_jobs.engine.pooling import SparseRows, empty_rows, merge_windows, pool_windows, stack_rows
from ray_jobs.engine.tokens import ContentTokenizer, Window, token_policy, windows_of

__all__ = ["ExtractSettings", "ExtractedRows", "Extractor", "SparseRows"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExtractSettings:
    """How to extract; with the bundle, everything that decides a value.

    Attributes:
        pools: Poolings of every SAE: max, sum, count, last, top{N}.
        hidden: Dense baselines of every hooked layer: mean and last residual stream of the counted tokens.
        tokens: Count the text's own tokens only, or all that are fed.
        max_tokens: Positions fed to the model at once, context included.
        long_documents: Cut what does not fit, or read on in overlapping windows.
        stride: Content tokens that a window repeats as context.
        chat: Put the text into the tokenizer's chat template, as a user's message.
        attn_implementation: As transformers names it; models with a soft cap need `eager`.
        batch_tokens: Positions of one forward, padding included.
        device: torch device.
        threads: torch threads; 0 leaves the process's own setting alone.
    """

    pools: tuple[str, ...] = ("max", "sum", "count")
    hidden: tuple[str, ...] = ()
    tokens: Literal["content", "all"] = "content"
    max_tokens: int = 1024
    long_documents: Literal["truncate", "windows"] = "truncate"
    stride: int = 0
    chat: bool = False
    attn_implementation: str = "eager"
    batch_tokens: int = CPU_BATCH_TOKENS
    device: str = "cpu"
    threads: int = 0


@dataclass(frozen=True)
class ExtractedRows:
    """One row per text, in the order given.

    Attributes:
        n_tokens: Tokens pooled, uint32 [texts].
        truncated: Whether content was left out, bool [texts].
        errors: Why a text has no features, or None.
        saes: SAE name -> sparse rows.
        dense: `resid_post_{layer}__hidden_{mean|last}` -> float32 [texts, D], NaN where no token was pooled.
    """

    n_tokens: np.ndarray
    truncated: np.ndarray
    errors: list[str | None]
    saes: Mapping[str, SparseRows]
    dense: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Pooled:
    """What is kept of one window: a sparse row per SAE; per layer the float64 sum and the last residual vector, [D]."""

    saes: Mapping[str, SparseRows]
    sums: Mapping[int, np.ndarray]
    lasts: Mapping[int, np.ndarray]


@dataclass
class _Document:
    """The state of one text on its way through `extract`."""

    error: str | None
    truncated: bool = False
    windows: list[Window] = field(default_factory=list)
    pooled: dict[int, _Pooled] = field(default_factory=dict)  # by place of the window in the document


class Extractor:
    """The engine, loaded once and used for any number of units.

    Args:
        bundle: A prepared bundle.
        settings: How to extract.

    Raises:
        BundleError: The bundle does not load.
        JobSpecError: The settings do not fit the bundle's model or tokenizer.
    """

    def __init__(self, bundle: Bundle, settings: ExtractSettings) -> None:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.bundle = bundle
        self.settings = settings
        self.policy = token_policy(
            bundle,
            tokens=settings.tokens,
            max_tokens=settings.max_tokens,
            long_documents=settings.long_documents,
            stride=settings.stride,
            chat=settings.chat,
        )
        self.tokenizer = ContentTokenizer(bundle)
        self.backbone = Backbone(bundle, settings.device, settings.attn_implementation)
        self.encoders = tuple(SaeEncoder(bundle, info, self.backbone.device) for info in bundle.saes)

    def extract(
        self,
        texts: Sequence[str | None],
        errors: Sequence[str | None] | None = None,
        on_progress: Progress | None = None,
    ) -> ExtractedRows:
        """Extract the features of texts.

        Args:
            texts: The documents; None (without an error of its own) gets one.
            errors: Errors that are known already; those texts are passed through as rows without features.
            on_progress: Called after every batch with the documents and pooled tokens done so far in this call.

        Returns:
            One row per text. Equal texts in equal company give equal bytes.
        """
        documents = self._prepared(texts, errors if errors is not None else [None] * len(texts))
        items = [(document, place) for document in documents for place in range(len(document.windows))]
        n_done = sum(not document.windows for document in documents)
        n_tokens = 0
        for batch in plan_batches([len(document.windows[place].ids) for document, place in items], self._batch_tokens):
            members = [items[item] for item in batch if items[item][0].error is None]
            self._run_with_retry(members)
            n_tokens += sum(document.windows[place].n_pooled for document, place in members)
            for document in {id(document): document for document, _ in members}.values():
                n_done += document.error is not None or len(document.pooled) == len(document.windows)
            if on_progress is not None:
                on_progress(n_done, n_tokens)
        return self._assembled(documents)

    @property
    def _batch_tokens(self) -> int:
        return max(1, self.settings.batch_tokens)

    def _prepared(self, texts: Sequence[str | None], errors: Sequence[str | None]) -> list[_Document]:
        documents = [
            _Document(error=error or ("the document has no text" if text is None else None))
            for text, error in zip(texts, errors, strict=True)
        ]
        sound = [number for number, document in enumerate(documents) if document.error is None]
        contents = self.tokenizer.encode([text for number in sound if (text := texts[number]) is not None])
        for number, content in zip(sound, contents, strict=True):
            if isinstance(content, str):
                documents[number].error = content
            else:
                documents[number].windows, documents[number].truncated = windows_of(number, content, self.policy)
        return documents

    def _run_with_retry(self, members: Sequence[tuple[_Document, int]]) -> None:
        """Run a batch; if it raises, run its windows one by one and blame those that raise again."""
        if not members:
            return
        try:
            self._run(members)
        except torch.AcceleratorError:  # the device is gone for this process: no document's fault
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it must cost one document only)
            if len(members) == 1:
                reason = " ".join(str(error).split())[:200]
                members[0][0].error = f"the model failed on this document: {type(error).__name__}: {reason}"
                return
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            for member in members:
                if member[0].error is None:
                    self._run_with_retry([member])

    def _run(self, members: Sequence[tuple[_Document, int]]) -> None:
        """Forward, encode and pool one batch; a window with non-finite activations fails its document."""
        windows = [document.windows[place] for document, place in members]
        residuals = self.backbone.forward(*pad(windows, self.bundle.tokenizer.pad))
        failures: dict[int, str] = {}
        for layer, x_BTD in residuals.items():
            for row, window in enumerate(windows):
                if row not in failures and not bool(x_BTD[row, window.start : window.stop].isfinite().all()):
                    failures[row] = f"the model's activations at layer {layer} are not finite"
        for row, reason in failures.items():
            members[row][0].error = reason
        sound = [row for row in range(len(windows)) if row not in failures]
        if not sound:
            return
        pooled = self._pooled(residuals, [windows[row] for row in sound], sound)
        for row, features in zip(sound, pooled, strict=True):
            document, place = members[row]
            document.pooled[place] = features

    def _pooled(
        self, residuals: Mapping[int, torch.Tensor], windows: Sequence[Window], rows: Sequence[int]
    ) -> list[_Pooled]:
        lengths = np.array([window.n_pooled for window in windows], dtype=np.int64)
        ends = np.cumsum(lengths)
        saes: dict[str, SparseRows] = {}
        sums: dict[int, np.ndarray] = {}
        lasts: dict[int, np.ndarray] = {}
        for layer, x_BTD in residuals.items():
            counted = [x_BTD[row, window.start : window.stop] for row, window in zip(rows, windows, strict=True)]
            x_ND = torch.cat(counted)
            if "mean" in self.settings.hidden:
                sums[layer] = torch.stack([x_TD.sum(0, dtype=torch.float64) for x_TD in counted]).cpu().numpy()
            if "last" in self.settings.hidden:
                lasts[layer] = x_ND[torch.from_numpy(ends - 1).to(x_ND.device)].float().cpu().numpy()
            for encoder in self.encoders:
                if encoder.info.layer == layer:
                    saes[encoder.info.name] = pool_windows(encoder.active(x_ND), lengths, self.settings.pools)
        return [
            _Pooled(
                saes={name: pooled.row(number) for name, pooled in saes.items()},
                sums={layer: array[number] for layer, array in sums.items()},
                lasts={layer: array[number] for layer, array in lasts.items()},
            )
            for number in range(len(windows))
        ]

    def _assembled(self, documents: Sequence[_Document]) -> ExtractedRows:
        pools, names = self.settings.pools, [info.name for info in self.bundle.saes]
        nothing = empty_rows(1, pools)
        rows: dict[str, list[SparseRows]] = {name: [] for name in names}
        n_tokens = np.zeros(len(documents), dtype=np.uint32)
        dense = {
            f"resid_post_{layer}__hidden_{kind}": np.full((len(documents), self.bundle.d_model), np.nan, np.float32)
            for layer in self.bundle.hook_layers
            for kind in self.settings.hidden
        }
        for number, document in enumerate(documents):
            parts = [document.pooled[place] for place in sorted(document.pooled)]
            merged = {}
            if parts and document.error is None:
                merged = {name: merge_windows([part.saes[name] for part in parts], pools) for name in names}
                document.error = _overflow(merged)
            if not parts or document.error is not None:
                merged = dict.fromkeys(names, nothing)
            else:
                n_tokens[number] = sum(window.n_pooled for window in document.windows)
                for layer in self.bundle.hook_layers:
                    if "mean" in self.settings.hidden:
                        mean = np.sum([part.sums[layer] for part in parts], axis=0) / n_tokens[number]
                        dense[f"resid_post_{layer}__hidden_mean"][number] = mean
                    if "last" in self.settings.hidden:
                        dense[f"resid_post_{layer}__hidden_last"][number] = parts[-1].lasts[layer]
            for name in names:
                rows[name].append(merged[name])
        return ExtractedRows(
            n_tokens=n_tokens,
            truncated=np.array([d.truncated and d.error is None for d in documents], dtype=bool),
            errors=[document.error for document in documents],
            saes={name: stack_rows(rows[name], pools) for name in names},
            dense=dense,
        )


def _overflow(merged: Mapping[str, SparseRows]) -> str | None:
    for name, row in merged.items():
        if not all(np.isfinite(values).all() for values in row.values.values()):
            return f"features of SAE {name} are beyond the range of float32"
    return None
