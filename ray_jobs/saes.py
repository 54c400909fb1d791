"""SAEs: loaded through sae-lens, compared with the model that a job pairs them with.

The SAE's own metadata says which model, layer and site it was trained on. Names are compared to the letter (an SAE of
gemma-2-9b is not one of gemma-2-9b-it); a contradiction is refused unless the job says `allow_mismatch`, and then it is
recorded, as is whatever the metadata leaves open.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import BundleError
from ray_jobs.checkpoint import brief
from ray_jobs.engine.bundle import SaeInfo
from ray_jobs.engine.encoder import ARCHITECTURES

if TYPE_CHECKING:
    from ray_jobs.spec import SaeSpec

SAE_FILES = ("cfg.json", "sae_weights.safetensors")


@dataclass(frozen=True)
class LoadedSae:
    """An SAE as sae-lens loaded it, checked against the model: float32 W_enc, b_enc, threshold and b_dec."""

    info: SaeInfo
    weights: Mapping[str, Any]
    prepend_bos: bool


def same_model(first: str, second: str) -> bool:
    """Whether two names mean one model: owner, case and separators aside, they must be equal to the letter."""
    return not _aliases(first).isdisjoint(_aliases(second))


def load_sae(spec: SaeSpec, model_name: str, config: Any) -> LoadedSae:
    """Load one SAE of a job and check it against the model.

    Args:
        spec: The SAE as the job names it.
        model_name: What the job's model is called.
        config: The config of its decoder.

    Raises:
        BundleError: It cannot be loaded, is of a kind not supported, or does not belong to the model.
    """
    import torch

    sae = _from_disk(spec) if spec.path is not None else _from_release(spec)
    cfg, where = sae.cfg, f"SAE {spec.name!r}"
    architecture = cfg.architecture()
    if architecture not in ARCHITECTURES:
        raise BundleError(f"{where}: architecture {architecture!r} is not supported; {' and '.join(ARCHITECTURES)} are")
    if cfg.normalize_activations != "none" or cfg.reshape_activations != "none":
        setting = f"normalize_activations={cfg.normalize_activations}, reshape_activations={cfg.reshape_activations}"
        raise BundleError(f"{where}: {setting} is not supported; use an SAE that takes activations as they are")
    layer, mismatch, unverified = _compare(spec, cfg, model_name, config)
    info = SaeInfo(
        name=spec.name,
        layer=layer,
        site="resid_post",
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        architecture=architecture,
        apply_b_dec_to_input=bool(cfg.apply_b_dec_to_input),
        source={"path": spec.path} if spec.path is not None else {"release": str(spec.release), "id": str(spec.id)},
        mismatch=mismatch,
        unverified=unverified,
    )
    threshold = sae.threshold.detach() if architecture == "jumprelu" else torch.zeros(cfg.d_sae)
    weights = {"W_enc": sae.W_enc.detach(), "b_enc": sae.b_enc.detach(), "b_dec": sae.b_dec.detach()}
    return LoadedSae(info, {**weights, "threshold": threshold}, bool(cfg.metadata.get("prepend_bos", False)))


def _from_disk(spec: SaeSpec) -> Any:
    from sae_lens import SAE

    path = Path(str(spec.path))
    for name in SAE_FILES:
        if not (path / name).is_file():
            raise BundleError(f"SAE {spec.name!r}: {path} is no SAE directory of sae-lens: it has no {name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAE.load_from_disk(path, device="cpu", dtype="float32")
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(f"SAE {spec.name!r}: {path} cannot be loaded by sae-lens ({brief(error)})") from None


def _from_release(spec: SaeSpec) -> Any:
    from sae_lens import SAE

    assert spec.release is not None and spec.id is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAE.from_pretrained(spec.release, spec.id, device="cpu", dtype="float32")
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        what = f"SAE {spec.name!r}: release {spec.release!r}, id {spec.id!r}"
        if isinstance(error, ValueError) and "not found in" in str(error):
            raise BundleError(f"{what} is not known to sae-lens; check both ({brief(error)})") from None
        raise BundleError(
            f"{what} could not be fetched: the Hugging Face hub could not be reached or refused ({brief(error)}); "
            f"check network and access (HF_TOKEN), or give the path of a local SAE"
        ) from None


def _compare(spec: SaeSpec, cfg: Any, model_name: str, config: Any) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Layer to hook, what contradicts the job, and what the SAE's metadata leaves open."""
    where = f"SAE {spec.name!r}"
    trained_on, hook_name = cfg.metadata.get("model_name"), cfg.metadata.get("hook_name")
    mismatch, unverified = [], []
    if not trained_on:
        unverified.append("model")
    elif not same_model(str(trained_on), model_name):
        mismatch.append(f"it was trained on {trained_on}, the job's model is {model_name}")
    layer, site = _parse_hook(str(hook_name)) if hook_name else (None, None)
    if site is None:
        unverified.append("site")
    elif site != "resid_post":
        mismatch.append(f"it reads {hook_name}, features are taken from resid_post")
    if layer is None:
        unverified.append("layer")
    elif spec.layer is not None and spec.layer != layer:
        mismatch.append(f"it reads layer {layer} ({hook_name}), the job says layer {spec.layer}")
    if mismatch and not spec.allow_mismatch:
        raise BundleError(
            f"{where} does not belong here: {'; '.join(mismatch)}; choose another SAE or model, "
            f"or set allow_mismatch: true for this SAE to run the pair all the same"
        )
    hooked = spec.layer if spec.layer is not None else layer
    if hooked is None:
        raise BundleError(f"{where}: its metadata names no layer (hook {hook_name!r}); give it as 'layer:' under saes")
    if hooked >= config.num_hidden_layers:
        raise BundleError(
            f"{where} reads layer {hooked}, but {model_name} has layers 0 to {config.num_hidden_layers - 1};"
            " choose an SAE of this model"
        )
    if cfg.d_in != config.hidden_size:
        raise BundleError(
            f"{where} reads {cfg.d_in} dimensions, but {model_name} has d_model {config.hidden_size};"
            " choose an SAE of this model"
        )
    return hooked, tuple(mismatch), tuple(unverified)


def _parse_hook(hook_name: str) -> tuple[int | None, str | None]:
    """Layer and site of `blocks.9.hook_resid_post`, `model.layers.9`, `layers.9.output`, ...: None where not said."""
    found = re.fullmatch(r"(?:.*\.)?(?:blocks|layers|h)\.(\d+)(?:\.(.+))?", hook_name)
    if not found:
        return None, hook_name
    site = (found[2] or "output").removeprefix("hook_")
    return int(found[1]), "resid_post" if site == "output" else site


def _aliases(name: str) -> set[str]:
    from transformer_lens.loading_from_pretrained import get_official_model_name

    names = {name}
    with contextlib.suppress(ValueError):
        names.add(get_official_model_name(name))  # "gpt2-small" is "gpt2", "mistral-7b" is "mistralai/Mistral-7B-v0.1"
    return {re.sub(r"[\s_]+", "-", alias.rsplit("/", 1)[-1].strip().lower()) for alias in names}
