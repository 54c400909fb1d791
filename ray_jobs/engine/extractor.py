"""Run the whole engine: texts in, sparse rows out. Where memory runs out, batches become smaller.

Texts are tokenised ahead on another thread, cut into windows and packed under a budget of tokens; the model is run once
for all layers; tokens are encoded and pooled, and windows put together. On a GPU a batch is launched before the one
ahead of it is pooled, so the device does not wait for the host.

A document that cannot be processed costs itself only. A batch that fails is halved until the document at fault is
alone; its row carries an error sentence, its neighbours are run again without it. When memory runs out the budget stays
halved. What a row holds does not depend on which texts were beside it, up to the rounding of the GEMMs.

Shapes: B windows of a batch, N counted tokens of a batch, D d_model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from featurestore.base.dense_names import PIXELS, dense_name
from ray_jobs.backbone.backbone import open_backbone
from ray_jobs.backbone.batching import CPU_BATCH_TOKENS, fill_batches
from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.sites import Hook
from ray_jobs.backbone.tokens import Content, ContentTokenizer, Window, token_policy, windows_of
from ray_jobs.engine.encoder import SaeEncoder
from ray_jobs.engine.idleness import IdleClock
from ray_jobs.engine.image_inputs import ImageInputs, Images, small_copy
from ray_jobs.engine.pooling import pool_saes
from ray_jobs.engine.sparse_rows import SparseRows, gather_rows

__all__ = ["ExtractSettings", "ExtractedRows", "Extractor", "SparseRows"]

Progress = Callable[[int, int], None]
_Encoded = Content | tuple[list[Window], bool] | str

FIRST_TEXTS, TEXTS_AHEAD = 256, 4_096
"""Texts tokenised at a time, while those before them are computed; the first are few, so that computing starts soon."""


@dataclass(frozen=True)
class ExtractSettings:
    """How to extract; with the bundle, everything that decides a value.

    Attributes:
        pools: Poolings of every SAE: max, sum, count, last, top{N}.
        hidden: Dense baselines of every hooked layer: mean and last residual stream of the counted tokens.
        tokens: Count the text's own tokens only, or all that are fed; of images theirs, those of the text, or all.
        max_tokens: Positions fed to the model at once, context included.
        long_documents: Cut what does not fit, or read on in overlapping windows.
        stride: Content tokens that a window repeats as context.
        chat: Put the text into the tokenizer's chat template, as a user's message.
        prompt: What is fed behind every image, before its own text.
        pixels: Side of the small copy that is kept of every image; 0 keeps none.
        attn_implementation: `eager`, `flex_attention`, or another name of transformers for models without a soft cap.
        batch_tokens: Tokens of one forward.
        device: torch device.
        devices: Devices of that kind that share the layers; the arithmetic is the same.
        threads: torch threads; 0 leaves the process's own setting alone.
    """

    pools: tuple[str, ...] = ("max", "sum", "count")
    hidden: tuple[str, ...] = ()
    tokens: Literal["content", "all", "image", "text"] = "content"
    max_tokens: int = 1024
    long_documents: Literal["truncate", "windows"] = "truncate"
    stride: int = 0
    chat: bool = False
    prompt: str = ""
    pixels: int = 0
    attn_implementation: str = "eager"
    batch_tokens: int = CPU_BATCH_TOKENS
    device: str = "cpu"
    devices: int = 1
    threads: int = 0


@dataclass(frozen=True)
class ExtractedRows:
    """One row per text, in the order given.

    Attributes:
        n_tokens: Tokens pooled, uint32 [texts].
        truncated: Whether content was left out, bool [texts].
        errors: Why a text has no features, or None.
        saes: SAE name -> sparse rows.
        dense: `resid_post_{layer}__hidden_{mean|last}` -> float32 [texts, D], NaN where no token was pooled; and of
            images `pixels` -> float32 [texts, 3 * side * side].
        idle_seconds: Of the call, in which no batch was under way: waiting for tokens, cutting, putting together.
    """

    n_tokens: np.ndarray
    truncated: np.ndarray
    errors: list[str | None]
    saes: Mapping[str, SparseRows]
    dense: Mapping[str, np.ndarray]
    idle_seconds: float = 0.0


@dataclass(frozen=True)
class _Piece:
    """What is kept of a batch of windows [B]: sparse rows by SAE; float64 sums and last vectors by hook, [B, D]."""

    windows: Sequence[Window]
    saes: Mapping[str, SparseRows]
    sums: Mapping[Hook, np.ndarray]
    lasts: Mapping[Hook, np.ndarray]


@dataclass
class _Call:
    """The state of one call of `extract`: what is known of each document, and what the batches gave."""

    errors: list[str | None]
    truncated: np.ndarray  # bool [documents]
    n_tokens: np.ndarray  # int64 [documents], counted tokens
    n_left: np.ndarray  # int64 [documents], windows not yet run
    small: np.ndarray  # float32 [documents, values], small copies of images
    n_done: int = 0
    n_pooled: int = 0
    pieces: list[_Piece] = field(default_factory=list)

    def sound(self, windows: Sequence[Window]) -> list[Window]:
        """Those windows whose documents have not failed."""
        return [window for window in windows if self.errors[window.document] is None]

    def count(self, windows: Sequence[Window]) -> None:
        """Take note of windows that have been pooled or have failed."""
        for window in windows:
            self.n_left[window.document] -= 1
            self.n_done += int(self.n_left[window.document] == 0)
            self.n_pooled += window.n_pooled


@dataclass
class _Flight:
    """A batch under way: its activations by hook and when they are there on each device, or what launching it raised.

    `apart`: no window in it can spoil another one, so one whose activations are not finite is itself at fault.
    """

    windows: Sequence[Window]
    apart: bool
    residuals: dict[Hook, torch.Tensor] = field(default_factory=dict)
    done: Sequence[torch.cuda.Event] = ()
    error: Exception | None = None


class Extractor:
    """The engine, loaded once and used for any number of units.

    Args:
        bundle: A prepared bundle.
        settings: How to extract.
        features: SAE name -> the features wanted of it, int64 [C] ascending; other SAEs, and hooks that nobody asks
            for, are left out. Everything if not given.

    Raises:
        BundleError: The bundle does not load.
        JobSpecError: The settings do not fit the bundle's model or tokenizer.
    """

    def __init__(
        self, bundle: Bundle, settings: ExtractSettings, features: Mapping[str, np.ndarray] | None = None
    ) -> None:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        wanted_of = features or {}
        if features is not None:
            bundle = replace(bundle, saes=tuple(info for info in bundle.saes if info.name in features))
        self.bundle = bundle
        self.settings = settings
        self.images: ImageInputs | None = None
        if bundle.vision is not None:
            self.images, head = ImageInputs(bundle, settings), np.empty(0, dtype=np.int32)
        else:
            self.policy = token_policy(bundle, settings)
            self.tokenizer = ContentTokenizer(bundle, settings.chat)
            head = self.policy.shared
        self.backbone = open_backbone(bundle, settings.device, settings.attn_implementation, head, settings.devices)
        self.encoders = {
            hook: tuple(
                SaeEncoder(bundle, info, self.backbone.placement.of(hook.layer), wanted_of.get(info.name))
                for info in bundle.saes
                if info.hook == hook
            )
            for hook in bundle.hooks
        }
        self.batch_tokens = max(1, settings.batch_tokens)
        wanted = {*settings.pools, *(f"hidden {kind}" for kind in settings.hidden)}
        self._only_last = wanted <= {"last", "hidden last"}
        devices = self.backbone.placement.devices
        self._pool_streams = [torch.cuda.Stream(where) for where in devices if where.type == "cuda"]

    def extract(
        self,
        texts: Sequence[str | None],
        errors: Sequence[str | None] | None = None,
        on_progress: Progress | None = None,
        images: Images | None = None,
    ) -> ExtractedRows:
        """Extract the features of texts, or of images.

        Args:
            texts: The documents; None (without an error of its own) gets one. Of images, what is fed behind each.
            errors: Errors that are known already; those texts are passed through as rows without features.
            on_progress: Called after every batch with the documents and pooled tokens done so far in this call.
            images: The images, where the bundle was prepared for them; each is asked for once, ahead of the device.

        Returns:
            One row per text. The same texts in the same order give the same bytes.
        """
        if (images is None) != (self.images is None) or (images is not None and len(images) != len(texts)):
            raise ValueError("a bundle of images takes as many images as texts, and another one none")
        known = errors if errors is not None else [None] * len(texts)
        call = _Call(
            errors=[
                e or ("the document has no text" if t is None else None) for t, e in zip(texts, known, strict=True)
            ],
            truncated=np.zeros(len(texts), dtype=bool),
            n_tokens=np.zeros(len(texts), dtype=np.int64),
            n_left=np.zeros(len(texts), dtype=np.int64),
            small=np.full((len(texts), 3 * self.settings.pixels**2), np.nan, dtype=np.float32),
        )
        call.n_done = sum(error is not None for error in call.errors)
        flights: deque[tuple[Sequence[Window], _Flight]] = deque()
        clock = IdleClock()

        def land() -> None:
            batch, flight = flights.popleft()
            self._land(flight, call)
            if not flights:
                clock.idle()
            call.count(batch)
            if on_progress is not None:
                on_progress(call.n_done, call.n_pooled)

        for batch in fill_batches(self._lots(texts, images, call), lambda: self.batch_tokens):
            clock.busy()
            flights.append((batch, self._launch(call.sound(batch))))
            if len(flights) > bool(self._pool_streams):
                land()
        while flights:
            land()
        rows = self._assembled(call)
        clock.busy()
        return replace(rows, idle_seconds=clock.seconds)

    def _lots(self, texts: Sequence[str | None], images: Images | None, call: _Call) -> Iterator[list[Window]]:
        """The windows of the texts, some texts at a time, which are tokenised while those before them are computed."""
        numbers = [number for number, error in enumerate(call.errors) if error is None]
        first, size = (FIRST_TEXTS, TEXTS_AHEAD) if self.images is None else (self.images.lot,) * 2
        starts = [0, *range(first, len(numbers), size)]
        lots = [numbers[start:stop] for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True)]
        with ThreadPoolExecutor(1, "tokenise") as ahead:
            pending = ahead.submit(self._encoded, texts, images, lots[0])
            for lot, following in zip(lots, [*lots[1:], []], strict=True):
                contents, pending = pending.result(), ahead.submit(self._encoded, texts, images, following)
                yield self._windows(lot, contents, call)

    def _encoded(self, texts: Sequence[str | None], images: Images | None, numbers: Sequence[int]) -> list[_Encoded]:
        if self.images is not None and images is not None:
            return [*self.images.encode(texts, images, numbers)]
        return [*self.tokenizer.encode([text for number in numbers if (text := texts[number]) is not None])]

    def _windows(self, numbers: Sequence[int], contents: Sequence[_Encoded], call: _Call) -> list[Window]:
        found: list[Window] = []
        for number, content in zip(numbers, contents, strict=True):
            if isinstance(content, str):
                call.errors[number] = content
                call.n_done += 1
                continue
            made = content if isinstance(content, tuple) else windows_of(number, content, self.policy)
            windows, call.truncated[number] = made
            for window in windows if self.settings.pixels else ():
                assert window.pixels is not None
                call.small[number] = small_copy(window.pixels, self.settings.pixels)
            call.n_tokens[number] = sum(window.n_pooled for window in windows)
            kept = windows[-1:] if self._only_last else windows
            call.n_left[number] = len(kept)
            call.n_done += not kept
            found += kept
        return found

    def _launch(self, windows: Sequence[Window], apart: bool = False) -> _Flight:
        """Start a batch; what it raises is dealt with when it lands, after the batches before it."""
        apart = apart or self.backbone.apart is None
        if not windows:
            return _Flight(windows, apart)
        try:
            residuals = self.backbone.forward(windows, self.batch_tokens)
            done = [torch.cuda.current_stream(stream.device).record_event() for stream in self._pool_streams]
            return _Flight(windows, apart, residuals, done)
        except torch.AcceleratorError:  # the device is gone for this process: no document's fault
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it must cost one document only)
            return _Flight(windows, apart, error=_without_frames(error))

    def _land(self, flight: _Flight, call: _Call) -> None:
        """Pool a batch; if it failed, run its halves, down to the window whose document is at fault.

        Windows whose activations are not finite may have been spoilt by another one: they are run again, apart.
        """
        error, spoilt = flight.error, list[Window]()
        if error is None and flight.windows:
            try:
                piece, spoilt = self._pooled(flight, call)
                call.pieces.append(piece)
            except torch.AcceleratorError:
                raise
            except Exception as raised:  # noqa: BLE001 (as above)
                error = _without_frames(raised)
        flight.residuals.clear()
        if error is not None:
            self._halve(flight, error, call)
        if spoilt:
            assert self.backbone.apart is not None
            for windows in self.backbone.apart(spoilt, lambda: self.batch_tokens):
                self._land(self._launch(call.sound(windows), apart=True), call)

    def _halve(self, flight: _Flight, error: Exception, call: _Call) -> None:
        windows = flight.windows
        out_of_memory = _is_out_of_memory(error)
        n_tokens = sum(window.cost for window in windows)
        filled_up = self.backbone.fills and n_tokens < self.batch_tokens
        if len(windows) == 1 and not (out_of_memory and filled_up):
            failed = windows[0].document
            call.errors[failed] = call.errors[failed] or _blame(windows[0], error, out_of_memory)
            return
        if out_of_memory:
            if self.backbone.device.type == "cuda":
                torch.cuda.empty_cache()
            fewer = (self.batch_tokens if filled_up else n_tokens) // 2
            least = n_tokens if len(windows) == 1 else 1  # alone in a batch that was padded: a shorter one may do
            self.batch_tokens = max(least, min(self.batch_tokens, fewer))
        middle = (len(windows) + 1) // 2
        for half in (windows[:middle], windows[middle:]):
            if half:
                self._land(self._launch(call.sound(half), flight.apart), call)

    def _pooled(self, flight: _Flight, call: _Call) -> tuple[_Piece, list[Window]]:
        """Encode and pool a batch, but for windows with activations that are not finite.

        Returns:
            What was pooled, and windows that another one may have spoilt. Of a batch that was run apart there are none:
            its windows that are not finite have failed their documents.
        """
        with torch.inference_mode(), ExitStack() as streams:
            for stream, done in zip(self._pool_streams, flight.done, strict=True):
                streams.enter_context(torch.cuda.stream(stream))
                stream.wait_event(done)
                for x_ND in flight.residuals.values():
                    if x_ND.device == stream.device:
                        x_ND.record_stream(stream)
            return self._pool(flight, call)

    def _pool(self, flight: _Flight, call: _Call) -> tuple[_Piece, list[Window]]:
        windows, residuals = list(flight.windows), dict(flight.residuals)
        lengths = np.array([window.n_pooled for window in windows], dtype=np.int64)
        spoilt: list[Window] = []
        sound_B = np.ones(len(windows), dtype=bool)
        for hook, x_ND in residuals.items():
            finite_B = np.logical_and.reduceat(x_ND.isfinite().all(dim=1).cpu().numpy(), np.cumsum(lengths) - lengths)
            for number in np.flatnonzero(~finite_B & sound_B):
                failed = windows[number].document
                if flight.apart:
                    reason = f"the model's activations at {hook} are not finite"
                    call.errors[failed] = call.errors[failed] or reason
                else:
                    spoilt.append(windows[number])
            sound_B &= finite_B
        sound_B &= np.array([call.errors[window.document] is None for window in windows])
        if not sound_B.all():
            rows_N = torch.from_numpy(np.flatnonzero(np.repeat(sound_B, lengths)))
            residuals = {hook: x_ND[rows_N.to(x_ND.device)] for hook, x_ND in residuals.items()}
            windows = [window for window, sound in zip(windows, sound_B, strict=True) if sound]
            lengths = lengths[sound_B]
        if not windows:
            return _Piece([], {}, {}, {}), spoilt
        saes: dict[str, SparseRows] = {}
        sums: dict[Hook, np.ndarray] = {}
        lasts: dict[Hook, np.ndarray] = {}
        for hook, x_ND in residuals.items():
            ends_B = torch.from_numpy(np.cumsum(lengths) - 1).to(x_ND.device)
            if "mean" in self.settings.hidden:
                lengths_B = torch.from_numpy(lengths).to(x_ND.device)
                sums[hook] = torch.segment_reduce(x_ND.double(), "sum", lengths=lengths_B, axis=0).cpu().numpy()
            if "last" in self.settings.hidden:
                lasts[hook] = x_ND[ends_B].cpu().numpy()
            if self.settings.pools == ("last",):
                saes |= pool_saes(self.encoders[hook], x_ND[ends_B], np.ones_like(lengths), self.settings.pools)
            else:
                saes |= pool_saes(self.encoders[hook], x_ND, lengths, self.settings.pools)
        done = [window if window.pixels is None else replace(window, pixels=None) for window in windows]
        return _Piece(done, saes, sums, lasts), spoilt

    def _assembled(self, call: _Call) -> ExtractedRows:
        n_documents, pools = len(call.errors), self.settings.pools
        pieces = [piece for piece in call.pieces if piece.windows]
        windows = [window for piece in pieces for window in piece.windows]
        document = np.array([window.document for window in windows], dtype=np.int64)
        place = np.array([window.place for window in windows], dtype=np.int64)

        def gather() -> dict[str, SparseRows]:
            failed = np.array([error is not None for error in call.errors], dtype=bool)
            kept = np.where(failed[document], -1, document)
            return {
                sae.name: gather_rows([piece.saes[sae.name] for piece in pieces], kept, place, n_documents, pools)
                for sae in self.bundle.saes
            }

        saes = gather()
        if _blame_overflow(saes, call.errors):
            saes = gather()
        failed = np.array([error is not None for error in call.errors], dtype=bool)
        call.n_tokens[failed] = 0
        return ExtractedRows(
            n_tokens=call.n_tokens.astype(np.uint32),
            truncated=call.truncated & ~failed,
            errors=call.errors,
            saes=saes,
            dense=self._dense(pieces, document, place, call),
        )

    def _dense(
        self, pieces: Sequence[_Piece], document: np.ndarray, place: np.ndarray, call: _Call
    ) -> dict[str, np.ndarray]:
        """Mean and last activations of the documents at each hook [documents, D]; NaN where nothing was pooled."""
        dense: dict[str, np.ndarray] = {}
        n_tokens = call.n_tokens
        order = np.lexsort((place, document))  # of each document the last window comes last

        for hook, width in self.bundle.hooks.items():

            def by_document(kept: Sequence[np.ndarray], width: int = width) -> np.ndarray:
                return np.concatenate([np.empty((0, width)), *kept])[order]

            for kind in self.settings.hidden:
                rows = np.zeros((len(n_tokens), width))
                if kind == "last":
                    rows[document[order]] = by_document([piece.lasts[hook] for piece in pieces])
                else:
                    np.add.at(rows, document[order], by_document([piece.sums[hook] for piece in pieces]))
                    rows /= np.maximum(n_tokens, 1)[:, None]
                rows[n_tokens == 0] = np.nan
                dense[dense_name(hook.name, kind)] = rows.astype(np.float32)
        if self.settings.pixels:
            dense[PIXELS] = np.where((n_tokens == 0)[:, None], np.float32(np.nan), call.small)
        return dense


def _without_frames(error: Exception) -> Exception:
    """The exception without its stack frames, which would keep the tensors of a failed batch in memory."""
    seen: set[int] = set()
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            links += [link.__cause__, link.__context__]
    return error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _blame(window: Window, error: Exception, out_of_memory: bool) -> str:
    if out_of_memory:
        return (
            f"memory ran out on this document alone ({len(window.ids)} tokens at once); "
            "lower model.max_tokens, with long_documents: windows to lose none of it"
        )
    reason = " ".join(str(error).split())[:200]
    return f"the model failed on this document: {type(error).__name__}: {reason}"


def _blame_overflow(saes: Mapping[str, SparseRows], errors: list[str | None]) -> bool:
    """Fail documents with pooled values beyond float32; whether there were any."""
    found = False
    for name, rows in saes.items():
        for values in rows.values.values():
            for place in np.flatnonzero(~np.isfinite(values)):
                number = int(np.searchsorted(rows.indptr, place, side="right")) - 1
                errors[number] = errors[number] or f"features of SAE {name} are beyond the range of float32"
                found = True
    return found
