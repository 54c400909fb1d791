"""Settle how a job computes where it leaves that open: device, precision, threads, tokens of a batch, attention.

What JOB.yaml leaves open is chosen once, from the hardware, when a store is created. From then on the store says it, so
that a run resumed on another machine, or with another number of workers, goes on writing the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.spec import JobSpec

GPU_THREADS = 2  # beside a GPU the CPU only tokenises and writes; more would starve small nodes' other actors
CPU_THREADS = 1  # workers scale what is not GEMM too: 2 x 1 thread 1,340 tokens/s, 1 x 2 threads 850 (270M, 2 cores)


@dataclass(frozen=True)
class Compute:
    """How a job computes, all of it settled.

    Attributes:
        device: `cpu` or `cuda`.
        dtype: `bfloat16` or `float32`.
        threads: torch threads of a worker.
        batch_tokens: Positions of one forward.
        attn: Attention implementation; empty until the model is known.
    """

    device: str
    dtype: str
    threads: int
    batch_tokens: int
    attn: str


def settle(job: JobSpec, stored: Mapping[str, Any] | None, device: str | None = None) -> Compute:
    """Decide what the job leaves open.

    Args:
        job: What the user fixed wins.
        stored: The identity of the store that the job writes to, if it is there already; it decides what the job leaves
            open.
        device: What to plan for where neither says, if it is not this machine's: `cpu` or `cuda`.

    Returns:
        The settled settings. torch is imported only if something had to be found out about the hardware.
    """
    model, compute = (dict((stored or {}).get(part) or {}) for part in ("model", "compute"))
    gpus = job.workers.gpus
    device = ("cuda" if gpus else "cpu") if gpus is not None else compute.get("device") or device or _hardware_device()
    if device != compute.get("device"):
        model, compute = {}, {}  # settings for other hardware say nothing about this one
    return Compute(
        device=device,
        dtype=job.model.dtype or model.get("dtype") or _hardware_dtype(device),
        threads=job.workers.cpus or compute.get("threads") or (GPU_THREADS if device == "cuda" else CPU_THREADS),
        batch_tokens=job.workers.batch_tokens or compute.get("batch_tokens") or _batch_tokens(device),
        attn=job.model.attn or model.get("attn") or "",
    )


def settle_attention(compute: Compute, bundle: Bundle) -> Compute:
    """Settle the attention too, which depends on the model: the fastest that is exact for it on this device.

    Raises:
        JobSpecError: The job wants one that is not exact for the model.
    """
    from ray_jobs.backbone.backbone import check_attention, default_attention

    own = default_attention(compute.device, bundle.model.model_type)
    attn = compute.attn or ("eager" if bundle.head is not None else own)  # a whole model runs by transformers' modules
    check_attention(bundle, attn)
    return replace(compute, attn=attn)


def extract_settings(job: JobSpec, compute: Compute) -> dict[str, Any]:
    """The fields of the engine's `ExtractSettings`, as plain data that travels to a worker."""
    return {
        "pools": job.pool,
        "hidden": job.hidden,
        "tokens": job.model.tokens,
        "max_tokens": job.model.max_tokens,
        "long_documents": job.model.long_documents,
        "stride": job.model.stride,
        "chat": job.model.chat,
        "prompt": job.model.prompt,
        "pixels": job.pixels or 0,
        "attn_implementation": compute.attn,
        "batch_tokens": compute.batch_tokens,
        "device": compute.device,
        "devices": 1 if compute.device == "cpu" else max(1, int(job.workers.gpus or 1)),
        "threads": compute.threads,
    }


def _hardware_device() -> str:
    from ray_jobs.backbone.backbone import default_device

    return default_device()


def _hardware_dtype(device: str) -> str:
    from ray_jobs.backbone.backbone import default_dtype

    return default_dtype(device)


def _batch_tokens(device: str) -> int:
    from ray_jobs.backbone.batching import default_batch_tokens

    return default_batch_tokens(device)
