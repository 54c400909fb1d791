"""What each step from the naive pipeline to the engine is worth on a GPU: one table for each model, in one call.

    python -m benchmarks.gpu [--models 2b,9b] [--json] [--record]      # one GPU with 80 GB
    python -m benchmarks.gpu --ways engine --profile                    # one way, and where its time goes, by kernel
    python -m benchmarks.gpu --tiny                                     # small shapes, also on a CPU: does it run?

Gemma 2 2B and 9B in their true shapes with random weights, JumpReLU SAEs that fire 80 features a token, documents of
log-normal lengths (`gpu_setup`). No network, no Ray, no sae-lens. From documents to max, sum and count on the host:

    (i)    the whole model with hidden states, padded batches, SAE in float32, dense pooling
    (ii)   the model ends at the hook
    (iii)  SAE in bfloat16
    (iv)   packed rows: the engine's backbone, its attention compiled, its layers not
    (v)    layers compiled too; then the engine as it ships: chunks, pairs pooled on the device, launch ahead

and, for the SAE half alone, (vi) the engine's chunks beside a fused Triton kernel (`gpu_kernel`). A way that fails says
why in its row and costs no other row. Rates count the documents' own tokens; operations are those that such a token
cannot do without (`limit.token_cost`); the machine's limit is the best bfloat16 product measured here.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_setup, limit, machine, report
from benchmarks.gpu_setup import CASES, TINY, Case, Document
from benchmarks.gpu_ways import (
    POOLS,
    DensePool,
    Engine,
    Packed,
    Transformers,
    Way,
    layers_uncompiled,
    open_engine,
    residuals,
    truncate,
)
from featurestore.errors import JobFailed
from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.sae_families import SaeWeights
from ray_jobs.engine.device_pooling import pool_on_device
from ray_jobs.engine.encoder import Inputs, SaeEncoder
from ray_jobs.engine.extractor import Extractor

MEDIAN, SIGMA = 180.0, 0.8
"""Of document lengths in tokens: news and comments, with a tail of long ones."""
SQUARE = 8_192
SAE_REPEATS = 5
WAYS = ("i", "ii", "iii", "iv", "v", "engine", "vi")
COLUMNS = ("tokens/s", "step", "of limit", "idle", "fed", "GB", "recompiled", "warm-up", "overlap")


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        documents: At hand; a way runs as many as its time allows.
        max_tokens: Positions of a document.
        batch_tokens: The engine's budget.
        seconds: Of one timed run of a way, about.
        square: Of the matrix product that is the limit.
    """

    documents: int
    max_tokens: int
    batch_tokens: int
    seconds: float
    square: int


FULL = Scale(20_000, 1_024, 16_384, 8.0, SQUARE)
SMALL = Scale(48, 64, 256, 0.5, 256)


@dataclass(frozen=True)
class Measured:
    """One way's figures.

    Attributes:
        tokens_per_second: Content tokens; the better of two runs.
        fed_per_content: Positions that went through the model for each content token.
        operations_share: Of the measured rate of matrix products, in operations that content tokens need.
        idle_share: Of the time from first to last kernel, without any kernel; None without a GPU.
        peak_bytes: Of the device's memory; None without a GPU.
        recompiled: Graphs compiled after the warm-up.
        warm_up_seconds: Of the first run, compiling included.
        agreement: Mean Jaccard index of the documents' features with those of (iii), or, for a further width and where
            (iii) did not run, of (iv); None where neither ran.
        error: Why there are no figures.
    """

    tokens_per_second: float | None = None
    fed_per_content: float | None = None
    operations_share: float | None = None
    idle_share: float | None = None
    peak_bytes: int | None = None
    recompiled: int | None = None
    warm_up_seconds: float | None = None
    agreement: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class SaeMeasured:
    """Encoding and pooling of one batch at hand.

    Attributes:
        milliseconds: Median of the runs, until the rows are on the host.
        operations_share: Of the measured rate of matrix products.
        agreement: Mean Jaccard index of the documents' features with those of the chunks.
        error: Why there are no figures.
    """

    milliseconds: float | None = None
    operations_share: float | None = None
    agreement: float | None = None
    error: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and on request record."""
    args = _parser().parse_args(argv)
    cuda = torch.cuda.is_available()
    if not cuda and not args.tiny:
        print("error: no GPU here; --tiny runs small shapes on the CPU", file=sys.stderr)
        return 2
    names = args.models.split(",")
    cases, scale = (TINY, SMALL) if args.tiny else (CASES, FULL)
    scale = replace(scale, seconds=args.seconds or scale.seconds)
    if args.widths:
        cases = {name: replace(case, widths=args.widths) for name, case in cases.items()}
    if unknown := [name for name in names if name not in cases]:
        print(f"error: --models: no {unknown[0]!r}; there are {', '.join(cases)}", file=sys.stderr)
        return 2
    if unknown := [way for way in args.ways if way not in WAYS]:
        print(f"error: --ways: no {unknown[0]!r}; there are {', '.join(WAYS)}", file=sys.stderr)
        return 2
    device = "cuda" if cuda else "cpu"
    torch.set_float32_matmul_precision("highest")
    described = {**machine.describe(), "device": device_name(device)}
    rate = product_rate(device, scale.square)
    _say(f"{described['device']}: {rate / 1e12:.4g} T operations a second in bfloat16 products")
    tables = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="gpu-bench-", dir=args.work) as folder:
            tables[name] = measure_case(Path(folder), name, cases[name], scale, device, rate, args.ways, args.profile)
        _say(shown(name, tables[name]))
    figures = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": described,
        "product_rate": rate,
        "models": tables,
    }
    if args.record:
        print(report.record("gpu", figures, described), file=sys.stderr)
    if args.json:
        print(json.dumps(figures, indent=1, default=report.plain))
    return 0


def measure_case(
    folder: Path,
    name: str,
    case: Case,
    scale: Scale,
    device: str,
    rate: float,
    wanted: Sequence[str],
    profile: bool,
) -> dict[str, Any]:
    """The ways of one model.

    Args:
        folder: For bundles.
        name: Of the case.
        case: Model and SAEs.
        scale: How much to run.
        device: Where.
        rate: Operations a second of matrix products there.
        wanted: Which ways, of `WAYS`.
        profile: Whether to say where each one's time goes.

    Returns:
        `saes`: per width mean L0, ways and the SAE half; `seconds` that all of it took.
    """
    start = time.perf_counter()
    documents = gpu_setup.documents(scale.documents, MEDIAN, SIGMA, scale.max_tokens, case.vocab_size)
    measure = _Measure(case, scale, device, rate, documents, profile)
    bundles, padded = _padded_ways(folder, name, case, measure, wanted)
    tables: dict[int, dict[str, Any]] = {}
    for width, (bundle, l0) in bundles.items():
        measure.width = width

        def engine(bundle: Bundle = bundle) -> Extractor:
            return open_engine(bundle, device, scale.max_tokens, scale.batch_tokens)

        def packed(bundle: Bundle = bundle, engine: Callable[[], Extractor] = engine) -> Packed:
            return Packed(engine(), DensePool(_weights(bundle), device, torch.bfloat16))

        ways = padded if not tables else {}
        if not ways:
            measure.reference = {}
        if "iv" in wanted:
            ways["(iv) + packed"] = measure.way(packed, layers_uncompiled(), reference=not measure.reference)
        if "v" in wanted:
            ways["(v) + compiled"] = measure.way(packed)
        if "engine" in wanted:
            ways["engine"] = measure.way(lambda engine=engine: Engine(engine()))
        halves = measure.sae_half(engine) if "vi" in wanted else {}
        tables[width] = {"l0": l0, "ways": ways, "sae_half": halves}
    return {"saes": tables, "seconds": time.perf_counter() - start}


def _padded_ways(
    folder: Path, name: str, case: Case, measure: _Measure, wanted: Sequence[str]
) -> tuple[dict[int, tuple[Bundle, float]], dict[str, Measured]]:
    """Writes the bundles from transformers' model, and measures that model's ways; with the return it is gone."""
    start = time.perf_counter()
    device = measure.device
    model = gpu_setup.random_model(case, device)
    bundles = gpu_setup.write_bundles(
        folder, name, case, model, sampled_residual(model, case, measure.documents), device
    )
    _say(f"{name}: weights, SAEs and bundles in {time.perf_counter() - start:.0f} s")
    weights = _weights(bundles[case.widths[0]][0])

    def way(dtype: torch.dtype, whole: bool) -> Transformers:
        return Transformers(model, case.layer, DensePool(weights, device, dtype), whole)

    ways = {}
    if "i" in wanted:
        ways["(i) naive"] = measure.way(lambda: way(torch.float32, whole=True))
    truncate(model, case.layer)
    if "ii" in wanted:
        ways["(ii) + truncated"] = measure.way(lambda: way(torch.float32, whole=False))
    if "iii" in wanted:
        ways["(iii) + SAE bf16"] = measure.way(lambda: way(torch.bfloat16, whole=False), reference=True)
    return bundles, ways


class _Measure:
    """Runs ways and keeps what they share.

    Attributes:
        device: Where ways run.
        documents: For all of them.
        width: Of the SAE at hand.
        reference: Number of a document -> features that the reference way found.
    """

    def __init__(
        self, case: Case, scale: Scale, device: str, rate: float, documents: Sequence[Document], profile: bool
    ) -> None:
        self._case, self._scale, self._rate, self._profile = case, scale, rate, profile
        self.device, self.documents = device, documents
        self._config = gpu_setup.plain_config(case)
        self.width = case.widths[0]
        self.reference: dict[int, np.ndarray] = {}

    def way(self, build: Callable[[], Way], around: Any = None, reference: bool = False) -> Measured:
        """Figures of one way; whatever it raises becomes its row's error."""
        self._free()
        if reference:
            self.reference = {}
        try:
            with around or nullcontext():
                way = build()
                measured = self._way(way, reference)
        except Exception as error:  # noqa: BLE001 (it becomes the row's error)
            measured = Measured(error=first_line(error))
        _say(f"  {measured}")
        return measured

    def _way(self, way: Way, reference: bool) -> Measured:
        few = self.documents[: way.fewest]
        start = time.perf_counter()
        found = way.run(few)
        self._synchronise()
        warm_up = time.perf_counter() - start
        once = self._timed(way, few)[0]
        graphs = _graphs()
        n_documents = min(len(self.documents), max(way.fewest, round(way.fewest * self._scale.seconds / once)))
        documents = self.documents[:n_documents]
        n_tokens = sum(len(document.ids) for document in documents)
        seconds = min(self._timed(way, documents)[0] for _ in range(2))
        fed = way.positions / n_tokens
        recompiled = _graphs() - graphs
        idle = idle_share(lambda: way.run(few), self._profile) if self.device == "cuda" else None
        if reference:
            self.reference = dict(enumerate(found))
        return Measured(
            tokens_per_second=n_tokens / seconds,
            fed_per_content=fed,
            operations_share=self._operations(documents) / seconds / self._rate,
            idle_share=idle,
            peak_bytes=torch.cuda.max_memory_allocated() if self.device == "cuda" else None,
            recompiled=recompiled,
            warm_up_seconds=warm_up,
            agreement=self._agreement(found),
        )

    def sae_half(self, build: Callable[[], Extractor]) -> dict[str, SaeMeasured]:
        """The engine's chunks, and the fused kernel at every tiling, on the residual stream of one batch."""
        self._free()
        try:
            extractor = build()
            few = self.documents[: max(8, self._scale.batch_tokens // 64)]
            with torch.inference_mode():
                batch, x_ND = next(iter(residuals(extractor, few)))
            ((encoder,),) = extractor.encoders.values()
        except Exception as error:  # noqa: BLE001 (it becomes the row's error)
            return {"chunks": SaeMeasured(error=first_line(error))}
        lengths = np.array([window.n_pooled for window in batch], dtype=np.int64)

        def features(rows: Any) -> list[np.ndarray]:
            return np.split(rows.indices.astype(np.int64), rows.indptr[1:-1])

        expected: list[np.ndarray] = []
        measured: dict[str, SaeMeasured] = {}
        for name, call in self._halves(encoder, x_ND, lengths).items():
            try:
                with torch.inference_mode():
                    found = features(call())
                    seconds = float(np.median([self._clocked(call)[0] for _ in range(SAE_REPEATS)]))
                expected = expected or found
                operations = 2.0 * len(x_ND) * x_ND.shape[1] * self.width
                measured[name] = SaeMeasured(
                    1000 * seconds, operations / seconds / self._rate, report.mean_jaccard(expected, found)
                )
            except Exception as error:  # noqa: BLE001 (it becomes the row's error)
                measured[name] = SaeMeasured(error=first_line(error))
            _say(f"  SAE half, {name}: {measured[name]}")
        return measured

    def _halves(self, encoder: SaeEncoder, x_ND: torch.Tensor, lengths: np.ndarray) -> dict[str, Callable[[], Any]]:
        halves: dict[str, Callable[[], Any]] = {
            "chunks": lambda: pool_on_device(encoder, Inputs(x_ND), lengths, POOLS),
        }
        try:
            from benchmarks import gpu_kernel
        except ImportError:
            return halves
        tilings = gpu_kernel.TILINGS if self.device == "cuda" else gpu_kernel.SMALL
        for tiling in tilings:
            name = f"fused {tiling.tokens}x{tiling.features}x{tiling.inputs}, {tiling.warps} warps"
            halves[name] = lambda tiling=tiling: gpu_kernel.fused_rows(encoder, x_ND, lengths, tiling)
        return halves

    def _timed(self, way: Way, documents: Sequence[Document]) -> tuple[float, Any]:
        return self._clocked(lambda: way.run(documents))

    def _clocked(self, call: Callable[[], Any]) -> tuple[float, Any]:
        self._synchronise()
        start = time.perf_counter()
        result = call()
        self._synchronise()
        return time.perf_counter() - start, result

    def _synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _free(self) -> None:
        gc.collect()
        torch._dynamo.reset()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _operations(self, documents: Sequence[Document]) -> float:
        lengths = [len(document.ids) for document in documents]
        cost = limit.token_cost(self._config, [(self._case.layer, self.width)], lengths)
        return cost.total * sum(lengths)

    def _agreement(self, found: Sequence[np.ndarray]) -> float | None:
        if not self.reference:
            return None
        both = range(min(len(self.reference), len(found)))
        return report.mean_jaccard([self.reference[number] for number in both], [found[number] for number in both])


def product_rate(device: str, square: int) -> float:
    """Operations a second of the best of ten square products in bfloat16."""
    x, y = (torch.randn(square, square, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(x, y)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * square**3 / best


def idle_share(call: Callable[[], Any], show: bool = False) -> float:
    """Share of the time between the first kernel's start and the last one's end in which none ran.

    Args:
        call: What launches kernels.
        show: Whether to print the kernels that took longest.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    if show:
        _say(profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=90))
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    return gaps(spans)


def gaps(spans: Sequence[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that no span covers.

    Raises:
        JobFailed: There are no spans.
    """
    if not spans:
        raise JobFailed("the profiler saw no kernel on the device")
    reached = list(np.maximum.accumulate([end for _, end in spans]))
    starts = [start for start, _ in spans]
    idle = sum(max(0.0, start - end) for end, start in zip(reached, starts[1:], strict=False))
    return float(idle / max(reached[-1] - starts[0], 1e-9))


def shown(name: str, table: dict[str, Any]) -> str:
    """One model's figures for people."""
    blocks = []
    for width, figures in table["saes"].items():
        lines: list[tuple[str, ...]] = [(f"{name}, {width:,} features, L0 {figures['l0']:.0f}", *COLUMNS)]
        before: float | None = None
        for way, row in figures["ways"].items():
            if row.error is not None:
                lines.append((f"{way}: {row.error}"[:100], *[""] * 9))
                continue
            lines.append(
                (
                    way,
                    f"{row.tokens_per_second:,.0f}",
                    "" if before is None else f"{row.tokens_per_second / before:.2f} x",
                    f"{row.operations_share:.1%}",
                    _form(row.idle_share, "{:.1%}"),
                    f"{row.fed_per_content:.2f}",
                    _form(row.peak_bytes and row.peak_bytes / 1e9, "{:.1f}"),
                    str(row.recompiled),
                    f"{row.warm_up_seconds:.1f} s",
                    _form(row.agreement, "{:.3f}"),
                )
            )
            before = row.tokens_per_second
        halves: list[tuple[str, ...]] = [("(vi) SAE half of one batch", "ms", "of limit", "overlap")]
        for half, one in figures["sae_half"].items():
            halves.append(
                (f"{half}: {one.error}"[:100], "", "", "")
                if one.error is not None
                else (half, f"{one.milliseconds:.2f}", f"{one.operations_share:.1%}", _form(one.agreement, "{:.3f}"))
            )
        blocks += [report.aligned(lines), report.aligned(halves)]
    return "\n\n".join(blocks)


def _weights(bundle: Bundle) -> SaeWeights:
    return SaeEncoder(bundle, bundle.saes[0], "cpu").weights


def sampled_residual(model: Any, case: Case, documents: Sequence[Document]) -> torch.Tensor:
    """The residual stream of some documents' content tokens at the hook, float32 [N, D], by transformers."""
    parts: list[torch.Tensor] = []

    def keep(x_ND: torch.Tensor) -> None:
        parts.append(x_ND.float())

    way = Transformers(model, case.layer, keep, whole=False)
    way.run(gpu_setup.sample(documents, gpu_setup.SAMPLE_TOKENS))
    return torch.cat(parts)


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"].get("unique_graphs", 0))


def device_name(device: str) -> str:
    """What a record calls the device: `CPU`, or the GPU with its capability and CUDA's version."""
    if device == "cpu":
        return "CPU"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (sm_{major}{minor}, CUDA {torch.version.cuda})"


def _form(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def first_line(error: Exception) -> str:
    """An exception as a row of a table can show it."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="2b,9b", help="which (default: %(default)s)")
    parser.add_argument(
        "--ways",
        type=lambda text: tuple(text.split(",")),
        default=WAYS,
        metavar="i,ii,...",
        help=f"which of {', '.join(WAYS)} (default: all)",
    )
    parser.add_argument(
        "--widths",
        type=lambda text: tuple(int(number) for number in text.split(",")),
        metavar="16384,...",
        help="features of the SAEs (default: those of each model)",
    )
    parser.add_argument("--seconds", type=float, help="of each timed run (default: 8)")
    parser.add_argument("--profile", action="store_true", help="print the kernels that take longest in each way")
    parser.add_argument("--tiny", action="store_true", help="small shapes and little text; runs on a CPU too")
    parser.add_argument("--work", type=Path, help="where bundles lie for as long as it runs (12 GB for 9b)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/gpu-*.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
