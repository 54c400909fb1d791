"""Say how much memory a worker needs on each of its devices, and what would fit where that is more than there is.

On a GPU these are weights, encoders, what a full batch makes of them, and CUDA itself. On a CPU it is the process:
Python and its libraries, the tokenizer, which takes ten times its file, the pages of the weights that are read
(those of layers whole, of the embedding the rows of tokens that occur), the encoders, a batch and the rows of a unit.
Weights are mapped from files there, so the workers of one node share them. `python -m benchmarks.memory` holds these
figures against what processes take; those for GPUs were held against runs of Gemma 2 on an H200 (docs/performance.md).

Shapes in comments: N tokens of a batch, T of a row, D d_model, M MLP width, H heads, K key/value heads, E head_dim.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.base.number_words import size
from ray_jobs.planning.estimate import typical_nonzeros
from ray_jobs.planning.shapes import shapes_of

if TYPE_CHECKING:
    from ray_jobs.planning.estimate import Estimate
    from ray_jobs.planning.job_plan import JobPlan
    from ray_jobs.planning.shapes import Shapes

PYTHON_BYTES = 410e6
"""Of a worker's process with nothing opened: Python, torch, numpy, pyarrow, as far as a run reads them."""
TRANSFORMERS_BYTES = 120e6
"""Beyond that where transformers' own modules run the layers."""
RAY_BYTES = 80e6
"""Beyond that of a process that Ray started."""
CUDA_BYTES = 0.5e9
"""Of a device: kernels, and workspaces of cuBLAS."""
TOKENIZER_FACTOR = 10.0
"""Bytes in memory for each of tokenizer.json; Gemma's 33 MB take 330 MB, merges and vocabulary as hash tables."""
ENCODING_BYTES = 60e6
"""Of a CPU worker: a chunk of pre-activations and the pairs of a group, whatever the SAE."""
RESULT_COPIES = 3.0
"""Of a unit's rows at the end: pieces, rows put together, columns of Parquet."""
FEWEST_BATCH_TOKENS = 1_024
"""A smaller batch leaves a GPU idle."""
MOST_GPUS = 16
NEW_ROWS = 0.5
"""Exponent by which the rows of the embedding that are read grow with the documents: between none and all new."""


@dataclass(frozen=True)
class DeviceMemory:
    """What a worker needs of one device, in bytes.

    Attributes:
        device: `cpu`, or `cuda:0` and so on.
        layers: The first and the last layer that are there; None where there is none.
        programs: Python, its libraries and the tokenizer; on a GPU what CUDA takes.
        weights: Of the decoder.
        encoders: Of the SAEs.
        batches: What a batch of full size makes of them; on a CPU also the rows of a unit.
        mapped: Of weights and encoders, what is mapped from files: workers of one node share it.
    """

    device: str
    layers: tuple[int, int] | None
    programs: int
    weights: int
    encoders: int
    batches: int
    mapped: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.programs + self.weights + self.encoders + self.batches


@dataclass(frozen=True)
class WorkerMemory:
    """What a worker needs, beside what there is.

    Attributes:
        devices: One entry for each of its devices.
        workers: Workers at once on one such device or node, which have to fit together.
        available: Bytes of the device, or of the node where that is a CPU's; None where it is not known.
        place: Whose memory that is: `this machine`, `one h100`.
    """

    devices: tuple[DeviceMemory, ...]
    workers: int
    available: float | None
    place: str

    @property
    def needed(self) -> int:
        """Bytes of the fullest device, of all workers that are on it."""
        return max(one.total + (self.workers - 1) * (one.total - one.mapped) for one in self.devices)

    @property
    def fits(self) -> bool | None:
        """Whether there is enough; None where it is not known how much there is."""
        return None if self.available is None else self.needed <= self.available


def memory_of(plan: JobPlan, figures: Estimate) -> WorkerMemory:
    """What a worker of a plan needs, beside the memory of the hardware that was priced, or of this machine.

    Raises:
        BundleError: The bundle's weights cannot be read.
    """
    on_gpu = plan.compute.device != "cpu"
    if figures.hardware:
        available, place = figures.memory_gb and figures.memory_gb * 1e9, f"one {figures.hardware}"
    else:
        available, place = device_memory(plan.compute.device), "this machine's GPU" if on_gpu else "this machine"
    gpus = plan.job.workers.gpus or 1.0
    workers = max(1, int(1 / gpus)) if on_gpu else _workers_here(plan)
    return WorkerMemory(devices_of(plan), workers, available or None, place)


def devices_of(plan: JobPlan, ray: bool = True, share: float = 1.0) -> tuple[DeviceMemory, ...]:
    """What a worker needs of each of its devices.

    Args:
        plan: The plan.
        ray: Whether Ray starts it.
        share: Bytes of a weight beside those that it has in the bundle: 0.5 asks for float32 as bfloat16.
    """
    from ray_jobs.backbone.pipeline import layer_bytes, stages

    sizes = layer_bytes(plan.bundle)
    if plan.compute.device == "cpu":
        return (_on_cpu(plan, sum(sizes.layers) * share, sum(sizes.encoders) * share, ray),)
    n_devices = int(plan.settings["devices"])
    placed = stages(sizes, n_devices)
    found = []
    for number in range(n_devices):
        own = [layer for layer, device in enumerate(placed) if device == number]
        n_hooks = sum(hook.layer in own for hook in plan.bundle.hooks)
        weights = sum(sizes.layers[layer] for layer in own) + (0 if number else sizes.embedding)
        found.append(
            DeviceMemory(
                device=f"cuda:{number}",
                layers=(own[0], own[-1]) if own else None,
                programs=int(CUDA_BYTES),
                weights=int(weights * share),
                encoders=int(sum(sizes.encoders[layer] for layer in own) * share),
                batches=int(_batch_tokens(plan) * _gpu_bytes_a_token(plan, n_hooks, share)) if own else 0,
            )
        )
    return tuple(found)


def what_fits(plan: JobPlan, memory: WorkerMemory) -> str:
    """What to do where a worker does not fit: the first of a smaller batch, another dtype and more devices that does.

    Args:
        plan: The plan.
        memory: What its workers need.
    """
    limit = memory.available or math.inf
    (one, *_), on_cpu = memory.devices, plan.compute.device == "cpu"
    for change, other, share in _alternatives(plan):
        workers = memory.workers if on_cpu or other.job is plan.job else 1
        if replace(memory, devices=devices_of(other, share=share), workers=workers).needed <= limit:
            return f"it does with {change}"
        if not on_cpu and 1 <= (room := int(limit // one.total)) < memory.workers:
            return f"it does with workers.gpus: {1 / room:.4g}"
    if on_cpu and 1 <= (room := int((limit - one.mapped) // max(one.total - one.mapped, 1))) < memory.workers:
        return f"it does with workers.max: {room}"
    return "run it on hardware with more, or take fewer layers or narrower SAEs"


def _alternatives(plan: JobPlan) -> Iterator[tuple[str, JobPlan, float]]:
    """Changes to a job that need less memory of a device, the mildest first: the plan that they make, and `share`."""
    job, on_gpu, budget = plan.job, plan.compute.device != "cpu", plan.compute.batch_tokens // 2
    while on_gpu and budget >= FEWEST_BATCH_TOKENS:
        yield f"workers.batch_tokens: {budget}", replace(plan, compute=replace(plan.compute, batch_tokens=budget)), 1.0
        budget //= 2
    if plan.bundle.dtype == "float32":
        yield "model.dtype: bfloat16", plan, 0.5
    gpus = 2
    while on_gpu and gpus <= min(MOST_GPUS, plan.bundle.last_layer + 1):
        if gpus > (job.workers.gpus or 1):
            workers = job.workers.model_copy(update={"gpus": float(gpus)})
            yield f"workers.gpus: {gpus}", replace(plan, job=job.model_copy(update={"workers": workers})), 1.0
        gpus *= 2


def _on_cpu(plan: JobPlan, layers: float, encoders: float, ray: bool) -> DeviceMemory:
    """What a worker's process takes; weights are mapped from their files."""
    from ray_jobs.backbone.bundle import TOKENIZER_NAME
    from ray_jobs.engine.int8_prefilter import can_prefilter

    bundle = plan.bundle
    tokenizer = (bundle.path / TOKENIZER_NAME).stat().st_size
    programs = PYTHON_BYTES + tokenizer * TOKENIZER_FACTOR
    programs += (0 if _is_packed(plan) else TRANSFORMERS_BYTES) + (RAY_BYTES if ray else 0)
    prefilters = sum(sae.d_sae * (sae.d_in + 20) for sae in bundle.saes) if can_prefilter() else 0
    weights = layers + _embedding_read(plan)
    return DeviceMemory(
        device="cpu",
        layers=(0, bundle.last_layer),
        programs=int(programs),
        weights=int(weights),
        encoders=int(encoders + prefilters),
        batches=int(_batch_tokens(plan) * _cpu_bytes_a_token(plan) + ENCODING_BYTES + _rows_of_unit(plan)),
        mapped=int(weights + encoders),
    )


def _embedding_read(plan: JobPlan) -> float:
    """Bytes of the embedding that a corpus reads: the more tokens, the more of them, as words in texts become more.

    Of images the tower is read whole, and of the table of tokens the few rows of a prompt.
    """
    from ray_jobs.backbone.bundle import WEIGHTS_NAME, tensor_header
    from ray_jobs.backbone.pipeline import layer_bytes, layer_of

    if plan.bundle.vision is not None:
        tensors = tensor_header(plan.bundle.path / WEIGHTS_NAME).items()
        return sum(n for name, (_, n) in tensors if layer_of(name) is None and "embed_tokens" not in name)
    whole, sample = layer_bytes(plan.bundle).embedding, plan.sample
    if not sample.embedding_bytes or not sample.documents:
        return whole
    unseen = max(1.0, plan.scan.rows / sample.documents)
    return min(float(whole), sample.embedding_bytes * unseen**NEW_ROWS)


def _rows_of_unit(plan: JobPlan) -> float:
    """Bytes of the sparse rows and hidden states of the largest unit."""
    row = sum(typical_nonzeros(sae, plan.mean_tokens) for sae in plan.bundle.saes) * 4 * (1 + len(plan.job.pool))
    row += sum(8 * width for width in plan.bundle.hooks.values()) * len(plan.job.hidden)
    return RESULT_COPIES * row * max((unit.rows for unit in plan.units), default=0)


def _batch_tokens(plan: JobPlan) -> int:
    """Tokens of the largest batch: the budget, or one row that exceeds it."""
    return max(plan.compute.batch_tokens, _longest(plan))


def _longest(plan: JobPlan) -> int:
    """Tokens of the longest row that is fed, as far as the sample tells."""
    return plan.sample.longest or plan.job.model.max_tokens


def _cpu_bytes_a_token(plan: JobPlan) -> float:
    """Float32 throughout but for what matrices read; the packed layers take the MLP and queries some at a time.

    A tower's patches come before the decoder's tokens and are gone by then; its attention makes no scores.
    """
    of, tower = shapes_of(plan.bundle)
    hooked = 4 * sum(plan.bundle.hooks.values())
    if _is_packed(plan):
        return 4 * 4 * of.D + 2 * 4 * of.E * (of.H + 2 * of.K) + 3 * 4 * 64 * of.H + hooked
    decoder = _modules(of, 4) + 3 * 4 * of.H * _longest(plan)
    return max(decoder, 0 if tower is None else _modules(tower, 4)) + hooked


def _modules(of: Shapes, item: float) -> float:
    """Bytes a token of a layer by transformers' modules: the stream and its sums, the MLP, what attention reads."""
    return item * (6 * of.D + 3 * of.M + 3 * of.E * (of.H + 2 * of.K))


def _gpu_bytes_a_token(plan: JobPlan, n_hooks: int, share: float) -> float:
    """At the MLP, where they are most: the stream in float32, gate, up and their product, two batches' hooks."""
    of, tower = shapes_of(plan.bundle)
    item = (2 if plan.bundle.dtype == "bfloat16" else 4) * share
    scores = 0.0 if _is_packed(plan) else of.H * _longest(plan) * (2 * item + 4)
    decoder = (4 + item) * of.D + 3 * item * of.M + scores
    return max(decoder, 0 if tower is None else _modules(tower, item)) + 2 * 4 * of.D * n_hooks


def _is_packed(plan: JobPlan) -> bool:
    """Whether the packed decoder runs the layers, or transformers' own modules."""
    from ray_jobs.backbone.backbone import SOFTCAP_EXACT
    from ray_jobs.backbone.gemma import MODEL_TYPES

    bundle = plan.bundle
    return bundle.vision is None and bundle.model.model_type in MODEL_TYPES and plan.compute.attn in SOFTCAP_EXACT


def _workers_here(plan: JobPlan) -> int:
    most = plan.job.workers.max or max(1, (os.cpu_count() or 1) // plan.compute.threads)
    return max(1, min(most, len(plan.missing)))


def sentence_of(memory: WorkerMemory) -> str:
    """What a worker needs, in a line or less."""
    if len(memory.devices) > 1:
        each = (
            f"{size(one.total)} on {one.device} "
            + ("(no layer)" if one.layers is None else f"(layers {one.layers[0]} to {one.layers[1]})")
            for one in memory.devices
        )
        return f"about {', '.join(each)}"
    (one,) = memory.devices
    parts = {"weights": one.weights, "encoders": one.encoders, "batches": one.batches, "programs": one.programs}
    return f"about {size(one.total)} a worker ({', '.join(f'{name} {size(n)}' for name, n in parts.items())})"


def host_memory() -> float:
    """What this process may use: its container's limit, where that is less than the machine has; 0 if unknown."""
    try:
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return 0.0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return memory
    return min(memory, float(limit)) if limit.isdecimal() else memory


def device_memory(device: str) -> float:
    """Bytes of this machine's first GPU for `cuda`, of the host for `cpu`; 0 if unknown."""
    if device == "cpu":
        return host_memory()
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0.0
