"""Read model checkpoints: find them, and take the part that a bundle needs.

A hub name, a Hugging Face directory or a GGUF file becomes embedding and layers `0..L` under the decoder's own tensor
names, its config cut to match, and its tokenizer. Only safetensors and GGUF are opened, and no code from a checkpoint
is ever run. From the hub, and from sharded directories, only the shards that hold those layers are read.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.library_errors import brief, reading, writing
from featurestore.errors import BundleError
from featurestore.storage.pointers import POINTER_BYTES, pointer_among, pointer_problem
from ray_jobs.backbone.bundle import (
    HEAD_NAME,
    WEIGHTS_NAME,
    HeadInfo,
)
from ray_jobs.backbone.decoder_layouts import family_of
from ray_jobs.images.feeding import check_takes_images
from ray_jobs.prepare.hub import commit_of, why_not_fetched
from ray_jobs.prepare.tensor_file import write_tensors

if TYPE_CHECKING:
    from ray_jobs.spec import ModelSpec

_AGAIN = "get the file again"
_OF_ALL_LAYERS = {"embed_tokens_per_layer.weight": 1, "per_layer_model_projection.weight": 0}
"""Tensors of Gemma 4 in which all layers have their part, one behind the other -> along which axis."""
SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
"""What is read of a model directory beside its weights: configs, and tokenizers of every kind (merges.txt, say)."""
_SAY_QUANTISED = ("quantization_config", "compression_config")
"""Keys of configs; the second is what compressed-tensors wrote first."""
_MODELOPT_NAME = "hf_quant_config.json"
"""Where older versions of ModelOpt say it, and nowhere else."""
_ORIGINAL = "give the original checkpoint or a GGUF file"
_WEIGHTS_ARE = frozenset(("F64", "F32", "F16", "BF16"))
"""What safetensors calls the dtypes of weights that are what they mean, with no scale to multiply them by."""
_HEADS = ("lm_head", "embed_out")  # what files call an output matrix, whatever transformers calls it in memory


@dataclass(frozen=True)
class Checkpoint:
    """A model on this disk (or, on the hub, its small files): what it is called and how to recognise it again."""

    name: str
    source: str
    directory: Path
    gguf: str | None = None
    revision: str | None = None


def find_checkpoint(spec: ModelSpec) -> Checkpoint:
    """Find the model of a job; of a hub model the small files are fetched, weights only when they are read.

    Raises:
        BundleError: There is no such file, directory or hub model, or the hub cannot be reached.
    """
    path = Path(spec.name).expanduser()
    if spec.name.endswith(".gguf"):
        if not path.is_file():
            raise BundleError(f"model.name: there is no file {path}; give the path of a GGUF file")
        if path.stat().st_size <= POINTER_BYTES and (problem := pointer_problem(path.read_bytes())) is not None:
            raise BundleError(f"model.name: {path} {problem}")
        return Checkpoint(name=path.stem, source=str(path), directory=path.parent, gguf=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BundleError(
                f"model.name: {path} is not a Hugging Face model directory: it has no config.json; check the path"
            )
        if (problem := pointer_among(path)) is not None:
            raise BundleError(f"model.name: {problem}")
        in_hub_cache = re.fullmatch(r"models--(.+)--(.+)", path.absolute().parent.parent.name)
        name = f"{in_hub_cache[1]}/{in_hub_cache[2]}" if in_hub_cache else path.absolute().name
        return Checkpoint(name=name, source=str(path), directory=path)
    if path.is_absolute() or spec.name.startswith((".", "~")) or spec.name.count("/") != 1:
        raise BundleError(
            f"model.name: {spec.name!r} is neither a directory, a .gguf file nor a hub name (owner/model); check it"
        )
    return _on_hub(spec.name, spec.revision)


def _on_hub(name: str, revision: str | None) -> Checkpoint:
    """The small files of a hub model, at the commit that `revision` (or its main branch) means now."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        # A commit whose files are in the hub's cache is not asked for: with it, this works without a network.
        with writing(HF_HUB_CACHE):
            commit = commit_of(name, revision)
            directory = Path(snapshot_download(name, revision=commit, allow_patterns=list(SMALL_FILES)))
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(
            f"model {name} (revision {revision or 'main'}) could not be fetched: {_why(error)}, "
            "or give a local directory or GGUF file"
        ) from None
    return Checkpoint(name=name, source=name, directory=directory, revision=directory.name)


def _why(error: Exception) -> str:
    return why_not_fetched(error) or f"the hub's library failed ({brief(error)}); try again"


def source_files(model: Checkpoint) -> list[Path]:
    """The files of a model on this disk that decide what a bundle of it holds, in the order of their names."""
    if model.gguf:
        return [model.directory / model.gguf]
    patterns = (*SMALL_FILES, "*.safetensors")
    return [path for path in sorted(model.directory.iterdir()) if any(map(path.match, patterns))]


def read_config(model: Checkpoint) -> Any:
    """The config of the model's text decoder.

    Raises:
        BundleError: It cannot be read, or belongs to a quantised checkpoint or to something else than a causal decoder.
    """
    config = _config(model)
    _refuse_quantised(config, model)  # of a model of several parts only the whole config says it
    kind = str(getattr(config, "model_type", None) or model.name)
    sees = getattr(config, "vision_config", None) is not None
    try:
        config = config.get_text_config()
        sizes = [int(getattr(config, name)) for name in ("num_hidden_layers", "hidden_size", "vocab_size")]
    except Exception as error:  # noqa: BLE001 (configs raise anything; some have no such fields)
        raise BundleError(
            f"{kind} models are not supported: their config does not say layers, width and vocabulary of one decoder "
            f"({brief(error)})"
        ) from None
    if min(sizes) < 1:
        raise BundleError(f"the config of {model.source} says {sizes[0]} layers of width {sizes[1]}; check the file")
    _refuse_quantised(config, model)
    both_ways = getattr(config, "use_bidirectional_attention", None) not in (None, False, "vision")  # texts are causal
    if both_ways or getattr(config, "is_encoder_decoder", False):
        only = (
            "of texts only those are supported; of images (corpus.image) it can be run"
            if sees
            else ("only those are supported")
        )
        raise BundleError(f"{model.source} is not a causal decoder, and {only}")
    return config


def read_vision_config(model: Checkpoint) -> Any:
    """The whole config of a model with a vision tower, whose decoder may let images and prompts attend both ways.

    Raises:
        BundleError: It cannot be read, or belongs to a quantised checkpoint or to a model that takes no images.
    """
    config = _config(model)
    check_takes_images(config, model.source)
    for one in (config, config.get_text_config()):
        _refuse_quantised(one, model)
    config.vision_config.vision_use_head = False  # pools the tower's positions, for nobody here
    return config


def _config(model: Checkpoint) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model.directory, trust_remote_code=False, **gguf_argument(model))
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(f"the config of {model.source} cannot be read ({brief(error)})") from None


def _refuse_quantised(config: Any, model: Checkpoint) -> None:
    if model.gguf is None and (any(getattr(config, name, None) for name in _SAY_QUANTISED) or _modelopt(model)):
        raise BundleError(f"{model.source} holds quantised weights; {_ORIGINAL}")


def _modelopt(model: Checkpoint) -> bool:
    """Whether NVIDIA's ModelOpt says that it quantised weights, and not only what the model caches as it runs."""
    path = model.directory / _MODELOPT_NAME
    if not path.is_file():
        return False
    with reading(path, BundleError, _AGAIN):
        return bool(json.loads(path.read_text(encoding="utf-8"))["quantization"]["quant_algo"])


def model_name(model: Checkpoint, config: Any) -> str:
    """What SAE metadata is compared with; a GGUF file says in its own metadata what it is."""
    return str(getattr(config, "_model_name_or_path", None) or model.name) if model.gguf else model.name


def truncate(config: Any, n_layers: int) -> None:
    """Cut a config (in place) to its first layers, and whatever it says layer by layer with it.

    That of an unknown family is left whole: what its layers compute may follow from how many there are (MiniCPM divides
    by the root of their number, MiniMax's decay is by their share of it). Of such a decoder only the layers are cut.

    Raises:
        BundleError: It does not let itself be cut.
    """
    if family_of(config) is not None:
        _cut(config, n_layers)


def _cut(config: Any, n_layers: int) -> None:
    whole = config.num_hidden_layers
    try:
        for name, value in config.to_dict().items():
            if isinstance(value, list) and len(value) == whole and whole > 1:
                setattr(config, name, value[:n_layers])
            elif name == "per_layer_config" and value:  # what some layers have otherwise, by their numbers
                config.per_layer_config = {layer: own for layer, own in value.items() if int(layer) < n_layers}
        if shared := getattr(config, "num_kv_shared_layers", 0):  # the last ones take keys and values of earlier ones
            config.num_kv_shared_layers = max(0, n_layers - (whole - shared))
        config.num_hidden_layers = n_layers
    except Exception as error:  # noqa: BLE001 (configs raise anything)
        raise BundleError(f"{config.model_type} models are not supported: {brief(error)}") from None


def config_json(config: Any) -> str:
    """The config as JSON, without what says where it came from."""
    fields = json.loads(config.to_json_string(use_diff=False))
    for unrelated in ("_name_or_path", "_model_name_or_path", "transformers_version", "quantization_config", "dtype"):
        fields.pop(unrelated, None)
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def decoder_shapes(config: Any, n_layers: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the first layers of a decoder, whose config `truncate` has cut.

    Raises:
        BundleError: transformers cannot build it.
    """
    from ray_jobs.backbone.backbone import build_empty

    return _shapes(_built(config, lambda of: build_empty(of, n_layers=n_layers)))


def write_weights(model: Checkpoint, config: Any, n_layers: int, dtype: Any, path: Path) -> None:
    """Write the tensors of a decoder's first layers, under its own names, in `dtype`, to a safetensors file.

    Of a safetensors checkpoint one tensor at a time is in memory; a GGUF file, and experts that have to be fused, are
    read whole.

    Raises:
        BundleError: The decoder is not built of layers, or tensors are missing, misshapen or pickled.
        OSError: The file cannot be written.
    """
    shapes = decoder_shapes(config, n_layers)
    with contextlib.ExitStack() as files:
        if model.gguf:
            read = _gguf_tensors(model, config, shapes, dtype).__getitem__
        else:
            read = _safetensors(model, config, shapes, dtype, files)
        write_tensors(path, shapes, dtype, _checked(model, shapes, read))


def write_whole(model: Checkpoint, config: Any, dtype: Any, directory: Path) -> HeadInfo:
    """Write all layers, the final norm and, where it is not the embedding, the output matrix of a language model.

    Returns:
        What a bundle says of its head.

    Raises:
        BundleError: transformers has no causal language model for it, or tensors are missing, misshapen or pickled.
        OSError: A file cannot be written.
    """
    from ray_jobs.backbone.backbone import build_empty, build_empty_with_head

    shapes = _shapes(_built(config, lambda of: build_empty(of, final_norm=True)))
    whole = _built(config, build_empty_with_head)
    output = whole.get_output_embeddings()
    if output is None:
        raise BundleError(f"{config.model_type} models have no head that turns their last layer into words")
    name = next(name for name, module in whole.named_modules() if module is output)
    tied = output.weight is whole.get_input_embeddings().weight
    with contextlib.ExitStack() as files:
        if model.gguf:
            heads = _head_shapes(output, tied)
            found = _gguf_tensors(model, config, shapes, dtype, heads)
            read, read_head = found.__getitem__, lambda key: found[f"{HEAD_NAME}:{key}"]
        else:
            read = _safetensors(model, config, shapes, dtype, files)
            tied = tied and not _has_own_head(model, whole, shapes, read, dtype)
            heads = _head_shapes(output, tied)
            read_head = _safetensors_head(model, name, heads, dtype, files)
        write_tensors(directory / WEIGHTS_NAME, shapes, dtype, _checked(model, shapes, read))
        if heads:
            write_tensors(directory / HEAD_NAME, heads, dtype, _checked(model, heads, read_head))
    return HeadInfo(tied, _eos(model, config))


def _head_shapes(output: Any, tied: bool) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what is written of an output matrix: all of it, or what a tied one has beside the embedding."""
    return {name: shape for name, shape in _shapes(output).items() if not (tied and name == "weight")}


def _has_own_head(model: Checkpoint, whole: Any, shapes: Iterable[str], read: Callable[[str], Any], dtype: Any) -> bool:
    """Whether a checkpoint whose config says that its embedding is the output matrix has another one all the same.

    A fine-tune may have trained one without saying so, and transformers believes the weights.

    Args:
        model: The checkpoint.
        whole: The language model that transformers builds of its config.
        shapes: Names of the tensors of its decoder.
        read: Reads those.
        dtype: In which the two are compared.
    """
    import torch

    output, embedding = whole.get_output_embeddings(), whole.get_input_embeddings()
    called = {module: f"{name}.weight" for name, module in whole.named_modules() if module in (output, embedding)}
    ours = next((name for name in shapes if f".{called[embedding]}".endswith(f".{name}")), None)
    if ours is None or _head_key(_places(model), called[output].removesuffix(".weight"), "weight") is None:
        return False
    matrix = {"weight": tuple(output.weight.shape)}
    with contextlib.ExitStack() as files:
        read_head = _safetensors_head(model, called[output].removesuffix(".weight"), matrix, dtype, files)
        return not torch.equal(_checked(model, matrix, read_head)("weight"), read(ours))


def _built(config: Any, build: Callable[[Any], Any]) -> Any:
    """A model of transformers without storage.

    Raises:
        BundleError: It cannot be built.
    """
    try:
        model = build(config)
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(f"{config.model_type} models are not supported ({brief(error)})") from None
    kept = model.state_dict()
    if lost := [name for name, buffer in model.named_buffers() if buffer.is_meta and name not in kept]:
        raise BundleError(
            f"{config.model_type} models are not supported: {lost[0]} is neither learnt nor computed here"
        )
    return model


def _shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all that has to be read; some parameters are made of numbers and have storage (xIELU's)."""
    learnt = dict(module.named_parameters())
    return {
        name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if tensor.is_meta or name in learnt
    }


def _checked(
    model: Checkpoint, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Any]
) -> Callable[[str], Any]:
    """Reads tensors and compares their shapes."""

    def checked(name: str) -> Any:
        tensor = read(name)
        if (axis := _OF_ALL_LAYERS.get(name)) is not None:
            tensor = tensor.narrow(axis, 0, min(shapes[name][axis], tensor.shape[axis])).contiguous()
        if tuple(tensor.shape) != shapes[name]:
            raise BundleError(f"{model.source}: {name} has shape {tuple(tensor.shape)}, its config says {shapes[name]}")
        return tensor

    return checked


def _eos(model: Checkpoint, config: Any) -> tuple[int, ...]:
    """Ids that end what a model writes, as `generate` takes them: of its generation config, or else of its config."""
    given: Any = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        given = json.loads((model.directory / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    given = given if given is not None else getattr(config, "eos_token_id", None)
    ids = given if isinstance(given, list | tuple) else [given]
    return tuple(sorted({i for i in ids if isinstance(i, int) and not isinstance(i, bool)}))


def _gguf_tensors(
    model: Checkpoint, config: Any, names: Mapping[str, Any], dtype: Any, head: Iterable[str] = ()
) -> dict[str, Any]:
    """Dequantised by transformers, which parses the whole file (10 s) whenever it is not handed the config.

    Tensors of the `head` are named "{HEAD_NAME}:{name}".
    """
    from transformers import AutoModelForCausalLM

    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model.directory, config=config, dtype=dtype, trust_remote_code=False, **gguf_argument(model)
        )
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(f"{model.source} cannot be read as a GGUF model ({brief(error)})") from None
    found = loaded.get_decoder().state_dict()
    output = {name: loaded.get_output_embeddings().state_dict()[name] for name in head}
    return {
        **{name: found[name].to(dtype).contiguous() for name in names},
        **{f"{HEAD_NAME}:{name}": tensor.to(dtype).contiguous() for name, tensor in output.items()},
    }


def _safetensors(
    model: Checkpoint, config: Any, names: Mapping[str, Any], dtype: Any, files: contextlib.ExitStack
) -> Callable[[str], Any]:
    """Reads the named tensors one by one, from the shards that hold them (fetched first where the model is on the hub).

    The shards stay open as long as `files`.
    """
    places = _places(model)
    stored = _stored_names(names, places)
    missing = [name for name in names if stored[name] not in places]
    if missing:  # transformers may know them by other names, and experts that are fused
        found = _converted(model, config, names, places, dtype)
        if found is not None:
            return found.__getitem__
        raise BundleError(
            f"{model.source} lacks {missing[0]} (and {len(missing) - 1} more tensors) that its config implies"
        )
    return _reader(model, stored, places, dtype, files)


def _safetensors_head(
    model: Checkpoint, module: str, names: Mapping[str, Any], dtype: Any, files: contextlib.ExitStack
) -> Callable[[str], Any]:
    """The same for the tensors of the output matrix, which models of several parts keep under longer names.

    Args:
        model: The checkpoint.
        module: What transformers calls the output matrix of the language model alone.
        names: Of its tensors.
        dtype: To convert to.
        files: Keeps the shards open.
    """
    places = _places(model)
    keys = {}
    for name in names:
        key = _head_key(places, module, name)
        if key is None:
            raise BundleError(f"{model.source} lacks {module}.{name}, its head, which its config implies")
        keys[name] = key
    return _reader(model, keys, places, dtype, files)


def _head_key(places: Mapping[str, str], module: str, name: str) -> str | None:
    """What a checkpoint calls a tensor of its output matrix; None where it has no such tensor."""
    called = (f".{way}.{name}" for way in (module, *_HEADS))
    ends = next((found for end in called if (found := [key for key in places if f".{key}".endswith(end)])), None)
    return None if ends is None else min(ends, key=len)


def _places(model: Checkpoint) -> dict[str, str]:
    """Name of each tensor of a safetensors checkpoint -> its file."""
    from safetensors import safe_open

    index = model.directory / "model.safetensors.index.json"
    if index.is_file():
        with reading(index, BundleError, _AGAIN):
            places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return places
    with reading(file := _weights_file(model, WEIGHTS_NAME), BundleError, _AGAIN), safe_open(file, "pt") as tensors:
        return dict.fromkeys(tensors.keys(), WEIGHTS_NAME)


def _reader(
    model: Checkpoint, keys: Mapping[str, str], places: Mapping[str, str], dtype: Any, files: contextlib.ExitStack
) -> Callable[[str], Any]:
    """Reads tensors, which the checkpoint has under these keys, from shards that stay open as long as `files`."""
    from safetensors import safe_open

    shards = {}
    for shard in sorted({places[key] for key in keys.values()}):
        with reading(file := _weights_file(model, shard), BundleError, _AGAIN):
            shards[shard] = file, files.enter_context(safe_open(file, "pt"))
    for key in keys.values():
        _check_dtype(model, key, *shards[places[key]])

    def read(name: str) -> Any:
        file, tensors = shards[places[keys[name]]]
        with reading(file, BundleError, _AGAIN):
            return tensors.get_tensor(keys[name]).to(dtype)

    return read


def _check_dtype(model: Checkpoint, key: str, file: Path, tensors: Any) -> None:
    """Refuse a tensor of a file whose values are not the weights themselves.

    Raises:
        BundleError: In a sentence that names it.
    """
    with reading(file, BundleError, _AGAIN):
        dtype = tensors.get_slice(key).get_dtype()
    if dtype not in _WEIGHTS_ARE:
        raise BundleError(f"{model.source} holds quantised weights: {key} is stored as {dtype}; {_ORIGINAL}")


_PARTS = ("language_model.", "vision_tower.", "multi_modal_projector.")
"""Of a model that takes images; checkpoints of several ages put unlike things before and behind these names."""


def _stored_names(names: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, str]:
    """Name in the model -> name in the checkpoint, where it is there."""
    if not any(name.startswith(_PARTS) for name in names):
        prefix = _prefix(names, places)
        return {name: f"{prefix}{name}" for name in names}
    stored: dict[str, str] = {}
    for part in _PARTS:
        own = [name.removeprefix(part) for name in names if name.startswith(part)]
        prefix = _prefix(dict.fromkeys(own), {key: shard for key, shard in places.items() if part in f"{key}."})
        stored |= {f"{part}{name}": f"{prefix}{name}" for name in own}
    return stored


def _prefix(names: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """What a checkpoint puts before the names of the decoder: that with which most of them are there."""
    first = next((name for name in names if "embed" in name or name.startswith("w")), next(iter(names)))
    found = sorted({key.removesuffix(first) for key in places if key == first or key.endswith(f".{first}")}, key=len)
    return max(found, key=lambda prefix: sum(f"{prefix}{name}" in places for name in names), default="")


def _converted(
    model: Checkpoint, config: Any, names: Mapping[str, Any], places: Mapping[str, str], dtype: Any
) -> dict[str, Any] | None:
    """Read a checkpoint whose tensors are named, or experts split, otherwise than the decoder's: as transformers does.

    It sees only the shards that hold the layers kept.

    Returns:
        None where tensors are missing all the same.
    """
    from safetensors import safe_open
    from transformers import AutoModel

    n_layers, cut = 1 + max(map(_layer_of, names)), copy.deepcopy(config)
    _cut(cut, n_layers)  # layers that are not kept would be made up, at their full size
    kept = {name: shard for name, shard in places.items() if _layer_of(name) < n_layers}
    with tempfile.TemporaryDirectory(prefix="sparsemill-") as scratch:
        directory = Path(scratch)
        for shard in sorted(set(kept.values())):
            file = _weights_file(model, shard)
            (directory / shard).symlink_to(file.absolute())
            with reading(file, BundleError, _AGAIN), safe_open(file, "pt") as tensors:
                for key in sorted(tensors.keys()):
                    if key in kept and key.endswith("weight"):  # no mask or table, which may well be of integers
                        _check_dtype(model, key, file, tensors)
        index = {"metadata": {"total_size": 0}, "weight_map": kept}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        if set(kept.values()) == {WEIGHTS_NAME}:
            (directory / "model.safetensors.index.json").unlink()
        try:
            loaded, told = AutoModel.from_pretrained(
                directory, config=cut, dtype=dtype, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:  # noqa: BLE001 (libraries raise anything)
            raise BundleError(f"{model.source} cannot be read by transformers ({brief(error)})") from None
        found = loaded.state_dict()
        if any(name not in found or name in told["missing_keys"] for name in names):
            return None
        return {name: found[name].to(dtype).contiguous().clone() for name in names}


def _layer_of(name: str) -> int:
    """The layer that a tensor belongs to; -1 for what belongs to none."""
    found = re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", f".{name}")
    return int(found[1]) if found else -1


def _weights_file(model: Checkpoint, name: str) -> Path:
    if model.revision is not None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.constants import HF_HUB_CACHE

        try:
            with writing(HF_HUB_CACHE):
                return Path(hf_hub_download(model.source, name, revision=model.revision))
        except Exception as error:  # noqa: BLE001 (libraries raise anything)
            raise BundleError(
                f"{name} of {model.source} could not be fetched: {_why(error)}, or give a local directory"
            ) from None
    if not (model.directory / name).is_file():
        raise BundleError(f"{model.directory} has no {name}; weights must be safetensors (pickled ones are not opened)")
    return model.directory / name


def gguf_argument(model: Checkpoint) -> dict[str, str]:
    """What transformers has to be told to read from a GGUF file."""
    return {"gguf_file": model.gguf} if model.gguf else {}
