"""What decides a value: the settings that a job leaves open, and the identity that goes into a store's fingerprint.

What JOB.yaml leaves open is chosen once, from the hardware, when a store is begun; from then on the store says, so that
a run resumed on another machine, or with another number of workers, goes on writing the same bytes. The identity is
plain data with the keys of JOB.yaml, because its differences are what a user sees when a run is refused. The format
version and the unit plan join it in the fingerprint, which `featurestore` computes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import JobFailed
from featurestore.tables import READING
from ray_jobs.engine import NUMERICS

if TYPE_CHECKING:
    from ray_jobs.engine.bundle import Bundle
    from ray_jobs.spec import JobSpec

DECIDING_SOFTWARE = ("torch", "transformers", "tokenizers")
RECORDED_SOFTWARE = ("sparsemill", "ray", "numpy", "pyarrow", "safetensors")

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


def settle(job: JobSpec, begun: Mapping[str, Any] | None, device: str | None = None) -> Compute:
    """Decide what the job leaves open.

    Args:
        job: What the user fixed wins.
        begun: The identity of the store that the job writes to, if it is there already; it decides what the job leaves
            open.
        device: What to plan for where neither says, if it is not this machine's: `cpu` or `cuda`.

    Returns:
        The settled settings. torch is imported only if something had to be found out about the hardware.
    """
    model, compute = (dict((begun or {}).get(part) or {}) for part in ("model", "compute"))
    gpus = job.workers.gpus
    device = ("cuda" if gpus else "cpu") if gpus is not None else compute.get("device") or device or _hardware_device()
    if device != compute.get("device"):
        model, compute = {}, {}  # settings for other hardware say nothing about this one
    return Compute(
        device=device,
        dtype=job.model.dtype or model.get("dtype") or _hardware_dtype(device),
        threads=job.workers.cpus or compute.get("threads") or (GPU_THREADS if device == "cuda" else CPU_THREADS),
        batch_tokens=compute.get("batch_tokens") or _batch_tokens(device),
        attn=job.model.attn or model.get("attn") or "",
    )


def settle_attention(compute: Compute, bundle: Bundle) -> Compute:
    """Settle the attention too, which depends on the model: the fastest that is exact for it on this device.

    Raises:
        JobSpecError: The job wants one that is not exact for the model.
    """
    from ray_jobs.engine.backbone import check_attention, default_attention

    attn = compute.attn or default_attention(compute.device, bundle.model.model_type)
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
        "attn_implementation": compute.attn,
        "batch_tokens": compute.batch_tokens,
        "device": compute.device,
        "threads": compute.threads,
    }


def identity(
    job: JobSpec, bundle: Bundle, compute: Compute, files: Iterable[Mapping[str, Any]], software: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that decides a value of the store, except its schema and its units.

    Args:
        job: The job.
        bundle: The bundle it runs.
        compute: Its settled settings.
        files: Name, size, sha256 and rows of each corpus file, in order.
        software: Versions, as `deciding_software` gives them.

    Returns:
        Plain JSON data.
    """
    from ray_jobs.engine.bundle import WEIGHTS_NAME

    model = job.model
    return {
        "model": {
            "name": bundle.model.name,
            "weights_sha256": bundle.files.get(WEIGHTS_NAME),
            "dtype": bundle.dtype,
            "max_tokens": model.max_tokens,
            "long_documents": model.long_documents,
            "stride": model.stride,
            "tokens": model.tokens,
            "chat": model.chat,
            "context_tokens": len((bundle.tokenizer.chat_prefix or ()) if model.chat else bundle.tokenizer.bos),
            "attn": compute.attn,
        },
        "saes": {
            sae.name: {
                "hook": f"{sae.site} of layer {sae.layer}",
                "d_sae": sae.d_sae,
                "architecture": sae.architecture,
                **({} if sae.k is None else {"k": sae.k}),
                **({} if sae.normalize_activations == "none" else {"normalize_activations": sae.normalize_activations}),
                "mismatch": list(sae.mismatch),
                "sha256": sae.sha256,
            }
            for sae in bundle.saes
        },
        "pool": list(job.pool),
        "hidden": list(job.hidden),
        "value_bits": job.value_bits,
        "compute": {"device": compute.device, "threads": compute.threads, "batch_tokens": compute.batch_tokens},
        "corpus": {
            "text": job.corpus.text,
            "id": job.corpus.id,
            "keep": list(job.corpus.keep),
            "files": [dict(file) for file in files],
        },
        "bundle": bundle.sha256,
        "software": dict(software),
    }


def deciding_software() -> dict[str, str]:
    """Versions of what reads and computes values, ours included, without build tags (2.13.0+cpu is 2.13.0)."""
    packages = {name: installed.partition("+")[0] for name, installed in _versions(DECIDING_SOFTWARE).items()}
    return {**packages, "engine": str(NUMERICS), "reading": str(READING)}


def check_software(expected: Mapping[str, str]) -> None:
    """Refuse to compute with other versions than the store was begun with.

    Raises:
        JobFailed: Naming this host and each difference.
    """
    here = deciding_software()
    wrong = [
        f"{name} {here.get(name)} instead of {wanted}" for name, wanted in expected.items() if here.get(name) != wanted
    ]
    if wrong:
        raise JobFailed(f"worker on {platform.node()} has {', '.join(wrong)}; install the same versions on every node")


def provenance() -> dict[str, Any]:
    """What is worth knowing about a run without deciding its values: exact versions and the host that began it."""
    return {
        "versions": {"python": platform.python_version(), **_versions((*DECIDING_SOFTWARE, *RECORDED_SOFTWARE))},
        "host": {"system": platform.system(), "machine": platform.machine(), "cpu": cpu_name()},
    }


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cpu_name() -> str:
    """The model of this machine's processor, as far as the system says."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _hardware_device() -> str:
    from ray_jobs.engine.backbone import default_device

    return default_device()


def _hardware_dtype(device: str) -> str:
    from ray_jobs.engine.backbone import default_dtype

    return default_dtype(device)


def _batch_tokens(device: str) -> int:
    from ray_jobs.engine.batching import default_batch_tokens

    return default_batch_tokens(device)
