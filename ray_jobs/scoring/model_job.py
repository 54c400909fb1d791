"""Make, from a trained model, the job that its documents would be extracted with, so that nobody has to write one.

A model file says which language model and SAEs it was trained on, at which commits, which tokens counted and how values
were pooled and rounded. `job_of` makes a job of that, and `find_bundle` looks for the very bundle among those that this
machine keeps; only where it is not there is one built, from what the job names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.dense_names import DenseName, hook_name, parse_dense_name
from featurestore.errors import BundleError, JobSpecError, StudyError
from featurestore.format.provenance import described, hook
from featurestore.models.model import Model
from ray_jobs.backbone.bundle import open_bundle
from ray_jobs.prepare.build import kept_bundle, prepare
from ray_jobs.scoring.documents import refuse_images
from ray_jobs.spec import job_from_mapping

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.spec import JobSpec

_POLICY = ("max_tokens", "long_documents", "stride", "tokens", "chat", "dtype")
_CHAT = ("generation_prompt", "date", "system_prompt", "turns")
_SOURCE = ("release", "id", "revision", "path")


def job_of(
    model: Model, bundle: Bundle | None = None, corpus: Mapping[str, Any] | None = None, store: str = "unused"
) -> JobSpec:
    """The job that a model's new documents are extracted with: only the SAEs, poolings and columns that it reads.

    Args:
        model: A trained model.
        bundle: Its bundle if that is there; models of earlier versions do not say what it was built from.
        corpus: The corpus, as JOB.yaml has it; None where texts come from elsewhere.
        store: Where its store would be.

    Raises:
        StudyError: The model does not say what its bundle can be built from.
    """
    header = model.header
    identity = header["trained_on"]["identity"]
    names = header["saes"] or _saes_at(header)
    if not (corpus or {}).get("image"):
        refuse_images(header)
    try:
        sources = header.get("bundle") or (bundle and _sources(bundle))
        if not isinstance(sources, Mapping):
            raise JobSpecError("it was written by an earlier version")
        mapping = {
            "corpus": _corpus(identity, corpus or {"path": "unused"}),
            "model": {
                "name": sources["model"]["name"],
                "revision": sources["model"]["revision"],
                **{key: identity["model"][key] for key in _POLICY},
                **{key: identity["model"][key] for key in _CHAT if key in identity["model"]},
            },
            "saes": [_sae(identity, sources["saes"][name], name) for name in dict.fromkeys(names)],
            "pool": [model.stored_pool or "max"],
            "hidden": [] if header["dense"] is None else [_dense(header).kind],
            "value_bits": identity["value_bits"],
            "store": store,
        }
        return job_from_mapping(mapping, Path.cwd(), where="the model")
    except (KeyError, TypeError, AttributeError, JobSpecError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise StudyError(
            f"{header['method']}: this model does not say what its bundle can be built from ({missing}); "
            "give --job with the job that new text is extracted with, or --store"
        ) from None


def _corpus(identity: Mapping[str, Any], corpus: Mapping[str, Any]) -> Mapping[str, Any]:
    """A corpus as JOB.yaml has it; of conversations where the model was trained on some."""
    if "turns" not in identity["model"]:
        return corpus
    return {
        **{key: value for key, value in corpus.items() if key != "text"},
        "messages": corpus.get("text", "messages"),
    }


def find_bundle(model: Model) -> Bundle | None:
    """The bundle that a model was trained on, by its sha256, among those that this machine keeps."""
    return kept_bundle(str(model.header["trained_on"]["identity"].get("bundle")))


def bundle_of(model: Model, note: Callable[[str], None]) -> Bundle:
    """The bundle to extract a model's documents with: found, or built again.

    Args:
        model: A trained model.
        note: Called with a line of text before what may take long.

    Raises:
        StudyError: It is not there and cannot be built.
    """
    found = find_bundle(model)
    if found is not None:
        return found
    spec = job_of(model)
    sha256 = str(model.header["trained_on"]["identity"].get("bundle"))[:12]
    try:
        return open_bundle(prepare(spec, progress=note))
    except BundleError as error:
        raise StudyError(
            f"{model.header['method']}: the bundle that this model was trained on (sha256 {sha256}) is not on this "
            f"machine and cannot be built again: {error}"
        ) from None


def features_of(model: Model, bundle: Bundle) -> dict[str, Any]:
    """SAE -> the features to compute; of a dense column's layer one SAE, and none of its features."""
    import numpy as np

    if model.header["dense"] is None:
        return dict(model.used())
    wanted = _dense(model.header).hook
    names = [sae.name for sae in bundle.saes if sae.hook.name == wanted]
    return {name: np.empty(0, dtype=np.int64) for name in names[:1]}


def only_read(model: Model, bundle: Bundle) -> Bundle:
    """A bundle without the SAEs that a model does not read."""
    read = features_of(model, bundle)
    return replace(bundle, saes=tuple(sae for sae in bundle.saes if sae.name in read))


def _sources(bundle: Bundle) -> dict[str, Any]:
    """What `featurestore.format.provenance.bundle_sources` says, as the bundle itself knows it."""
    return {
        "model": {"name": bundle.model.source, "revision": bundle.model.revision},
        "saes": {sae.name: {**sae.source, "hook": {"layer": sae.layer, "site": sae.site}} for sae in bundle.saes},
    }


def _saes_at(header: Mapping[str, Any]) -> list[str]:
    """An SAE of the layer that a dense column comes from: a bundle ends at the deepest of its SAEs."""
    identity = header["trained_on"]["identity"]
    wanted = _dense(header).hook
    hooks = {name: hook(identity, name) for name in identity.get("saes", {})}
    return [name for name, at in hooks.items() if at and hook_name(at["site"], at["layer"]) == wanted][:1]


def _dense(header: Mapping[str, Any]) -> DenseName:
    """Which hidden states a model of them reads.

    Raises:
        StudyError: Its column is none.
    """
    found = parse_dense_name(str(header["dense"]))
    if found is None:
        raise StudyError(
            f"{header['method']}: '{header['dense']}' is no column of hidden states; train the model again"
        )
    return found


def _sae(identity: Mapping[str, Any], source: Mapping[str, Any], name: str) -> dict[str, Any]:
    at = source.get("hook") or hook(identity, name)
    return {
        "name": name,
        **{key: source[key] for key in _SOURCE if source.get(key)},
        **{key: None if at is None else at[key] for key in ("layer", "site")},
        "allow_mismatch": bool(described(identity, name).get("mismatch")),
    }
