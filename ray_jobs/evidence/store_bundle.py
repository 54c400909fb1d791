"""Open the bundle that a store names: from this machine's cache, or built again from the store's own job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from featurestore.errors import BundleError, JobSpecError
from featurestore.format.provenance import bundle_sources
from featurestore.url_secrets import shown
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.spec import JobSpec, job_from_mapping

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan
    from ray_jobs.engine.extractor import ExtractSettings


def store_bundle(plan: StorePlan, where: str, say: Callable[[str], None] | None = None) -> Bundle:
    """Open the bundle that a store was made with.

    Args:
        plan: Of the store.
        where: Its path or URL, for messages.
        say: Called with a line of text before every slow step.

    Raises:
        BundleError: It is gone and cannot be built again; the message says what is missing.
    """
    sha256 = plan.identity.get("bundle")
    if not isinstance(sha256, str):
        raise BundleError(f"{shown(where)} does not name the bundle of its features; extract it with sparsemill")
    from ray_jobs.prepare.build import kept_bundle, prepare

    if (there := kept_bundle(sha256)) is not None:
        return there

    try:
        built = open_bundle(prepare(_job(plan, where), progress=say))
    except (BundleError, JobSpecError) as exc:
        raise BundleError(
            f"the bundle of {shown(where)} is no longer on this machine and cannot be built again: {exc}"
        ) from exc
    if built.sha256 != sha256:
        raise BundleError(
            f"the bundle of {shown(where)} is no longer on this machine, and its model and SAEs give another one now "
            f"(sha256 {built.sha256[:12]}..., not {sha256[:12]}...); restore them as they were, or extract again"
        )
    return built


def store_settings(plan: StorePlan, where: str) -> ExtractSettings:
    """How the documents of a store are fed to its model, on this machine's device.

    Raises:
        JobSpecError: The store does not say.
    """
    import torch

    from ray_jobs.backbone.backbone import default_device
    from ray_jobs.backbone.batching import default_batch_tokens
    from ray_jobs.engine.extractor import ExtractSettings

    job = _job(plan, where)
    model, device, gpus = job.model, default_device(), int(job.workers.gpus or 1)
    return ExtractSettings(
        tokens=model.tokens,
        max_tokens=model.max_tokens,
        long_documents=model.long_documents,
        stride=model.stride,
        chat=model.chat,
        device=device,
        devices=1 if device == "cpu" else max(1, min(gpus, torch.cuda.device_count())),
        batch_tokens=default_batch_tokens(device),
    )


def _job(plan: StorePlan, where: str) -> JobSpec:
    """The job of a store, at the commits that it ran with and in the precision that it was settled to."""
    job = job_from_mapping(plan.spec, "/", f"the job in {shown(where)}")
    sources = bundle_sources(plan)
    model = job.model.model_copy(
        update={
            "revision": sources["model"]["revision"],
            "dtype": sources["model"]["dtype"] or job.model.dtype,
            "date": plan.identity.get("model", {}).get("date") or job.model.date,
        }
    )
    known: Mapping[str, Any] = sources["saes"]
    saes = tuple(
        sae if sae.path is not None else sae.model_copy(update={"revision": known[sae.name]["revision"]})
        for sae in job.saes
        if sae.name in known
    )
    return job.model_copy(update={"model": model, "saes": saes})
