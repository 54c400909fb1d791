"""Build the bundle of a job: the part of a model that its SAEs need, and their encoders, ready to be memory-mapped.

SAEs are loaded and checked first (seconds), the model after them (up to a minute). A bundle is built in a temporary
directory, appears under its name whole or not at all, and is reused as long as nothing that it was built from changed.
The actors of a node share one copy: the first builds it, the others wait for it, and none of them asks the hub again.
What a bundle's files hold is in `backbone.bundle`, which opens them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.library_errors import brief, writing
from featurestore.errors import BundleError
from featurestore.storage.cache import cache_path
from featurestore.storage.cached import BUILDING
from featurestore.storage.node_lock import node_lock
from ray_jobs.backbone.bundle import (
    CONFIG_NAME,
    FORMAT_VERSION,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    ModelInfo,
    file_sha256,
    open_bundle,
    write_manifest,
)
from ray_jobs.backbone.decoder_layouts import family_of
from ray_jobs.images.feeding import save_vision
from ray_jobs.prepare.checkpoint import (
    Checkpoint,
    config_json,
    find_checkpoint,
    model_name,
    read_config,
    read_vision_config,
    source_files,
    truncate,
    write_weights,
    write_whole,
)
from ray_jobs.prepare.compute_settings import settle
from ray_jobs.prepare.sae_directories import layout_names, local_files
from ray_jobs.prepare.sae_loader import load_sae
from ray_jobs.prepare.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.spec import JobSpec

Progress = Callable[[str], None]

WAITING = "another process of this machine prepares this bundle; waiting for it"

TRIAL_TOKENS = 5
"""Of the text that a decoder of an unknown family is tried on."""

BUILDER = 3
"""Raised where a bundle of the same sources is to be built anew: 2 cuts unknown decoders by their layers, 3 keeps heads
that are the checkpoint's own and refuses quantised weights."""

HASHED_BYTES = 2**30
"""Source files up to this size are recognised by content, larger ones by size and time: hashing takes a second a GB."""


def prepare(spec: JobSpec, cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """Build the bundle of a job, or find it built.

    Args:
        spec: The job; of it, `model`, `saes` and what the dtype follows from (see `compute_settings.settle`)
            matter. Without SAEs the whole model is kept, with its head.
        cache_dir: Where bundles are kept; default `bundles` in `$SPARSEMILL_CACHE` or `~/.cache/sparsemill`.
        progress: Called with a line of text before every slow step.

    Returns:
        The bundle's directory, for `ray_jobs.backbone.bundle.open_bundle`.

    Raises:
        BundleError: Model or SAE cannot be found, read or used, or do not belong together.
    """
    say = progress or (lambda _line: None)
    dtype = settle(spec, None).dtype
    root = cache_dir or default_cache_dir()
    locks, wait = root.with_name(f"{root.name}-locks"), lambda: say(WAITING)
    with node_lock(locks / _lock_name(spec, dtype), wait):  # the actors of a job look at its sources one by one
        model = find_checkpoint(spec.model)
        key = _key(model, spec, dtype)
        with node_lock(locks / key, wait):  # two jobs may name one bundle's sources by other paths
            return _find_or_build(root / key, model, spec, dtype, say)


def kept_bundle(sha256: str) -> Bundle | None:
    """The bundle that has this hash, among those that this machine keeps, whatever it was built from."""
    for path in sorted(default_cache_dir().glob(f"*/{MANIFEST_NAME}")):
        with contextlib.suppress(OSError, ValueError, AttributeError, BundleError):  # damaged, or of another version
            if json.loads(path.read_text(encoding="utf-8")).get("sha256") == sha256:
                return open_bundle(path.parent)
    return None


def pinned(spec: JobSpec, bundle: Bundle) -> JobSpec:
    """The job with the hub commits that its bundle was built from: another machine builds the same one of it.

    Args:
        spec: The job.
        bundle: Its bundle.
    """
    revisions = {sae.name: sae.source.get("revision") for sae in bundle.saes}
    saes = tuple(
        sae.model_copy(update={"revision": revisions.get(sae.name) or sae.revision}) if sae.path is None else sae
        for sae in spec.saes
    )
    told = bundle.tokenizer.chat.date if bundle.tokenizer.chat is not None else None
    model = spec.model.model_copy(
        update={"revision": bundle.model.revision or spec.model.revision, "date": told or spec.model.date}
    )
    return spec.model_copy(update={"model": model, "saes": saes})


def _find_or_build(target: Path, model: Checkpoint, spec: JobSpec, dtype: str, say: Progress) -> Path:
    root, key = target.parent, target.name
    if _is_whole(target):
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        building_as = BUILDING.format(name=key)
        for left in root.glob(f"{building_as}*"):  # of a killed process: whoever builds it holds the lock
            shutil.rmtree(left, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=building_as, dir=root))
    except OSError as error:
        raise BundleError(
            f"bundles cannot be kept in {root} ({error.strerror or error}); set SPARSEMILL_CACHE to another place"
        ) from None
    try:
        with writing(building):
            _build(building, model, spec, dtype, say)
            building.chmod(0o755)
            for path in building.iterdir():
                path.chmod(0o644)  # other users of the machine map the same pages
            _move(building, target)
    except OSError as error:
        raise BundleError(
            f"the bundle cannot be written to {root} ({error.strerror or error}); free space or set SPARSEMILL_CACHE"
        ) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    # A job that names these commits, as workers and resumed runs do, finds the same bundle.
    commits = root / _key(model, pinned(spec, open_bundle(target)), dtype)
    if commits != target:
        with contextlib.suppress(OSError):  # then such a job builds its own
            commits.symlink_to(target.name, target_is_directory=True)
    return target


def default_cache_dir() -> Path:
    """`bundles` in `$SPARSEMILL_CACHE`, or in `~/.cache/sparsemill`."""
    return cache_path("bundles")


def _is_whole(path: Path) -> bool:
    with contextlib.suppress(BundleError):
        open_bundle(path)
        return True
    return False


def _move(building: Path, target: Path) -> None:
    """Give a finished bundle its name, unless another process was faster; a damaged one makes way."""
    if target.is_symlink():  # its bundle is gone, or it would have been found whole
        target.unlink()
    elif target.exists() and not _is_whole(target):
        shutil.rmtree(target)
    try:
        building.rename(target)
    except OSError:
        if not _is_whole(target):
            raise


def _build(directory: Path, model: Checkpoint, spec: JobSpec, dtype: str, say: Progress) -> None:
    import torch
    from safetensors.torch import save_file

    torch_dtype = getattr(torch, dtype)
    of_images = spec.corpus.image is not None
    full = read_vision_config(model) if of_images else read_config(model)
    config = full.get_text_config() if of_images else full
    name = model_name(model, config)
    infos = []
    behind_bos: dict[bool, str] = {}
    for sae_spec in spec.saes:
        say(f"loading SAE {sae_spec.name}")
        sae = load_sae(sae_spec, name, config)
        tensors = sae.weights.tensors()
        tensors["W_enc"] = tensors["W_enc"].to(torch_dtype)
        save_file({key: value.contiguous() for key, value in tensors.items()}, directory / sae.info.file_name)
        infos.append(sae.info)
        if sae.prepend_bos is not None:
            behind_bos.setdefault(sae.prepend_bos, sae.info.name)
    if len(behind_bos) == 2:
        raise BundleError(
            f"SAE {behind_bos[True]!r} was trained behind a beginning-of-sequence token and SAE {behind_bos[False]!r} "
            "without one, so one pass cannot serve both; give each a job of its own"
        )
    answering = not spec.saes  # nothing reads a layer, so it is the model's answers that are wanted
    n_kept = config.num_hidden_layers if answering else max(info.layer for info in infos) + 1
    model_info = ModelInfo(
        name=name,
        source=model.source,
        revision=model.revision,
        model_type=full.model_type,
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        vocab_size=config.vocab_size,
        softcap=getattr(config, "attn_logit_softcapping", None),
    )
    head = "" if not answering else " with its head"
    say(f"taking layers 0 to {n_kept - 1} of {model_info.n_layers} of {name}{head} in {dtype}")
    truncate(config, n_kept)
    answers = {}
    if answering:
        answers = asdict(write_whole(model, config, torch_dtype, directory))
    else:
        write_weights(model, full, n_kept, torch_dtype, directory / WEIGHTS_NAME)
    (directory / CONFIG_NAME).write_text(config_json(full), encoding="utf-8")
    conversations = spec.corpus.messages is not None
    tokenizer = save_tokenizer(
        model,
        directory,
        config.vocab_size,
        next(iter(behind_bos), None),
        spec.model,
        conversations,
        always_render=answering,
    )
    vision = {"vision": asdict(save_vision(model.directory, model.source, full, directory))} if of_images else {}
    write_manifest(
        directory,
        {
            "model": asdict(model_info),
            "dtype": dtype,
            "saes": [asdict(info) for info in infos],
            "tokenizer": _without_nulls(asdict(tokenizer), "chat", "turns"),
            **vision,
            **({"head": answers} if answering else {}),
        },
    )
    if infos and not of_images and family_of(config) is None:
        say(f"trying a {config.model_type} decoder, which this version does not know")
        _try_decoder(open_bundle(directory))


def _try_decoder(bundle: Bundle) -> None:
    """Run a decoder that nobody has checked over a few tokens: what does not run is refused here, and not by document.

    Raises:
        BundleError: It fails, or does not have at its hooks what SAEs read there.
    """
    import numpy as np

    from ray_jobs.backbone.backbone import open_backbone
    from ray_jobs.backbone.tokens import Window

    head = np.asarray(bundle.tokenizer.bos, dtype=np.int32)
    ids = np.linspace(0, bundle.model.vocab_size - 1, TRIAL_TOKENS).astype(np.int32)
    window = Window(0, np.concatenate([head, ids]), len(head), len(head) + len(ids))
    refused = f"{bundle.model.model_type} models are not supported"
    try:
        found = open_backbone(bundle, "cpu", "eager", head).forward([window], len(window.ids))
    except Exception as error:  # noqa: BLE001 (whatever transformers' modules raise)
        instead = "; try model.dtype: float32" if bundle.dtype != "float32" else ""
        raise BundleError(
            f"{refused}: cut to its first layers, it does not run in {bundle.dtype} ({brief(error)}){instead}"
        ) from None
    for hook, width in bundle.hooks.items():
        if found[hook].shape != (len(ids), width):
            raise BundleError(f"{refused}: what one has at {hook} is {found[hook].shape[-1]} wide, not {width}")


def _without_nulls(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """Fields, without those of these names that hold nothing: earlier versions did not have them."""
    return {
        key: _without_nulls(value, *names) if isinstance(value, dict) else value
        for key, value in fields.items()
        if key not in names or value is not None
    }


def _lock_name(spec: JobSpec, dtype: str) -> str:
    """Of a bundle before its sources were looked at: the same for all actors of a job."""
    model = spec.model.model_dump(include={"name", "revision", "chat", "generation_prompt", "date"})
    sources = [model, [sae.model_dump() for sae in spec.saes], dtype, spec.corpus.image is not None, *_turns(spec)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:32]


def _key(model: Checkpoint, spec: JobSpec, dtype: str) -> str:
    """Directory name of a bundle: a hash of all it is built from."""
    from importlib.metadata import version

    saes, chat = spec.saes, spec.model
    sources: list[Any] = [[sae.name, sae.layer, sae.allow_mismatch, sae.release, sae.id] for sae in saes]
    sources += [[sae.name, sae.revision] for sae in saes if sae.revision is not None]
    sources += [[sae.name, "site", sae.site] for sae in saes if sae.site is not None]
    for path in (Path(sae.path) for sae in saes if sae.path is not None):
        sources += [_identity(file) for file in local_files(path)]
        sources += [names] if (names := layout_names(path)) else []
    sources += [["chat", chat.generation_prompt, chat.date], *_turns(spec)] if chat.chat else []
    sources += ["images"] if spec.corpus.image is not None else []
    sources += [["whole", "bias of a tied head"]] if not saes else []  # bundles of before lack it
    if model.revision is not None:
        sources.append([model.source, model.revision])
    else:
        sources += [[model.name, _identity(path)] for path in source_files(model)]
    made_by = [FORMAT_VERSION, BUILDER, dtype, version("transformers"), version("sae-lens")]
    return hashlib.sha256(json.dumps([made_by, sources]).encode()).hexdigest()[:32]


def _turns(spec: JobSpec) -> list[Any]:
    """What of a job decides how conversations are rendered, and a system prompt; nothing of jobs without either."""
    prompt, turns = spec.model.system_prompt, spec.model.turns
    found: list[Any] = [] if prompt is None else [["system_prompt", prompt]]
    return found if spec.corpus.messages is None else [*found, ["turns", list(turns)]]


def _identity(path: Path) -> list[Any]:
    """Name and content of a file; of a large one size and time; of a missing one nothing (it is reported on use)."""
    if not path.is_file():
        return [path.name, None]
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns if status.st_size > HASHED_BYTES else file_sha256(path)]
