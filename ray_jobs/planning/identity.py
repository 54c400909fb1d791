"""Collect what goes into a job's fingerprint: its identity. The hash itself is `format.store_plan`'s.

Whether a resumed run is refused is decided by comparing identities: a job with another one may not write into the
store. It is plain data with the keys of JOB.yaml, because its differences are what the user is shown then.
`featurestore.format.store_plan` computes the fingerprint, with the format version and the unit plan, and compares.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import JobFailed
from featurestore.tables import READING
from ray_jobs.engine import NUMERICS

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.prepare.compute_settings import Compute
    from ray_jobs.spec import JobSpec

DECIDING_SOFTWARE = ("torch", "transformers", "tokenizers")
RECORDED_SOFTWARE = ("sparsemill", "ray", "numpy", "pyarrow", "safetensors")


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
    from ray_jobs.backbone.bundle import WEIGHTS_NAME

    model, chat = job.model, bundle.tokenizer.chat
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
            **({"turns": list(model.turns)} if job.corpus.messages is not None else {}),
            **({} if model.system_prompt is None else {"system_prompt": model.system_prompt}),
            **({"generation_prompt": True} if model.generation_prompt else {}),
            **({"prompt": model.prompt} if model.prompt else {}),
            **({"date": chat.date} if model.chat and chat is not None and chat.date is not None else {}),
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
        **({} if job.pixels is None else {"pixels": job.pixels}),
        "value_bits": job.value_bits,
        "compute": {"device": compute.device, "threads": compute.threads, "batch_tokens": compute.batch_tokens},
        "corpus": {
            "text": job.corpus.text,
            **({} if job.corpus.image is None else {"image": job.corpus.image}),
            "id": job.corpus.id,
            "keep": list(job.corpus.keep),
            "files": [dict(file) for file in files],
        },
        "bundle": bundle.sha256,
        "software": dict(software),
    }


def deciding_software(images: bool = False) -> dict[str, str]:
    """Versions of what reads and computes values, ours included, without build tags (2.13.0+cpu is 2.13.0).

    Args:
        images: Whether images are read, and so what decodes them decides too.
    """
    packages = {name: installed.partition("+")[0] for name, installed in _versions(DECIDING_SOFTWARE).items()}
    found = {**packages, "engine": str(NUMERICS), "reading": str(READING)}
    if images:
        from ray_jobs.images.decoder import installed_version

        found["pillow"] = installed_version() or "not installed"
    return found


def check_software(expected: Mapping[str, str]) -> None:
    """Refuse to compute with other versions than the store was begun with.

    Raises:
        JobFailed: Naming this host and each difference.
    """
    here = deciding_software("pillow" in expected)
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
