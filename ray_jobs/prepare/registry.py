"""Read sae-lens' registry of SAEs, and say of each whether it can be run here: offline, in a second or two.

The registry is a file of sae-lens' package. Importing sae-lens takes many seconds, so its file is read without it, and
what its config getters would answer is worked out here, as far as release, id and path tell: an SAE whose config is a
file on the hub has `None` for what only that file says, and is judged again when it is fetched. `python -m
benchmarks.registry` holds all answers against those of the loader. Parsing the file takes a second and a half; it is
kept as JSON in this machine's cache, for this version of sae-lens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featurestore.errors import BundleError
from featurestore.storage.cache import cache_path
from ray_jobs.backbone.sites import SITES, parse_hook
from ray_jobs.prepare.judge_sae import SaeConfig, Wanted, check_kind, judge
from ray_jobs.prepare.models import hub_name, known_config
from ray_jobs.prepare.pickles import is_pickle

ALLOW_PICKLE = "allow_pickle"

_MISNAMED = {"llama_scope_r1_distill": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"}
"""Releases of which sae-lens' config getter names another model than its registry, their names and Neuronpedia do."""

_WHERE = "this SAE"


@dataclass(frozen=True)
class Entry:
    """One SAE of the registry, as it stands there.

    Attributes:
        release: Name of the release.
        id: Of the SAE in it.
        path: Where its files are in the repository.
        repo: Repository on the hub.
        model: The model, as the registry names it.
        converter: sae-lens' name of the format.
        l0: Expected number of active features of a token; None where it is not told.
        neuronpedia: Its id at Neuronpedia.
        overrides: What the registry says in place of the SAE's config.
    """

    release: str
    id: str
    path: str
    repo: str
    model: str
    converter: str
    l0: float | None
    neuronpedia: str | None
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class RegisteredSae:
    """What can be said of an SAE of the registry without fetching anything; None is what only its files say.

    Attributes:
        release: Name of the release.
        id: Of the SAE in it.
        model: What the hub calls the model that it was trained on.
        site: Where in a layer it reads.
        layer: Which layer.
        d_sae: Its features.
        l0: Expected number of active features of a token.
        neuronpedia: Its id at Neuronpedia.
        accepted: Whether it can be run.
        needs: The key under `saes` that has to be true for it: `allow_pickle`.
        reason: Why it is refused, in one sentence.
    """

    release: str
    id: str
    model: str
    site: str | None
    layer: int | None
    d_sae: int | None
    l0: float | None
    neuronpedia: str | None
    accepted: bool
    needs: str | None
    reason: str | None


@cache
def registered_saes() -> tuple[RegisteredSae, ...]:
    """Every SAE of the registry with its verdict, in the registry's order."""
    return tuple(described(entry) for entry in entries())


def described(entry: Entry) -> RegisteredSae:
    """What can be said of one SAE."""
    said, needs = said_of(entry), ALLOW_PICKLE if is_pickle(weights_of(entry)) else None
    model = hub_name(said.model or entry.model)
    layer, site = parse_hook(said.hook, said.module) if said.hook else (_layer(entry), None)
    try:
        config = known_config(model)
        if config is None or said.hook is None:  # what cannot be judged yet is judged when its config is fetched
            check_kind(_WHERE, said)
        else:
            judge(_WHERE, said, model, config, Wanted())
        reason = None
    except BundleError as refused:
        reason = str(refused).removeprefix(f"{_WHERE}: ")
    return RegisteredSae(
        entry.release,
        entry.id,
        model,
        site if site in SITES else None,
        layer,
        said.d_sae,
        _l0(entry),
        entry.neuronpedia,
        reason is None,
        needs,
        reason,
    )


def said_of(entry: Entry) -> SaeConfig:
    """What sae-lens' config getter will answer, as far as the registry tells."""
    said = _SAID.get(entry.converter, _of_unknown)(entry)
    changes: dict[str, Any] = {
        "model": entry.overrides.get("model_name") or _MISNAMED.get(entry.release),
        "normalization": entry.overrides.get("normalize_activations"),
        "changed": entry.overrides.get("model_from_pretrained_kwargs"),
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    return replace(said, **changes) if changes else said


def registered_config(release: str, id: str) -> SaeConfig | None:
    """What sae-lens' config getter will answer for an SAE of the registry; None of one that is not in it."""
    found = next((entry for entry in entries() if entry.release == release and entry.id == id), None)
    return None if found is None else said_of(found)


def trained_on(release: str, model: str | None) -> str | None:
    """The model that a release was trained on, where sae-lens says `model`."""
    return _MISNAMED.get(release, model)


def weights_of(entry: Entry) -> str:
    """The name of the file that holds its weights; its ending is what matters."""
    if entry.converter == "dictionary_learning_1":
        return f"{entry.path}/ae.pt"
    if entry.converter in ("connor_rob_hook_z", "deepseek_r1", "goodfire", "qwen_scope"):
        return entry.path
    return f"{entry.path}/params.npz" if entry.converter.startswith("gemma_2") else "weights.safetensors"


def neuronpedia_id(release: str, id: str) -> str | None:
    """An SAE's id at Neuronpedia, as `gemma-2-2b/12-gemmascope-res-16k`; None where the registry knows none."""
    return next((entry.neuronpedia for entry in entries() if (entry.release, entry.id) == (release, id)), None)


@cache
def features_of(width: str) -> int | None:
    """What a width in an SAE's name means: `16k` is 16,384, `65k` 65,536, `1m` 1,048,576; None if it is none."""
    found = re.fullmatch(r"(\d+)([km]?)", width.strip().lower().replace(",", ""))
    if found is None:
        return None
    number = int(found[1])
    if not found[2] or not number:
        return number or None
    about = number * (1_000 if found[2] == "k" else 1_000_000)
    power = 1 << (about + about // 20).bit_length() - 1  # the largest up to 5 % above: 1m means 4.9 % more
    if about <= power and (found[2] == "m" or power - about < 0.03 * about):
        return power
    return number * (1024 if found[2] == "k" else 1024 * 1024)  # 24k means 24,576, as 128k means 131,072


def width_word(features: int) -> str:
    """The width that means so many features, as names have it: `16k` for 16,384; digits where there is no word."""
    power = features.bit_count() == 1
    for word in (f"{features // 1_000_000}m" if power else "", f"{features // 1_000}k" if power else ""):
        if word and not word.startswith("0") and features_of(word) == features:
            return word
    return f"{features // 1024}k" if features % 1024 == 0 and features else str(features)


@cache
def entries() -> tuple[Entry, ...]:
    """All SAEs of the registry.

    Raises:
        ModuleNotFoundError: sae-lens is not installed.
    """
    return tuple(Entry(*fields) for fields in _kept())


def _kept() -> list[list[Any]]:
    """The fields of all entries, from the cache or from the registry's file."""
    found = find_spec("sae_lens")  # does not import it
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'sae_lens'", name="sae_lens")
    source = Path(found.origin).with_name("pretrained_saes.yaml")
    status = source.stat()
    kept = cache_path("registry") / f"{status.st_size}-{status.st_mtime_ns}.json"
    with contextlib.suppress(OSError, ValueError):
        fields = json.loads(kept.read_text(encoding="utf-8"))
        if isinstance(fields, list):
            return fields
    fields = list(_parsed(source))
    with contextlib.suppress(OSError):  # it only saves time
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(fields, allow_nan=False), encoding="utf-8")
        scratch.replace(kept)
    return fields


def _parsed(source: Path) -> list[list[Any]]:
    import yaml

    text = source.read_bytes()
    releases = yaml.load(text, Loader=yaml.CSafeLoader) if yaml.__with_libyaml__ else yaml.safe_load(text)
    return [
        [
            name,
            sae["id"],
            str(sae["path"]),
            release["repo_id"],
            release["model"],
            release.get("conversion_func") or "sae_lens",
            sae.get("l0") or None,
            sae.get("neuronpedia"),
            release.get("config_overrides") or {},
        ]
        for name, release in releases.items()
        for sae in release["saes"]
    ]


def _layer(entry: Entry) -> int | None:
    return _int(r"(?:layer[_-]?|blocks\.)(\d+)", entry.id)


def _l0(entry: Entry) -> float | None:
    """What the folder of its weights says, if that does; the registry is wrong about one of them."""
    named = _int(r"average_l0_(\d+)", entry.path)
    return entry.l0 if named is None else float(named)


def _int(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def _width(entry: Entry) -> int | None:
    """Features, where a name says it: `width_16k`, `width-2pow12`, `hook_resid_post_16384`, `v5_128k`, `w-32k`."""
    for text in (entry.id, entry.path, entry.release, entry.repo):
        if found := re.search(r"width[_-]2pow(\d+)", text):
            return int(2 ** int(found[1]))
        if found := re.search(r"(?:width|[_-]w|v5)[_-]?(\d+[km])(?![a-z\d])", text.lower()):
            return features_of(found[1])
        if found := re.search(r"hook_(?:resid_(?:pre|mid|post)|mlp_out|attn_out)_(\d{3,})|_ds(\d+)_", text):
            return int(found[1] or found[2])
    found = re.search(r"-(\d+[km])(?:__|-oai$|$)|_(\d+[km])-oai$", entry.neuronpedia or "")
    return features_of(found[1] or found[2]) if found else None


def _block(layer: int | None, inside: str) -> str | None:
    return None if layer is None else f"blocks.{layer}.{inside}"


def _of_sae_lens(entry: Entry) -> SaeConfig:
    """Of sae-lens' own format the registry tells the hook; architecture and normalisation stand in its cfg.json."""
    found = re.fullmatch(r"(blocks\.\d+\.[a-z_.]*[a-z])(?:_\d+)?|(hook_embed)", entry.id)
    return SaeConfig(model=entry.model, hook=found[0 if found[2] else 1] if found else None, d_sae=_width(entry))


def _of_unknown(entry: Entry) -> SaeConfig:
    """Of a format that came with a later version of sae-lens."""
    return SaeConfig(model=entry.model, d_sae=_width(entry))


def _of_hook_z(entry: Entry) -> SaeConfig:
    return replace(_of_sae_lens(entry), architecture="standard", normalization="none", reshape="hook_z")


def _of_gemma_2(entry: Entry) -> SaeConfig:
    layer, place = _layer_of_path(entry), re.sub(r".*-", "", entry.repo)
    inside = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}.get(place, "")
    hook = "hook_embed" if "embedding" in entry.path else _block(layer, inside)
    return SaeConfig(
        model=_gemma_2_model(entry),
        hook=hook,
        architecture="jumprelu",
        normalization="none",
        reshape="hook_z" if place == "att" else "none",
        d_sae=_width(entry),
    )


def _of_gemma_2_transcoder(entry: Entry) -> SaeConfig:
    return SaeConfig(
        model=_gemma_2_model(entry),
        hook=_block(_layer_of_path(entry), "ln2.hook_normalized"),
        architecture="jumprelu_transcoder",
        normalization="none",
        d_sae=_width(entry),
    )


def _of_gemma_3(entry: Entry) -> SaeConfig:
    """The hook by transformers' modules stands in a config.json; it is what the path says."""
    layer, transcoder = _layer_of_path(entry), "transcoder" in entry.path or "clt" in entry.path
    affine = "_skip" if "affine" in entry.path else ""
    if transcoder:
        hook, module = "hook_mlp_in", "pre_feedforward_layernorm.output"
    elif "attn_out" in entry.path:
        hook, module = "attn.hook_z", "self_attn.o_proj.input"
    elif "mlp_out" in entry.path:
        hook, module = "hook_mlp_out", "post_feedforward_layernorm.output"
    else:
        hook, module = "hook_resid_post", "output"
    return SaeConfig(
        model=entry.model,
        hook=_block(layer, hook),
        module=f"model.layers.{layer}.{module}",
        architecture=f"jumprelu{affine}_transcoder" if transcoder else "jumprelu",
        normalization="none",
        d_sae=_width(entry),
    )


def _of_llama_scope(entry: Entry) -> SaeConfig:
    found = re.search(r"L(\d+)([RAM])(?:-(\d+)x)?$", entry.path)
    if found is None:
        return _of_unknown(entry)
    inside = {"R": "hook_resid_post", "A": "hook_attn_out", "M": "hook_mlp_out"}[found[2]]
    return SaeConfig(
        model=entry.model,
        hook=f"blocks.{found[1]}.{inside}",
        architecture="jumprelu",
        normalization="expected_average_only_in",
        d_sae=4096 * int(found[3]) if found[3] else _width(entry),  # Llama 3.1 8B is 4,096 wide
    )


def _of_dictionary_learning(entry: Entry) -> SaeConfig:
    """Its config.json tells the architecture, one of those that are supported, and the model's name in full."""
    return SaeConfig(
        model=entry.model,
        hook=_block(_layer_of_path(entry), "hook_resid_post"),
        normalization="none",
        d_sae=_width(entry),
    )


def _of_one_file(entry: Entry) -> SaeConfig:
    """DeepSeek R1's and Goodfire's, whose configs are written into sae-lens."""
    return SaeConfig(
        model=entry.model,
        hook=_block(_int(r"[-_]l(?:ayer_)?(\d+)", entry.path), "hook_resid_post"),
        architecture="standard",
        normalization="none",
        d_sae=65_536,
    )


def _of_qwen_scope(entry: Entry) -> SaeConfig:
    layer, width = _int(r"layer(\d+)", entry.path), _int(r"-W(\d+)K", entry.repo)
    return SaeConfig(
        model=entry.model,
        hook=_block(layer, "hook_resid_post"),
        module=f"model.layers.{layer}",
        architecture="topk",
        normalization="none",
        d_sae=None if width is None else width * 1024,
    )


def _of_mwhanna(entry: Entry) -> SaeConfig:
    """Its features are counted in a file."""
    return SaeConfig(
        model=entry.model,
        hook=_block(_layer(entry), "mlp.hook_in"),
        architecture="transcoder",
        normalization="none",
    )


def _of_mntss(entry: Entry) -> SaeConfig:
    """Where it reads stands in a config.yaml."""
    return SaeConfig(model=entry.model, architecture="transcoder", normalization="none")


def _of_temporal(entry: Entry) -> SaeConfig:
    return replace(_of_sae_lens(entry), architecture="temporal")


def _layer_of_path(entry: Entry) -> int | None:
    return _int(r"layer_(\d+)", entry.path)


def _gemma_2_model(entry: Entry) -> str:
    found = re.search(r"(\d+b)-(pt|it)", entry.repo)
    return entry.model if found is None else f"gemma-2-{found[1]}{'-it' if found[2] == 'it' else ''}"


_SAID: Mapping[str, Callable[[Entry], SaeConfig]] = {
    "sae_lens": _of_sae_lens,
    "connor_rob_hook_z": _of_hook_z,
    "gemma_2": _of_gemma_2,
    "gemma_2_transcoder": _of_gemma_2_transcoder,
    "gemma_3": _of_gemma_3,
    "llama_scope": _of_llama_scope,
    "llama_scope_r1_distill": _of_llama_scope,
    "dictionary_learning_1": _of_dictionary_learning,
    "deepseek_r1": _of_one_file,
    "goodfire": _of_one_file,
    "qwen_scope": _of_qwen_scope,
    "mwhanna_transcoder": _of_mwhanna,
    "mntss_clt_layer_transcoder": _of_mntss,
    "temporal": _of_temporal,
}
