"""Judge an SAE by what its config says, before any of its weights are fetched.

The loader asks with the config that came with the SAE, the registry with what it knows of one whose config has not been
fetched: one function answers both. The SAE's own metadata says which model, layer and site it was trained on. A
contradiction is refused unless the job says `allow_mismatch`, and then it is recorded, as is whatever the metadata
leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.errors import BundleError
from ray_jobs.backbone.decoder_layouts import check_hook, family_of, has_rms_norms, width_of
from ray_jobs.backbone.sae_kinds import check_family
from ray_jobs.backbone.sites import SITES, STREAM_SITES, Hook, parse_hook
from ray_jobs.prepare.models import same_model

_HARMLESS = ("fold_ln", "center_unembed", "n_devices", "dtype", "torch_dtype", "device", "device_map")
"""Ways to load a model that change only what follows the last layer, or (`fold_ln`) move a norm's weight behind the
site: at most sites, see `_check_norm`."""


@dataclass(frozen=True)
class SaeConfig:
    """What is said of an SAE; None is what is not said, or only in a file that has not been fetched.

    Attributes:
        model: The model that it was trained on.
        hook: Where it reads, as TransformerLens names it.
        module: The same by transformers' modules.
        head: The one attention head that it reads.
        architecture: As sae-lens names it.
        normalization: Likewise, of its input.
        reshape: Likewise; `hook_z` for heads side by side.
        d_in: Dimensions that it reads.
        d_sae: Its features.
        changed: How TransformerLens was told to change the model.
    """

    model: str | None = None
    hook: str | None = None
    module: str | None = None
    head: int | None = None
    architecture: str | None = None
    normalization: str | None = None
    reshape: str = "none"
    d_in: int | None = None
    d_sae: int | None = None
    changed: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SaeConfig:
        """What a config of sae-lens says, of version 6 (`SAEConfig.to_dict`) or brought to its form.

        Raises:
            KeyError: It does not say how wide the SAE is.
        """
        said = config.get("metadata") or {}
        return cls(
            model=_text(said.get("model_name")),
            hook=_text(said.get("hook_name")),
            module=_text(said.get("hf_hook_name")),
            head=said.get("hook_head_index"),
            architecture=str(config.get("architecture", "standard")),
            normalization=str(config.get("normalize_activations") or "none"),
            reshape=str(config.get("reshape_activations") or "none"),
            d_in=config["d_in"],
            d_sae=config["d_sae"],
            changed=dict(said.get("model_from_pretrained_kwargs") or {}),
        )


@dataclass(frozen=True)
class Wanted:
    """What a job says of an SAE beside its name: where it reads, and whether a contradiction is allowed."""

    layer: int | None = None
    site: str | None = None
    allow_mismatch: bool = False


@dataclass(frozen=True)
class Verdict:
    """How an SAE runs on a model.

    Attributes:
        hook: Where to hook.
        centred: It was trained on a stream that TransformerLens had centred.
        mismatch: What contradicts the job, and was allowed.
        unverified: What its metadata leaves open.
    """

    hook: Hook
    centred: bool
    mismatch: tuple[str, ...]
    unverified: tuple[str, ...]


def judge(where: str, said: SaeConfig, model_name: str, config: Any, wanted: Wanted) -> Verdict:
    """Decide whether an SAE runs on a model, and where.

    Args:
        where: What a sentence begins with.
        said: What is said of the SAE.
        model_name: What the job's model is called.
        config: The config of its decoder.
        wanted: What the job says.

    Raises:
        BundleError: It is of a kind not supported, or does not belong to the model.
    """
    check_kind(where, said)
    mismatch, unverified = [], []
    if not said.model:
        unverified.append("model")
    elif not same_model(said.model, model_name):
        mismatch.append(f"it was trained on {said.model}, the job's model is {model_name}")
    layer, site = parse_hook(said.hook, said.module) if said.hook else (None, None)
    if site is None:
        unverified.append("site")
    elif wanted.site is not None and wanted.site != site:
        mismatch.append(f"it reads {site} ({said.hook}), the job says site {wanted.site}")
    elif wanted.site is None and site not in SITES:
        mismatch.append(f"it reads {said.hook}, which is none of {', '.join(SITES)}; if it is one of them, say site:")
    if layer is None:
        unverified.append("layer")
    elif wanted.layer is not None and wanted.layer != layer:
        mismatch.append(f"it reads layer {layer} ({said.hook}), the job says layer {wanted.layer}")
    if mismatch and not wanted.allow_mismatch:
        raise BundleError(
            f"{where} does not belong here: {'; '.join(mismatch)}; choose another SAE or model, "
            f"or set allow_mismatch: true for this SAE to run the pair all the same"
        )
    hooked = wanted.layer if wanted.layer is not None else layer
    if hooked is None:
        raise BundleError(f"{where}: its metadata names no layer (hook {said.hook!r}); give it as 'layer:' under saes")
    if hooked >= config.num_hidden_layers:
        raise BundleError(
            f"{where} reads layer {hooked}, but {model_name} has layers 0 to {config.num_hidden_layers - 1};"
            " choose an SAE of this model"
        )
    hook = Hook(hooked, wanted.site or (site if site in SITES else "resid_post"))
    check_hook(config, hook, where)
    _check_norm(where, said, hook, config)
    width, what = width_of(config, hook)
    if said.d_in is not None and said.d_in != width:
        raise BundleError(
            f"{where} reads {said.d_in} dimensions, but {model_name} has {what} {width}; choose an SAE of this model"
        )
    centred = bool(said.changed.get("center_writing_weights", False))
    return Verdict(
        hook,
        centred and not has_rms_norms(config) and hook.site in STREAM_SITES,
        tuple(mismatch),
        tuple(unverified),
    )


def _check_norm(where: str, said: SaeConfig, hook: Hook, config: Any) -> None:
    """Refuse an SAE that reads behind a norm whose weight TransformerLens had moved into the matrices after it.

    `ln2_normalized` lies before the weight, and every other site before the norm or behind those matrices.

    Raises:
        BundleError: It saw other activations than this model's.
    """
    family = family_of(config)
    if not said.changed.get("fold_ln") or hook.site not in ("attn_in", "mlp_in"):
        return
    if family is not None and family.order == "after":  # what a layer reads has passed no norm
        return
    same = hook.site == "mlp_in" and family is not None and family.mlp_norm is not None
    instead = "read the same by site: ln2_normalized with allow_mismatch: true, or " if same else ""
    raise BundleError(
        f"{where} reads {hook}, and was trained on a model loaded with fold_ln=True, whose norm has no weight there; "
        f"{instead}choose another SAE"
    )


def check_kind(where: str, said: SaeConfig) -> None:
    """Refuse an SAE that runs on no model here, as far as what is said of it tells.

    Raises:
        BundleError: Its architecture, normalisation or way of reading is not supported.
    """
    # what is not said yet is taken for something that is supported
    check_family(where, said.architecture or "standard", said.normalization or "none", said.reshape)
    if said.head is not None:
        raise BundleError(
            f"{where} reads one attention head ({said.hook}, head {said.head}), which is not supported; "
            "choose an SAE of all heads"
        )
    further = {name: value for name, value in said.changed.items() if name not in _HARMLESS}
    further.pop("center_writing_weights", None)
    if further:
        raise BundleError(
            f"{where} was trained on a model loaded with {', '.join(f'{k}={v}' for k, v in further.items())}, and what "
            "that changes is not known here; choose another SAE"
        )


def _text(value: Any) -> str | None:
    return str(value) if value else None
