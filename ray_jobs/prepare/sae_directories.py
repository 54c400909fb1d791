"""Read an SAE from a directory as its authors lay it out: Gemma Scope, Llama Scope, sparsify and others.

The files are converted by sae-lens' own loaders for the hub, which find them here instead of there; nothing is
downloaded. What such a directory does not say (model, layer, site) is left out of the SAE's metadata: the job says it.
Names of folders count only where they are the layout's own, as in a copy of a repository
(`gemma-scope-2b-pt-res/layer_12/...`, sparsify's `layers.12`).
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.library_errors import brief
from featurestore.errors import BundleError
from featurestore.storage.pointers import pointer_among
from ray_jobs.prepare.judge_sae import SaeConfig
from ray_jobs.prepare.pickles import is_pickle, torch_that_reads_apart

if TYPE_CHECKING:
    from ray_jobs.spec import SaeSpec

_FOLDER = "sae"
"""What loaders are told that the directory is called, where its name means nothing."""


@dataclass(frozen=True)
class _Source:
    """What one of sae-lens' loaders is told of a directory.

    Attributes:
        loader: Its name among sae-lens' loaders for the hub.
        repository: As the repository would be called on the hub.
        folder: As the directory would be called in it.
        overrides: What the directory knows better than the loader.
        untold: Keys of the metadata that the loader fills in and the directory does not say.
        scale: What sae-lens' registry would say of the size of inputs, for loaders that need it.
        called: Another name for the directory, for a loader that reads names.
    """

    loader: str
    repository: str
    folder: str = _FOLDER
    overrides: Mapping[str, Any] = field(default_factory=dict)
    untold: tuple[str, ...] = ()
    scale: float | None = None
    called: str | None = None


@dataclass(frozen=True)
class _Layout:
    """A way to lay out an SAE: its name, the files that it is known by, and how to read it (None: sae-lens' own)."""

    name: str
    files: tuple[str, ...]
    source: Callable[[Path, SaeSpec], _Source] | None = None


MODEL, HOOK = ("model_name",), ("hook_name", "hf_hook_name")


def read_local(spec: SaeSpec) -> Any:
    """The SAE in the directory that a job names, as sae-lens loads it.

    Raises:
        BundleError: There is none, in no layout known, pickled without leave, damaged, or it does not say where it
            reads and neither does the job.
    """
    path, where = Path(str(spec.path)), f"SAE {spec.name!r}"
    layout = _layout_of(path, where)
    for folder in {(path / name).parent: None for name in layout.files}:
        if (problem := pointer_among(folder)) is not None:
            raise BundleError(f"{where}: {problem}")
    pickles = [name for name in layout.files if is_pickle(name)]
    if pickles and not spec.allow_pickle:
        raise BundleError(
            f"{where}: {path} keeps this SAE as {pickles[0]}, a pickle, in which code can hide; set allow_pickle: true "
            "for this SAE to have its tensors read in a process of its own, or give the path of a safetensors copy"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _loaded(path, layout, spec)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(
            f"{where}: {path}, in {layout.name}'s layout, cannot be loaded by sae-lens ({brief(error)}); check that "
            "its files are whole and belong together"
        ) from None


def own_config(spec: SaeSpec) -> SaeConfig | None:
    """What the config of a directory in sae-lens' own layout says; None in any other, or where it cannot be read."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    found = _found_layout(Path(str(spec.path)))
    if found is None or found.source is not None:
        return None
    try:
        return SaeConfig.of(loaders.handle_config_defaulting(loaders.get_sae_lens_config_from_disk(str(spec.path))))
    except Exception:  # noqa: BLE001 (libraries raise anything; `read_local` says what is wrong)
        return None


def local_files(path: Path) -> list[Path]:
    """The files of a directory that an SAE is read from, there or not; those of sae-lens' own layout if it has none."""
    found = _found_layout(path)
    if found is None:
        return [path / name for name in _LAYOUTS[0].files]
    beside = [path.parent / "config.json"] if found.name == "sparsify" else []
    return [*(path / name for name in found.files), *beside]


def layout_names(path: Path) -> list[str]:
    """What decides, besides the content of files, how a directory is read; nothing in sae-lens' own layout."""
    found = _found_layout(path)
    return [] if found is None or found.source is None else [found.name, str(path.absolute())]


def _layout_of(path: Path, where: str) -> _Layout:
    if not path.is_dir():
        raise BundleError(f"{where}: there is no directory {path}; check the path")
    found = _found_layout(path)
    if found is None:
        known = ", ".join(f"{layout.name} ({' and '.join(layout.files)})" for layout in _LAYOUTS)
        raise BundleError(
            f"{where}: {path} is an SAE in no layout known here, which are {known}, or cfg.json as sae-lens writes it "
            "and one other .safetensors file; load it where it was made, write it with sae-lens' save_model, and give "
            "that directory"
        )
    return found


def _found_layout(path: Path) -> _Layout | None:
    for layout in _LAYOUTS:
        if all((path / name).is_file() for name in layout.files) and not (
            layout.name == "sparsify" and "architecture" in _json(path / "cfg.json")
        ):
            return layout
    weights = [file.name for file in sorted(path.glob("*.safetensors")) if file.name != "sparsity.safetensors"]
    if (path / "cfg.json").is_file() and len(weights) == 1:
        return _Layout("sae-lens", ("cfg.json", weights[0]))
    return None


def _loaded(path: Path, layout: _Layout, spec: SaeSpec) -> Any:
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    if layout.source is None:
        return SAE.load_from_disk(path, device="cpu", dtype="float32", converter=_plain_converter(layout.files[1]))
    source = layout.source(path, spec)
    if "hook_name" in source.untold and (spec.layer is None or spec.site is None):
        missing = " and ".join(f"{key}:" for key in ("layer", "site") if getattr(spec, key) is None)
        raise BundleError(
            f"{path} does not say which layer and site it reads, as {layout.name} lays it out; add {missing} to this "
            "SAE in the job (site: resid_post is the stream behind the layer)"
        )

    def converter(_path: Any, device: str, cfg_overrides: Mapping[str, Any] | None = None) -> Any:
        loader: Any = loaders.NAMED_PRETRAINED_SAE_LOADERS[source.loader]
        told = {**source.overrides, **(cfg_overrides or {})}
        cfg, state, *_ = loader(source.repository, source.folder, device, False, told)
        return {key: value for key, value in cfg.items() if key not in source.untold}, state

    with _called(path, source.called) as seen, _downloads_from(seen, source.folder):
        sae = SAE.load_from_disk(path, device="cpu", dtype="float32", converter=converter)
    if source.scale is not None and sae.cfg.normalize_activations == "expected_average_only_in":
        sae.fold_activation_norm_scaling_factor(source.scale)
    return sae


@contextmanager
def _called(path: Path, name: str | None) -> Iterator[Path]:
    """A directory under another name, and the config that lies beside it."""
    if name is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sparsemill-") as scratch:
        (Path(scratch) / name).symlink_to(path.absolute(), target_is_directory=True)
        if (beside := path.absolute().parent / "config.json").is_file():
            (Path(scratch) / "config.json").symlink_to(beside)
        yield Path(scratch) / name


@contextmanager
def _downloads_from(path: Path, folder: str) -> Iterator[None]:
    """While it lasts, what sae-lens would download into `folder` is the file of that name in a directory."""
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors import safe_open

    def found(_repo_id: str, filename: str, subfolder: str = "", **_options: Any) -> str:
        name = f"{subfolder}/{filename}".removeprefix("/").removeprefix(f"{folder}/")
        if not (path / name).is_file():
            raise BundleError(f"{path} has no {name}; add it")
        return str(path / name)

    def download(repo_id: str, filename: str, **options: Any) -> str:
        return found(repo_id, filename, **options)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(found(repo_id, filename), "pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    names = ("hf_hub_download", "get_safetensors_tensor_shapes", "torch")
    before = {name: getattr(loaders, name) for name in names}
    replaced = (download, shapes, torch_that_reads_apart(loaders.torch))
    try:
        for name, instead in zip(names, replaced, strict=True):
            setattr(loaders, name, instead)
        yield
    finally:
        for name, original in before.items():
            setattr(loaders, name, original)


def _plain_converter(weights: str) -> Any:
    """Sae-lens' own format, whatever its weights are called."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def converter(path: Any, device: str, cfg_overrides: dict[str, Any] | None = None) -> Any:
        cfg = loaders.get_sae_lens_config_from_disk(path, device, cfg_overrides)
        return loaders.read_sae_components_from_disk(cfg, Path(path) / weights, device)

    return converter


def _gemma_scope(path: Path, spec: SaeSpec) -> _Source:
    import numpy as np

    with np.load(path / "params.npz", allow_pickle=False) as archive:
        names = [name for name in archive.files if name.lower() == "w_enc"]
        if not names:
            raise BundleError(f"{path / 'params.npz'} holds no W_enc, so it is no SAE of Gemma Scope; check the path")
        d_in, d_sae = archive[names[0]].shape
    overrides = {"d_in": int(d_in), "d_sae": int(d_sae)}
    repository = _part(path, r"(?:models--google--)?(gemma-scope-(?:2b|9b|27b)-(?:pt|it)-(?:res|mlp|att|transcoders))")
    layer, embedding = _part(path, r"layer_(\d+)"), _part(path, r"(embedding)")
    if repository and (layer or embedding):
        loader = "gemma_2_transcoder" if repository.endswith("transcoders") else "gemma_2"
        name = {"d_out": int(d_in)} if loader == "gemma_2_transcoder" else {}
        folder = f"layer_{layer}" if layer else "embedding"
        return _Source(loader, f"google/{repository}", f"{folder}/width_16k", {**overrides, **name})
    # Those of embeddings read them before the model scales them, which sae-lens makes up for.
    folder = "embedding" if embedding or spec.site == "embed" else "layer_0"
    return _Source("gemma_2", "google/gemma-scope-2b-pt-res", folder, overrides, (*MODEL, *HOOK))


_GEMMA_SCOPE_2 = {
    "output": "resid_post",
    "self_attn.o_proj.input": "attn_out",
    "post_feedforward_layernorm.output": "mlp_out",
    "pre_feedforward_layernorm.output": "transcoder",
}
"""Where an SAE of Gemma Scope 2 reads -> the folder that it lies in on the hub."""


def _gemma_scope_2(path: Path, _spec: SaeSpec) -> _Source:
    config = _json(path / "config.json")
    read = re.fullmatch(r"(?:.*\.)?layers\.(\d+)\.(.+)", str(config.get("hf_hook_point_in", "")))
    kind = _GEMMA_SCOPE_2.get(read[2]) if read else None
    if read and kind:
        return _Source("gemma_3", "google/gemma-scope-2", f"{kind}/layer_{read[1]}")
    return _Source("gemma_3", "google/gemma-scope-2", "resid_post/layer_0", untold=HOOK)


def _llama_scope(path: Path, _spec: SaeSpec) -> _Source:
    config = _json(path / "hyperparams.json")
    scale = config["d_model"] ** 0.5 / config["dataset_average_activation_norm"]["in"]
    known = _part(path, r"(?:models--fnlp--)?(Llama3_1-8B-Base-L(?:X|\d+)[RAMT]C?-\d+x)")
    return _Source("llama_scope", "fnlp/Llama3_1-8B-Base", untold=() if known else MODEL, scale=scale)


def _sparsify(path: Path, _spec: SaeSpec) -> _Source:
    config = _json(path / "cfg.json")
    for key, followed in (("activation", "topk"), ("transcode", False), ("skip_connection", False), ("signed", False)):
        if config.get(key, followed) != followed:
            raise BundleError(
                f"{path} says {key}: {config[key]}, which sae-lens' reader of this layout does not follow; choose "
                "another SAE"
            )
    overrides = {} if config.get("num_latents") else {"d_sae": int(config["d_in"] * config["expansion_factor"])}
    layer = re.fullmatch(r"(?:.*\.)?layers[._]\d+|embed_tokens", path.absolute().name)
    model = "model" in _json(path.absolute().parent / "config.json")
    untold = (*(() if layer else HOOK), *(() if model else MODEL))
    return _Source("sparsify", "local", overrides=overrides, untold=untold, called=None if layer else "layers.0")


def _dictionary_learning(path: Path, _spec: SaeSpec) -> _Source:
    read = str(_json(path / "config.json")["trainer"].get("submodule_name") or "resid_post")
    return _Source("dictionary_learning_1", "local", untold=() if read.startswith("resid_post") else HOOK)


_LAYOUTS = (
    _Layout("sae-lens", ("cfg.json", "sae_weights.safetensors")),
    _Layout("Gemma Scope", ("params.npz",), _gemma_scope),
    _Layout("Gemma Scope 2", ("config.json", "params.safetensors"), _gemma_scope_2),
    _Layout("Llama Scope", ("hyperparams.json", "checkpoints/final.safetensors"), _llama_scope),
    _Layout("sparsify", ("cfg.json", "sae.safetensors"), _sparsify),
    _Layout("dictionary_learning", ("config.json", "ae.pt"), _dictionary_learning),
)


def _part(path: Path, pattern: str) -> str | None:
    """What the innermost folder on the way to (and with) a directory matches, the first group of the pattern."""
    for name in reversed(path.absolute().parts):
        if found := re.fullmatch(pattern, name):
            return found[1]
    return None


def _json(path: Path) -> dict[str, Any]:
    """A config as a mapping; empty where there is none or it is something else (the loader then says so)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
