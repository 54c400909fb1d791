"""Load SAEs through sae-lens, and check them: against the job's model, and against sae-lens' own `encode`.

The SAE's own metadata says which model, layer and site it was trained on. Names are compared to the letter (an SAE of
gemma-2-9b is not one of gemma-2-9b-it). A contradiction is refused unless the job says `allow_mismatch`, and then it is
recorded, as is whatever the metadata leaves open. What will run is the engine's encoder: before an SAE is accepted, the
two encode the same inputs and must agree. Cost: about 0.1 s a million weights.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.foreign import brief, writing
from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import SaeInfo
from ray_jobs.backbone.decoders import check_hook, has_rms_norms, width_of
from ray_jobs.backbone.families import TRANSCODERS, centred, check_family, fold
from ray_jobs.backbone.sites import SITES, STREAM_SITES, Hook, parse_hook
from ray_jobs.prepare.encoder_hash import encoder_sha256
from ray_jobs.prepare.hub import pinned_downloads
from ray_jobs.prepare.local_layouts import read_local

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ray_jobs.backbone.families import SaeWeights
    from ray_jobs.engine.encoder import SaeEncoder
    from ray_jobs.spec import SaeSpec

CHECKED_SCALES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
"""Residual streams have norms from tens (GPT-2) to tens of thousands (Gemma 3)."""

CHECKED_TOKENS = 12
"""Inputs of each scale that are encoded twice."""

ROUNDING = 1e-5
"""What the order of float32 sums may move, as a share of |input| x |encoder row|."""


@dataclass(frozen=True)
class LoadedSae:
    """An SAE as sae-lens loaded it, checked against the model and against sae-lens: float32 weights.

    `prepend_bos` is whether it was trained behind a beginning-of-sequence token; None where its metadata does not say.
    """

    info: SaeInfo
    weights: SaeWeights
    prepend_bos: bool | None


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
    source = {"path": spec.path} if spec.path is not None else {"release": str(spec.release), "id": str(spec.id)}
    if spec.path is not None:
        sae = read_local(spec)
    else:
        sae, source["revision"] = _from_release(spec)
    cfg, where = sae.cfg, f"SAE {spec.name!r}"
    architecture = cfg.architecture()
    check_family(where, architecture, cfg.normalize_activations, cfg.reshape_activations)
    hook, mismatch, unverified = _compare(spec, cfg, model_name, config)
    if cfg.normalize_activations == "expected_average_only_in":
        unverified += ("input scale",)  # sae-lens did not find the factor, and encodes without it
    tensors = _tensors(sae, where)
    info = SaeInfo(
        name=spec.name,
        layer=hook.layer,
        site=hook.site,
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        architecture=architecture,
        apply_b_dec_to_input=bool(cfg.apply_b_dec_to_input),
        source=source,
        mismatch=mismatch,
        unverified=unverified,
        normalize_activations=cfg.normalize_activations,
        k=int(cfg.k) if architecture == "topk" else None,
        sha256=encoder_sha256(tensors, bool(cfg.apply_b_dec_to_input)),
    )
    weights = fold(architecture, tensors)
    centre = _is_centred(where, cfg, hook, config)
    if centre:
        weights = centred(weights, info.apply_b_dec_to_input)
    _check_encoder(where, sae, info, weights, centre)
    prepend_bos = cfg.metadata.get("prepend_bos")
    return LoadedSae(info, weights, None if prepend_bos is None else bool(prepend_bos))


def _tensors(sae: Any, where: str) -> dict[str, torch.Tensor]:
    """The float32 tensors of an SAE's encoder by sae-lens' names, finite."""
    names = ("W_enc", "b_dec", "b_enc", "threshold", "b_gate", "b_mag", "r_mag")
    tensors = {name: getattr(sae, name).detach() for name in names if getattr(sae, name, None) is not None}
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        tensors["decoder_norm"] = sae.W_dec.detach().norm(dim=-1)
    if sae.cfg.architecture() in TRANSCODERS:  # its b_dec belongs to what it predicts
        tensors["b_dec"] = tensors["W_enc"].new_zeros(len(tensors["W_enc"]))
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise BundleError(f"{where}: its {name} holds values that are not finite; the file is damaged")
    return tensors


def _is_centred(where: str, cfg: Any, hook: Hook, config: Any) -> bool:
    """Whether the SAE was trained on a stream that TransformerLens had centred.

    Raises:
        BundleError: It was trained on a model that was changed in another way, which is not known here.
    """
    kwargs = dict(cfg.metadata.get("model_from_pretrained_kwargs") or {})
    centre = bool(kwargs.pop("center_writing_weights", False))
    for harmless in ("fold_ln", "center_unembed", "n_devices", "dtype", "torch_dtype", "device", "device_map"):
        kwargs.pop(harmless, None)  # moves a norm's weight behind the site, or changes only what follows the last layer
    if kwargs:
        raise BundleError(
            f"{where} was trained on a model loaded with {', '.join(f'{k}={v}' for k, v in kwargs.items())}, and what "
            "that changes is not known here; choose another SAE"
        )
    return centre and not has_rms_norms(config) and hook.site in STREAM_SITES


def _check_encoder(where: str, sae: Any, info: SaeInfo, weights: SaeWeights, centre: bool = False) -> None:
    """Encode the same inputs with sae-lens and with the engine, in float32.

    Raises:
        BundleError: Activations differ by more than rounding, or other features are active.
    """
    import numpy as np
    import torch

    from ray_jobs.engine.encoder import Inputs, SaeEncoder

    x_ND = _checked_inputs(weights)
    if getattr(sae, "hook_z_reshaping_mode", False):
        sae.turn_off_forward_pass_hook_z_reshaping()  # heads lie side by side here
    with torch.no_grad():
        expected_NF = sae.encode(x_ND - x_ND.mean(dim=1, keepdim=True) if centre else x_ND).numpy()
    encoder = SaeEncoder.of(info, weights)
    found_NF = np.zeros_like(expected_NF)
    for active in encoder.active(Inputs(x_ND)):
        found_NF[active.token, active.feature] = active.value
    row_norm_F = weights.W_FD.norm(dim=1) * (1 if weights.scale_F is None else weights.scale_F)
    rounding_NF = ROUNDING * torch.outer(Inputs(x_ND).read(encoder).norm(dim=1), row_norm_F).numpy()
    rounding_NF += ROUNDING * expected_NF + np.finfo(np.float32).tiny
    wrong_NF = np.abs(expected_NF - found_NF) > rounding_NF
    if wrong_NF.any():
        wrong_NF &= ~_at_the_edge(encoder, x_ND, rounding_NF)
    if wrong_NF.any():
        token, feature = (int(place[0]) for place in np.nonzero(wrong_NF))
        raise BundleError(
            f"{where} is not encoded here as sae-lens encodes it (feature {feature} of a random input: "
            f"{found_NF[token, feature]:g}, sae-lens {expected_NF[token, feature]:g}; {int(wrong_NF.sum())} of "
            f"{wrong_NF.size} differ); choose another SAE and report this one"
        )


def _checked_inputs(weights: SaeWeights) -> torch.Tensor:
    """Inputs around the decoder bias, of every scale, half of them along a few encoder rows, so that features fire."""
    import torch

    n_features, d_in = weights.W_FD.shape
    generator = torch.Generator().manual_seed(0)
    noise_ND = torch.randn(CHECKED_TOKENS, d_in, generator=generator) / d_in**0.5
    chosen = torch.randint(n_features, (CHECKED_TOKENS, 4), generator=generator)
    rows_ND = weights.W_FD[chosen].mean(dim=1)
    noise_ND[::2] += (rows_ND / rows_ND.norm(dim=1, keepdim=True).clamp(min=1e-30))[::2]
    return torch.cat([weights.b_dec_D + scale * noise_ND for scale in CHECKED_SCALES])


def _at_the_edge(encoder: SaeEncoder, x_ND: torch.Tensor, rounding_NF: np.ndarray) -> np.ndarray:
    """Pairs whose pre-activation is so close to its cutoff (or a token's k-th largest) that rounding decides."""
    import numpy as np
    import torch

    from ray_jobs.engine.encoder import Inputs

    weights, info = encoder.weights, encoder.info
    with torch.inference_mode():
        r_NF = (Inputs(x_ND).read(encoder) @ weights.W_FD.T).numpy()
    if weights.cutoff_F is not None:
        return np.abs(r_NF - weights.cutoff_F.numpy()) <= rounding_NF
    assert info.k is not None
    pre_NF = r_NF + weights.bias_F.numpy()
    at_zero_NF = np.abs(pre_NF) <= rounding_NF
    if info.k == info.d_sae:
        return at_zero_NF
    ordered_NF = np.partition(pre_NF, (-info.k - 1, -info.k), axis=1)
    rounding_N1 = 2 * rounding_NF.max(axis=1, keepdims=True)
    tied_NF = [np.abs(pre_NF - ordered_NF[:, -rank, None]) <= rounding_N1 for rank in (info.k, info.k + 1)]
    return at_zero_NF | (tied_NF[0] & tied_NF[1])


def _from_release(spec: SaeSpec) -> tuple[Any, str]:
    """The SAE of a release, and the commit that it was read at."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from sae_lens import SAE

    assert spec.release is not None and spec.id is not None
    try:
        with warnings.catch_warnings(), pinned_downloads(spec.revision, spec.allow_pickle) as commits:
            warnings.simplefilter("ignore")
            with writing(HF_HUB_CACHE):
                sae = SAE.from_pretrained(spec.release, spec.id, device="cpu", dtype="float32")
        return sae, next(iter(commits.values()), "")
    except BundleError as error:
        raise BundleError(f"SAE {spec.name!r}: {error}") from None
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        what = f"SAE {spec.name!r}: release {spec.release!r}, id {spec.id!r}"
        if isinstance(error, ValueError) and "not found in" in str(error):
            raise BundleError(f"{what} is not known to sae-lens{_nearest(spec)}; check both") from None
        raise BundleError(f"{what} {_not_fetched(error)}") from None


def _not_fetched(error: Exception) -> str:
    """Why a release was not read: the hub said no, was not there, or sent what sae-lens does not understand."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    away = isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError | TimeoutError)
    if isinstance(error, EntryNotFoundError) and not away:
        return (
            f"is in sae-lens' registry, and its repository has no such file ({brief(error)}); "
            "check revision and id, or give the path of a local SAE"
        )
    if isinstance(error, HfHubHTTPError) and not away:
        status = error.response.status_code if error.response is not None else "an error"
        return (
            f"could not be fetched: the Hugging Face hub answered {status} ({brief(error)}); "
            "check that it is there and access (HF_TOKEN), or give the path of a local SAE"
        )
    if away or isinstance(error, OSError) or "connect" in type(error).__name__.lower():
        return (
            f"could not be fetched: the Hugging Face hub could not be reached ({brief(error)}); "
            "check the network, or give the path of a local SAE"
        )
    return f"could not be loaded by sae-lens ({brief(error)}); check that it is whole, or choose another SAE"


def _nearest(spec: SaeSpec) -> str:
    """The release, or the id within it, that was probably meant."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    releases = get_pretrained_saes_directory()
    release = releases.get(str(spec.release))
    return (
        did_you_mean(str(spec.release), releases) if release is None else did_you_mean(str(spec.id), release.saes_map)
    )


def _compare(spec: SaeSpec, cfg: Any, model_name: str, config: Any) -> tuple[Hook, tuple[str, ...], tuple[str, ...]]:
    """Where to hook, what contradicts the job, and what the SAE's metadata leaves open."""
    where = f"SAE {spec.name!r}"
    trained_on, hook_name = cfg.metadata.get("model_name"), cfg.metadata.get("hook_name")
    if cfg.metadata.get("hook_head_index") is not None:
        raise BundleError(
            f"{where} reads one attention head ({hook_name}, head {cfg.metadata['hook_head_index']}), which is not "
            "supported; choose an SAE of all heads"
        )
    mismatch, unverified = [], []
    if not trained_on:
        unverified.append("model")
    elif not same_model(str(trained_on), model_name):
        mismatch.append(f"it was trained on {trained_on}, the job's model is {model_name}")
    module = cfg.metadata.get("hf_hook_name")
    layer, site = parse_hook(str(hook_name), None if module is None else str(module)) if hook_name else (None, None)
    if site is None:
        unverified.append("site")
    elif spec.site is not None and spec.site != site:
        mismatch.append(f"it reads {site} ({hook_name}), the job says site {spec.site}")
    elif spec.site is None and site not in SITES:
        mismatch.append(f"it reads {hook_name}, which is none of {', '.join(SITES)}; if it is one of them, say site:")
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
    hook = Hook(hooked, spec.site or (site if site in SITES else "resid_post"))
    check_hook(config, hook, where)
    width, what = width_of(config, hook)
    if cfg.d_in != width:
        raise BundleError(
            f"{where} reads {cfg.d_in} dimensions, but {model_name} has {what} {width}; choose an SAE of this model"
        )
    return hook, tuple(mismatch), tuple(unverified)


def _aliases(name: str) -> set[str]:
    from transformer_lens.loading_from_pretrained import get_official_model_name

    names = {name}
    with contextlib.suppress(ValueError):
        names.add(get_official_model_name(name))  # "gpt2-small" is "gpt2", "mistral-7b" is "mistralai/Mistral-7B-v0.1"
    return {re.sub(r"[\s_]+", "-", alias.rsplit("/", 1)[-1].strip().lower()) for alias in names}
