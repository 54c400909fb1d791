"""Load SAEs through sae-lens, bring them to the engine's form, and check them: against model and sae-lens' `encode`.

An SAE is judged by its config (`judge_sae`) before its weights are fetched, and again by the one that came with them.
What will run is the engine's encoder: before an SAE is accepted, it and sae-lens encode the same inputs and must agree.
Cost: about 0.1 s a million weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.library_errors import brief, writing
from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import SaeInfo
from ray_jobs.backbone.sae_families import centred, fold
from ray_jobs.backbone.sae_kinds import TRANSCODERS
from ray_jobs.prepare.encoder_hash import encoder_sha256
from ray_jobs.prepare.hub import pinned_downloads, why_not_fetched
from ray_jobs.prepare.judge_sae import SaeConfig, Verdict, Wanted, judge
from ray_jobs.prepare.registry import trained_on
from ray_jobs.prepare.sae_directories import own_config, read_local

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ray_jobs.backbone.sae_families import SaeWeights
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


def load_sae(spec: SaeSpec, model_name: str, config: Any) -> LoadedSae:
    """Load one SAE of a job and check it against the model.

    Args:
        spec: The SAE as the job names it.
        model_name: What the job's model is called.
        config: The config of its decoder.

    Raises:
        BundleError: It cannot be loaded, is of a kind not supported, or does not belong to the model.
    """
    where, wanted = f"SAE {spec.name!r}", Wanted(spec.layer, spec.site, spec.allow_mismatch)

    def judged(said: SaeConfig) -> Verdict:
        if spec.release is not None:
            said = replace(said, model=trained_on(spec.release, said.model))
        return judge(where, said, model_name, config, wanted)

    source = {"path": spec.path} if spec.path is not None else {"release": str(spec.release), "id": str(spec.id)}
    if spec.path is not None:
        if (said := own_config(spec)) is not None:
            judged(said)  # before its weights are read
        sae = read_local(spec)
    else:
        sae, source["revision"] = _from_release(spec, judged)
    cfg, verdict = sae.cfg, judged(SaeConfig.of(sae.cfg.to_dict()))
    architecture, unverified = cfg.architecture(), verdict.unverified
    if cfg.normalize_activations == "expected_average_only_in":
        unverified += ("input scale",)  # sae-lens did not find the factor, and encodes without it
    tensors = _tensors(sae, where)
    info = SaeInfo(
        name=spec.name,
        layer=verdict.hook.layer,
        site=verdict.hook.site,
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        architecture=architecture,
        apply_b_dec_to_input=bool(cfg.apply_b_dec_to_input),
        source=source,
        mismatch=verdict.mismatch,
        unverified=unverified,
        normalize_activations=cfg.normalize_activations,
        k=int(cfg.k) if architecture == "topk" else None,
        sha256=encoder_sha256(tensors, bool(cfg.apply_b_dec_to_input)),
    )
    weights = fold(architecture, tensors)
    if verdict.centred:
        weights = centred(weights, info.apply_b_dec_to_input)
    _check_encoder(where, sae, info, weights, verdict.centred)
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


def _from_release(spec: SaeSpec, judged: Callable[[SaeConfig], Verdict]) -> tuple[Any, str]:
    """The SAE of a release, judged by its config before its weights are fetched, and the commit it was read at."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    release, id = str(spec.release), str(spec.id)
    _check_known(spec)
    with pinned_downloads(spec.revision, spec.allow_pickle) as commits:
        judged(_fetched(spec, lambda: SaeConfig.of(load_sae_config_from_huggingface(release, id))))
        sae = _fetched(spec, lambda: SAE.from_pretrained(release, id, device="cpu", dtype="float32"))
    return sae, next(iter(commits.values()), "")


def _fetched(spec: SaeSpec, fetch: Callable[[], Any]) -> Any:
    """What sae-lens fetches, its warnings unsaid, its exceptions as sentences."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        with warnings.catch_warnings(), writing(HF_HUB_CACHE):
            warnings.simplefilter("ignore")
            return fetch()
    except BundleError as error:
        raise BundleError(f"SAE {spec.name!r}: {error}") from None
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        what = f"SAE {spec.name!r}: release {spec.release!r}, id {spec.id!r}"
        if (why := why_not_fetched(error)) is not None:
            raise BundleError(f"{what} could not be fetched: {why}, or give the path of a local SAE") from None
        raise BundleError(
            f"{what} could not be loaded by sae-lens ({brief(error)}); check that it is whole, or choose another SAE"
        ) from None


def _check_known(spec: SaeSpec) -> None:
    """Refuse a release that is neither in sae-lens' registry nor a repository, and an id that its release lacks."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    releases = get_pretrained_saes_directory()
    release, id = str(spec.release), str(spec.id)
    if release not in releases and "/" not in release:
        near = did_you_mean(release, releases)
    elif release in releases and id not in releases[release].saes_map:
        near = did_you_mean(id, releases[release].saes_map)
    else:
        return
    raise BundleError(
        f"SAE {spec.name!r}: release {release!r}, id {id!r} is not known to sae-lens{near}; check both "
        "(sparsemill saes lists them)"
    )
