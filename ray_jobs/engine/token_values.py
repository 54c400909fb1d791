"""Compute what a few features do at each token of a text, for texts that somebody looks at.

Tokens, windows and layers are those of `extractor`, so pooling these values gives what it stores, up to the rounding of
products. Encoders are cut to the features asked for; only top-k SAEs are computed whole, for there every feature
decides which others are active. Encoders run on the CPU in float32 wherever the model runs, attention by `eager`, which
is exact for every model.

Shapes: T tokens of a text, N tokens of a batch, K features asked for of an SAE, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ray_jobs.backbone.backbone import open_backbone
from ray_jobs.backbone.batching import fill_batches
from ray_jobs.backbone.bundle import Bundle, SaeInfo, bundle_file
from ray_jobs.backbone.chat import Turns
from ray_jobs.backbone.sae_families import SaeWeights
from ray_jobs.backbone.tokens import ContentTokenizer, TokenPolicy, Window, token_policy, windows_of
from ray_jobs.engine.encoder import Inputs, SaeEncoder
from ray_jobs.engine.extractor import ExtractSettings

LOT = 64
"""Texts whose windows are packed together: enough to fill batches of short ones, few enough that answers come soon."""


@dataclass(frozen=True)
class TokenValues:
    """The tokens of one text and the activations of some features.

    Attributes:
        names: What tokens that are not of the text are called; empty for those that are.
        start: First code point of each token in the text, int64 [T].
        stop: One past the last; the tokens of the text follow one another without a gap, but for those of a
            conversation, whose text is JSON.
        pooled: Which tokens count, bool [T].
        values: SAE -> float32 [T, K]; 0 where a token does not count.
        truncated: Whether tokens of the text were left out.
        error: Why there is nothing of this text, or None.
    """

    names: tuple[str, ...] = ()
    start: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    stop: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    pooled: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    truncated: bool = False
    error: str | None = None


class TokenReader:
    """A bundle, loaded for some features of its SAEs.

    Args:
        bundle: A prepared bundle.
        settings: As for `Extractor`; poolings, dense baselines and attention do not matter.
        features: SAE -> the features asked for, K distinct ones below d_sae.

    Raises:
        BundleError: The bundle does not load.
        JobSpecError: The settings do not fit the bundle's model or tokenizer.
    """

    def __init__(self, bundle: Bundle, settings: ExtractSettings, features: Mapping[str, Sequence[int]]) -> None:
        self._policy = token_policy(bundle, settings)
        self._tokenizer = ContentTokenizer(bundle, settings.chat)
        self._backbone = open_backbone(bundle, settings.device, "eager", self._policy.shared, settings.devices)
        self._batch_tokens = settings.batch_tokens
        self._bundle = bundle
        self._encoders = _cut(bundle, features)

    def wanting(self, features: Mapping[str, Sequence[int]]) -> TokenReader:
        """A reader of other features, which shares model and tokenizer with this one."""
        other = copy(self)
        other._encoders = _cut(self._bundle, features)
        return other

    def read(self, texts: Sequence[str]) -> Iterator[TokenValues]:
        """One answer for each text, in order."""
        for first in range(0, len(texts), LOT):
            yield from self._read_lot(texts[first : first + LOT])

    def _read_lot(self, texts: Sequence[str]) -> Iterator[TokenValues]:
        located = [self._tokenizer.located(text) for text in texts]
        windows, errors = list[Window](), dict[int, str]()
        truncated = [False] * len(texts)
        for number, found in enumerate(located):
            if isinstance(found, str):
                errors[number] = found
            else:
                own, truncated[number] = windows_of(number, found[0], self._policy)
                windows += own
        pieces: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        for batch in fill_batches([windows], lambda: self._batch_tokens):
            self._run(batch, pieces, errors)
        for number, found in enumerate(located):
            if isinstance(found, str) or number in errors:
                yield TokenValues(error=errors[number])
                continue
            values = [pieces[key] for key in sorted(key for key in pieces if key[0] == number)]
            if isinstance(found[0], Turns):
                yield self._of_turns(found[0], values, truncated[number])
            else:
                yield self._assembled(self._policy.of(found[0]), found[1], values, truncated[number])

    def _run(
        self,
        windows: Sequence[Window],
        pieces: dict[tuple[int, int], dict[str, np.ndarray]],
        errors: dict[int, str],
    ) -> None:
        """Run a batch; one that fails is run window by window, so that it costs one document only."""
        try:
            with torch.inference_mode():
                residuals = self._backbone.forward(windows, self._batch_tokens)
        except torch.AcceleratorError:  # the device is gone for this process: no document's fault
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it must cost one document only)
            if len(windows) > 1:
                for window in windows:
                    self._run([window], pieces, errors)
            else:
                reason = " ".join(str(error).split())[:200]
                errors[windows[0].document] = f"the model failed on this document: {type(error).__name__}: {reason}"
            return
        ends = np.cumsum([window.n_pooled for window in windows])
        values: dict[str, np.ndarray] = {}
        for hook in {encoder.hook: None for encoder in self._encoders}:
            x_ND = residuals[hook].cpu()
            finite_N = x_ND.isfinite().all(dim=1).numpy()
            for window, rows in zip(windows, np.split(finite_N, ends[:-1]), strict=True):
                if not rows.all():
                    errors.setdefault(window.document, f"the model's activations at {hook} are not finite")
            inputs = Inputs(torch.where(torch.from_numpy(finite_N)[:, None], x_ND, 0.0))
            values |= {encoder.name: encoder.values(inputs) for encoder in self._encoders if encoder.hook == hook}
        for number, window in enumerate(windows):
            own = slice(int(ends[number]) - window.n_pooled, int(ends[number]))
            pieces[window.document, window.place] = {name: of[own] for name, of in values.items()}

    def _assembled(
        self, policy: TokenPolicy, stops: np.ndarray, pieces: Sequence[Mapping[str, np.ndarray]], truncated: bool
    ) -> TokenValues:
        if not pieces:
            return TokenValues(
                values={encoder.name: np.zeros((0, encoder.k), np.float32) for encoder in self._encoders}
            )
        n_content = min(len(stops), max(policy.room, 1)) if truncated else len(stops)
        stop = stops[:n_content]
        before, after = len(policy.head), len(policy.tail)
        names = (*self._tokenizer.names(policy.head), *[""] * n_content, *self._tokenizer.names(policy.tail))
        stop_T = np.concatenate([np.zeros(before, np.int64), stop, np.full(after, stop[-1])])
        start_T = np.concatenate([[0], stop_T[:-1]])
        pooled_T = np.ones(len(names), dtype=bool)
        pooled_T[:before] = policy.count_all
        values = {}
        for encoder in self._encoders:
            values[encoder.name] = np.zeros((len(names), encoder.k), dtype=np.float32)
            values[encoder.name][pooled_T] = np.concatenate([piece[encoder.name] for piece in pieces])
        return TokenValues(names, start_T, stop_T, pooled_T, values, truncated)

    def _of_turns(self, content: Turns, pieces: Sequence[Mapping[str, np.ndarray]], truncated: bool) -> TokenValues:
        """A conversation: what the template puts around turns has names, and turns stand where its JSON has them."""
        n_fed = min(len(content.ids), self._policy.max_tokens) if truncated else len(content.ids)
        own_T, pooled_T = content.own[:n_fed], content.pooled[:n_fed] | self._policy.count_all
        names = [
            "" if own else name for name, own in zip(self._tokenizer.names(content.ids[:n_fed]), own_T, strict=True)
        ]
        start_T, stop_T = np.zeros(n_fed, np.int64), np.zeros(n_fed, np.int64)
        start_T[own_T], stop_T[own_T] = content.start[: own_T.sum()], content.stop[: own_T.sum()]
        stop_T = np.maximum.accumulate(stop_T)
        start_T = np.where(own_T, start_T, stop_T)
        values = {}
        for encoder in self._encoders:
            values[encoder.name] = np.zeros((n_fed, encoder.k), dtype=np.float32)
            if pieces:
                values[encoder.name][pooled_T] = np.concatenate([piece[encoder.name] for piece in pieces])
        return TokenValues(tuple(names), start_T, stop_T, pooled_T, values, truncated)


def _cut(bundle: Bundle, features: Mapping[str, Sequence[int]]) -> list[_CutEncoder]:
    return [
        _CutEncoder(bundle, info, np.asarray(features[info.name], dtype=np.int64))
        for info in bundle.saes
        if len(features.get(info.name, ()))
    ]


class _CutEncoder:
    """Some features of one SAE, on the CPU.

    Args:
        bundle: The bundle it belongs to.
        info: Which SAE of it.
        features: Which features, int64 [K].
    """

    def __init__(self, bundle: Bundle, info: SaeInfo, features: np.ndarray) -> None:
        from safetensors.torch import load_file

        self.name, self.hook, self.k = info.name, info.hook, len(features)
        self._place = np.full(info.d_sae, -1, dtype=np.int64)  # feature -> its column; -1 for others
        self._place[features] = np.arange(len(features))
        with bundle_file(bundle.path / info.file_name):
            weights = SaeWeights.of(load_file(bundle.path / info.file_name))
        if info.k is None:
            kept = torch.from_numpy(features)
            weights = SaeWeights(
                weights.W_FD[kept],
                weights.bias_F[kept],
                None if weights.cutoff_F is None else weights.cutoff_F[kept],
                None if weights.scale_F is None else weights.scale_F[kept],
                weights.b_dec_D,
            )
            info, self._place = replace(info, d_sae=self.k), np.arange(self.k)
        self._encoder = SaeEncoder.of(info, weights, "plain")

    def values(self, inputs: Inputs) -> np.ndarray:
        """Activations, float32 [N, K]."""
        values_NK = np.zeros((len(inputs.x_ND), self.k), dtype=np.float32)
        for active in self._encoder.active(inputs):
            column = self._place[active.feature]
            asked = column >= 0
            values_NK[active.token[asked], column[asked]] = active.value[asked]
        return values_NK
