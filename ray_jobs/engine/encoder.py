"""Find the active features of tokens with one SAE: exact (feature, token, value) pairs, never a dense matrix of them.

Features are taken in chunks whose pre-activations stay in the cache; what exceeds its feature's cutoff (or, for top-k,
the token's k-th largest so far) is picked out. There are three routes:

- *prefiltered*, on CPUs with fast int8 (`ray_jobs.engine.int8_prefilter`): an int8 product names candidates, and each
  is computed again as a float32 dot product of the bundle's weights with the float32 input. A pair's value depends on
  its row and its token alone: not on neighbours, batches or chunks, to the bit. Four times the speed of MKL's float32
  products where a hundredth of the features is active. A chunk of which more than a seventh are candidates is computed
  as on the plain route.
- *plain*, on other CPUs: a float32 product, bfloat16 weights widened chunk by chunk.
- *device*: weights and inputs in the bundle's dtype with float32 output. In bfloat16, what rounding takes from the
  inputs in the few huge dimensions of the residual stream is multiplied too, as further columns.

An encoder can be cut to some features (what a trained model reads, what is looked at). A threshold family's features do
not know of one another, so only their rows are read and multiplied; which features are a token's top k takes all of
them, and then the others are dropped.

Memory beyond the weights: CHUNK_ELEMENTS or DEVICE_CHUNK_ELEMENTS pre-activations, the pairs, and where prefiltered an
int8 copy of the encoder. Pooling the pairs is left to `pooling` and `device_pooling`.

Shapes: N tokens, D d_in, F features, C features of one chunk, K pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch

from ray_jobs.backbone import cpu_products
from ray_jobs.backbone.bundle import Bundle, SaeInfo, bundle_file
from ray_jobs.backbone.sae_families import SaeWeights, encoder_input
from ray_jobs.backbone.sae_kinds import check_family
from ray_jobs.engine.int8_prefilter import Int8Prefilter, PrefilterInput, can_prefilter, prefilter_input

Route = Literal["prefiltered", "plain", "device"]

CHUNK_ELEMENTS = 2**21
"""Pre-activations computed at a time on the CPU: 8 MB, which the next step finds in the cache."""

DEVICE_CHUNK_ELEMENTS = 2**26
"""On a device: 256 MB, few enough chunks that their synchronisations (one each) do not count."""

DENSE = 7
"""A chunk is computed whole if more than one pair in so many is a candidate: a pair's own dot product costs about seven
times as much as a pair does within a float32 matrix product."""

FIRST_CHUNK = 512
"""Features of the first chunk of a top-k SAE: their k largest pre-activations are what later ones have to exceed."""

LOW_COLUMNS = 16
"""Dimensions of which a device also multiplies what rounding to bfloat16 took from the input. With unit rows on Gemma 3
270M layer 9, uncentred, bfloat16 inputs alone change 3 % of the active pairs, with these columns 1 %."""


@dataclass(frozen=True)
class Active:
    """Active pairs sorted by feature, then token: int64 [K], int64 [K], float32 [K], all values > 0."""

    feature: np.ndarray
    token: np.ndarray
    value: np.ndarray

    def where(self, kept: np.ndarray) -> Active:
        """Some of the pairs, by a mask."""
        places = np.flatnonzero(kept)  # one look at the mask instead of three
        return Active(self.feature[places], self.token[places], self.value[places])

    @staticmethod
    def joined(parts: Sequence[Active]) -> Active:
        """Pairs of consecutive chunks."""
        if len(parts) == 1:
            return parts[0]
        return Active(
            np.concatenate([part.feature for part in parts]),
            np.concatenate([part.token for part in parts]),
            np.concatenate([part.value for part in parts]),
        )


@dataclass
class Inputs:
    """Tokens of a block as encoders read them, computed once for all SAEs that normalise and centre alike.

    Attributes:
        x_ND: Residual stream, float32.
    """

    x_ND: torch.Tensor
    _read: dict[str, torch.Tensor] = field(default_factory=dict)
    _rounded: dict[str, PrefilterInput | None] = field(default_factory=dict)
    _half: dict[str, torch.Tensor] = field(default_factory=dict)

    def read(self, encoder: SaeEncoder) -> torch.Tensor:
        """Normalised and centred, float32 [N, D]."""
        if encoder.input_key not in self._read:
            b_dec_D = encoder.weights.b_dec_D if encoder.info.apply_b_dec_to_input else None
            self._read[encoder.input_key] = encoder_input(self.x_ND, encoder.info.normalize_activations, b_dec_D)
        return self._read[encoder.input_key]

    def rounded(self, encoder: SaeEncoder) -> PrefilterInput | None:
        """Rounded to 8 bits, for the prefilter."""
        if encoder.input_key not in self._rounded:
            self._rounded[encoder.input_key] = prefilter_input(self.read(encoder))
        return self._rounded[encoder.input_key]

    def half(self, encoder: SaeEncoder, dtype: torch.dtype) -> torch.Tensor:
        """In `dtype`, [N, D]."""
        if encoder.input_key not in self._half:
            self._half[encoder.input_key] = self.read(encoder).to(dtype)
        return self._half[encoder.input_key]


class SaeEncoder:
    """One SAE of a bundle on a device.

    Args:
        bundle: The bundle it belongs to.
        info: Which SAE of it.
        device: Where the residual stream is.
        features: Those that are wanted, int64 [C] ascending; None for all of them.

    Raises:
        BundleError: An SAE that this engine does not know.
    """

    def __init__(
        self, bundle: Bundle, info: SaeInfo, device: torch.device | str, features: np.ndarray | None = None
    ) -> None:
        from safetensors.torch import load_file

        whole = features is None or info.k is not None
        with bundle_file(bundle.path / info.file_name):  # on the CPU a map of the file, of which only some is read
            on_gpu = torch.device(device).type == "cuda"  # safetensors knows one CPU only, by no number
            there = str(device) if whole and on_gpu else "cpu"
            weights = SaeWeights.of(load_file(bundle.path / info.file_name, device=there))
            if not whole:
                weights = weights.some(torch.from_numpy(features))
        weights = weights.to(device)
        self._open(info, weights, None, features)

    @classmethod
    def of(
        cls, info: SaeInfo, weights: SaeWeights, route: Route | None = None, features: np.ndarray | None = None
    ) -> SaeEncoder:
        """An encoder of all weights in memory, by the route that suits their device, or by the one given."""
        encoder = cls.__new__(cls)
        cut = features is not None and info.k is None
        encoder._open(info, weights.some(torch.from_numpy(features)) if cut else weights, route, features)
        return encoder

    def _open(self, info: SaeInfo, weights: SaeWeights, route: Route | None, features: np.ndarray | None) -> None:
        check_family(f"SAE {info.name!r}", info.architecture, info.normalize_activations)
        self.features = features
        best: Route = "prefiltered" if can_prefilter() else "plain"
        self.route: Route = route or (best if weights.W_FD.device.type == "cpu" else "device")
        self.info = info
        self.weights = weights
        b_dec = weights.b_dec_D.cpu().numpy().tobytes() if info.apply_b_dec_to_input else b""
        self.input_key = f"{info.normalize_activations} {hashlib.sha256(b_dec).hexdigest()}"
        self._wanted_F: np.ndarray | None = None
        if features is not None and info.k is not None:
            self._wanted_F = np.zeros(info.d_sae, dtype=bool)
            self._wanted_F[features] = True
        self._prefilter = Int8Prefilter(weights) if self.route == "prefiltered" else None
        self._low: torch.Tensor | None = None
        if self.route == "device" and weights.W_FD.dtype != torch.float32:
            self._low = weights.b_dec_D.abs().topk(min(LOW_COLUMNS, info.d_in)).indices
            W_FE = torch.cat([weights.W_FD, weights.W_FD[:, self._low]], dim=1)
            self.weights = SaeWeights.of({**weights.tensors(), "W_enc": W_FE})

    @property
    def n_rows(self) -> int:
        """Features that are multiplied."""
        return len(self.weights.bias_F)

    def device_input(self, inputs: Inputs) -> torch.Tensor:
        """What a device multiplies with its encoder rows: [N, D + L]; the last L columns are what rounding took."""
        if self._low is None:
            return inputs.read(self)
        x_ND, half_ND = inputs.read(self), inputs.half(self, self.weights.W_FD.dtype)
        low_NL = (x_ND[:, self._low] - half_ND[:, self._low].float()).to(half_ND.dtype)
        return torch.cat([half_ND, low_NL], dim=1)

    @torch.inference_mode()
    def active(self, inputs: Inputs, chunk_elements: int = CHUNK_ELEMENTS) -> Iterator[Active]:
        """Active pairs on the CPU, chunk after chunk of ascending features; of top-k all at once.

        Args:
            inputs: A block of tokens; every activation finite.
            chunk_elements: Bound on the tokens x features computed at a time.
        """
        x_ND, rounded = inputs.read(self), inputs.rounded(self) if self._prefilter else None
        n_tokens = len(x_ND)
        width = max(1, min(self.n_rows, chunk_elements // max(1, n_tokens)))
        scratch = _Scratch(torch.empty(width, n_tokens, dtype=torch.int32), np.empty((width, n_tokens), dtype=bool))
        if self.info.k is not None:
            found = self._top_k(self.info.k, x_ND, rounded, scratch)
            yield found if self._wanted_F is None else found.where(self._wanted_F[found.feature])
            return
        assert self.weights.cutoff_F is not None
        cutoff_F, bias_F = self.weights.cutoff_F.numpy(), self.weights.bias_F.numpy()
        for first in range(0, self.n_rows, width):
            features = slice(first, min(first + width, self.n_rows))
            found = self._candidates(x_ND, rounded, features, scratch)
            found = found.where(found.value > cutoff_F[found.feature])
            if self.weights.scale_F is not None:
                found.value[:] *= self.weights.scale_F.numpy()[found.feature]
            found.value[:] += bias_F[found.feature]
            yield found if self.features is None else replace(found, feature=self.features[found.feature])

    def _top_k(self, k: int, x_ND: torch.Tensor, rounded: PrefilterInput | None, scratch: _Scratch) -> Active:
        """The k largest positive pre-activations of each token.

        Only what exceeds the k-th largest so far (the token's level) can be among them. Chunks start narrow and double,
        so that each adds about k pairs to a token, and later ones fewer. Levels are raised once half of `n_tokens * k`
        new pairs have come together.
        """
        n_tokens, d_sae, bias_F = len(x_ND), self.info.d_sae, self.weights.bias_F.numpy()
        level_N = np.zeros(n_tokens, dtype=np.float32)
        best = Active(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        pending: list[Active] = []
        first, width = 0, max(k, FIRST_CHUNK)
        while first < d_sae:
            features = slice(first, min(first + min(width, len(scratch.mask_CN)), d_sae))
            new = self._candidates(x_ND, rounded if first else None, features, scratch, level_N)
            new.value[:] += bias_F[new.feature]
            pending.append(new.where(new.value > level_N[new.token]))
            first = width = features.stop
            if first == d_sae or 2 * sum(len(pairs.value) for pairs in pending) >= n_tokens * k:
                joined = Active.joined([best, *pending])
                kept, level_N = largest_per_token(joined, n_tokens, k)
                best, pending = joined.where(kept), []
                rounded = rounded and rounded.with_level(torch.from_numpy(level_N))
        return best

    def _candidates(
        self,
        x_ND: torch.Tensor,
        rounded: PrefilterInput | None,
        features: slice,
        scratch: _Scratch,
        level_N: np.ndarray | None = None,
    ) -> Active:
        """Pairs of a chunk with r as their value: all that exceed their feature's cutoff or token's level, and more.

        Args:
            x_ND: Inputs.
            rounded: The same rounded for the prefilter, with their level; None takes the plain route.
            features: The chunk.
            scratch: Room for it.
            level_N: For top-k, what a pre-activation must exceed.
        """
        n_features, n_tokens = features.stop - features.start, len(x_ND)
        mask_CN = scratch.mask_CN[:n_features]
        if rounded is not None:
            assert self._prefilter is not None
            surplus_CN = self._prefilter.surplus(rounded, features, scratch.product_CN)
            flat = np.flatnonzero(np.greater(surplus_CN.numpy(), 0, out=mask_CN))
            if len(flat) * DENSE <= mask_CN.size:
                row, token, starts = _places(flat, n_features, n_tokens)
                return Active(row + features.start, token, self._products(x_ND, features, token, starts))
        r_CN = cpu_products.linear(self.weights.W_FD[features].float(), x_ND)
        if self.weights.cutoff_F is not None:
            np.greater(r_CN.numpy(), self.weights.cutoff_F[features, None].numpy(), out=mask_CN)
        else:
            assert level_N is not None
            bias_C1 = self.weights.bias_F[features, None]
            np.greater((r_CN + bias_C1).numpy(), level_N, out=mask_CN)
        flat = np.flatnonzero(mask_CN)
        row, token, _ = _places(flat, n_features, n_tokens)
        return Active(row + features.start, token, r_CN.numpy().reshape(-1)[flat])

    def _products(self, x_ND: torch.Tensor, features: slice, token: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """r of single pairs: one float32 dot product each, so that its rounding depends on no other pair.

        Args:
            x_ND: Inputs.
            features: The chunk.
            token: The pairs' tokens [K], feature after feature.
            starts: Where each feature's begin, [C + 1].
        """
        if not len(token):
            return np.empty(0, dtype=np.float32)
        W_CD = self.weights.W_FD[features]
        touched = np.flatnonzero(np.diff(starts))
        if len(touched) < len(W_CD) // 2:  # of wide SAEs a block touches few rows; else copying them costs more
            W_CD, starts = W_CD[torch.from_numpy(touched)], np.append(starts[touched], len(token))
        pattern_CN = torch.sparse_csr_tensor(
            torch.from_numpy(starts),
            torch.from_numpy(token),
            torch.zeros(len(token)),
            (len(W_CD), len(x_ND)),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pattern_CN, W_CD.float(), x_ND.T, beta=0.0).values().numpy()


@dataclass(frozen=True)
class _Scratch:
    """Memory used again by every chunk: 4 bytes a pair for products (int32, then float32), and a byte for comparing."""

    product_CN: torch.Tensor
    mask_CN: np.ndarray


def largest_per_token(active: Active, n_tokens: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of sorted pairs are among the k largest of their token; of equal ones the lower feature is.

    Returns:
        bool [K], and the k-th largest value of each token, float32 [N] (0 where it has fewer).
    """
    bits = active.value.view(np.int32)  # positive floats are ordered as their bits are
    key = (active.token << 32) | (0x7FFFFFFF - bits)
    key = torch.sort(torch.from_numpy(key)).values.numpy()  # three times as fast as numpy's
    count_N = np.bincount(active.token, minlength=n_tokens)
    full_N = np.flatnonzero(count_N >= k)
    kth_N = np.zeros(n_tokens, dtype=np.float32)
    kth = key[(np.cumsum(count_N) - count_N)[full_N] + k - 1]
    kth_N[full_N] = (0x7FFFFFFF - (kth & 0x7FFFFFFF)).astype(np.int32).view(np.float32)
    kth_K = kth_N[active.token]
    kept = active.value > kth_K
    tied = np.flatnonzero(active.value == kth_K)
    if len(tied) == len(full_N):  # no token has two of its k-th largest
        kept[tied] = True
        return kept, kth_N
    tied = tied[np.argsort(active.token[tied], kind="stable")]
    token = active.token[tied]
    n_tied = np.bincount(token, minlength=n_tokens)
    rank = np.arange(len(tied)) - np.repeat(np.cumsum(n_tied) - n_tied, n_tied)
    room_N = k - np.bincount(active.token[kept], minlength=n_tokens)
    kept[tied[rank < room_N[token]]] = True
    return kept, kth_N


def _places(flat: np.ndarray, n_rows: int, n_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column [K] of ascending places in a [C, N] array, and where each row's begin, [C + 1]."""
    starts = np.searchsorted(flat, np.arange(n_rows + 1) * n_columns)
    row = np.repeat(np.arange(n_rows), np.diff(starts))
    return row, flat - row * n_columns, starts


class SortedPairs(Protocol):
    """Active pairs sorted by feature, then token, on the host or on a device."""

    @property
    def value(self) -> Any:
        """The activations, of some length."""
        ...

    @staticmethod
    def joined(parts: Sequence[Any]) -> Any:
        """Pairs of consecutive chunks."""
        ...


SomePairs = TypeVar("SomePairs", bound=SortedPairs)


def grouped(chunks: Iterable[SomePairs], n_pairs: int) -> Iterator[SomePairs]:
    """The same pairs in groups of `n_pairs` or more, all but the last; none is empty."""
    group: list[SomePairs] = []
    for pairs in chunks:
        if len(pairs.value):
            group.append(pairs)
        if sum(len(part.value) for part in group) >= n_pairs:
            yield pairs.joined(group)
            group = []
    if group:
        yield group[0].joined(group)
