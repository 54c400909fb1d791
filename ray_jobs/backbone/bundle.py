"""Open a prepared bundle: decoder layers up to the deepest hook, embedding, tokenizer, SAE encoders.

`bundle.json` names every file with its sha256 and says which model and SAEs they came from. The bundle's own sha256
covers everything that decides a value and nothing else, so a model read from another path gives the same one. Opening
reads the manifest only: weights are safetensors, memory-mapped where they are used. Bundles are built by
`ray_jobs.prepare.build`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.errors import BundleError
from ray_jobs.backbone.sites import Hook, in_order

FORMAT_VERSION = 3
HASHED_AS_VERSION = 2
"""The version that the bundle's sha256 is computed with: grows only when the same model and SAEs give other files."""
MANIFEST_NAME = "bundle.json"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
HEAD_NAME = "head.safetensors"
TOKENIZER_NAME = "tokenizer.json"
PROCESSOR_NAME = "preprocessor_config.json"

MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: the limit that safetensors itself sets


@dataclass(frozen=True)
class ModelInfo:
    """The model a bundle was cut from.

    Attributes:
        name: The name that SAE metadata is compared with, e.g. `gemma-2-2b`.
        source: Where it was read: hub name, directory or GGUF file.
        revision: Commit on the hub, or None for local sources.
        model_type: transformers' name of the decoder, e.g. `gemma2`.
        n_layers: Layers of the whole model (the bundle holds the first few).
        d_model: Width of the residual stream.
        vocab_size: Rows of the embedding.
        softcap: Attention logit soft cap, or None; it decides which attention implementations are exact.
    """

    name: str
    source: str
    revision: str | None
    model_type: str
    n_layers: int
    d_model: int
    vocab_size: int
    softcap: float | None


@dataclass(frozen=True)
class SaeInfo:
    """One SAE encoder of a bundle.

    Attributes:
        name: Column prefix in the store.
        layer: The layer whose activations it reads.
        site: Where in that layer: one of `ray_jobs.backbone.sites.SITES`.
        d_in: Width of its input.
        d_sae: Number of features.
        architecture: As sae-lens names it: `standard` (ReLU), `jumprelu`, `gated` or `topk`.
        apply_b_dec_to_input: Whether the decoder bias is subtracted from the input.
        source: Where it was read, as a mapping (`release` and `id`, or `path`).
        mismatch: What its metadata says against this model, where the job allowed it.
        unverified: What could not be compared because the metadata does not say.
        normalize_activations: How it normalises its input, as sae-lens names it.
        k: Active features of a token, for top-k; else None.
        sha256: Of its encoder's float32 values, see `ray_jobs.prepare.encoder_hash`.
    """

    name: str
    layer: int
    site: str
    d_in: int
    d_sae: int
    architecture: str
    apply_b_dec_to_input: bool
    source: Mapping[str, str]
    mismatch: tuple[str, ...]
    unverified: tuple[str, ...]
    normalize_activations: str = "none"
    k: int | None = None
    sha256: str = ""

    @property
    def hook(self) -> Hook:
        """Where its input is read."""
        return Hook(self.layer, self.site)

    @property
    def file_name(self) -> str:
        """The file of its weights in the bundle: the tensors of `ray_jobs.backbone.sae_families.SaeWeights`."""
        return f"sae_{self.name}.safetensors"


@dataclass(frozen=True)
class TurnTemplate:
    """A chat template that renders conversations of several turns; it is run on every one of them.

    Attributes:
        template: The template itself, in jinja.
        variables: Names that it knows: `bos_token` and such.
        generation_prompt: Whether the model's turn is opened at the end.
        system_prompt: What a conversation without a system turn begins with; None for nothing.
        roles: Whose turns' tokens count.
    """

    template: str
    variables: Mapping[str, Any]
    generation_prompt: bool
    system_prompt: str | None
    roles: tuple[str, ...]


@dataclass(frozen=True)
class ChatRendering:
    """What a chat template makes of a user's text, or of conversations.

    Attributes:
        before: What it puts before the text: beginning of sequence, system prompt, whose turn it is.
        after: What it puts behind it.
        trim: What it does to the text's ends: a name in `ray_jobs.backbone.chat.TRIMS`.
        lead: Ids that go before all of this: the beginning of a sequence that the template does not write.
        n_shared: Ids that begin every rendering, whatever the text.
        date: The day that it was told, YYYY-MM-DD; None where it asks for none.
        turns: How conversations are rendered, where the job's documents are such; `before`, `after` and `trim` are then
            without meaning.
    """

    before: str
    after: str
    trim: str
    lead: tuple[int, ...]
    n_shared: int
    date: str | None
    turns: TurnTemplate | None = None


@dataclass(frozen=True)
class TokenizerInfo:
    """What surrounds a document's own tokens.

    Attributes:
        bos: Ids put before every text: the beginning-of-sequence token, or nothing where the tokenizer adds none.
        pad: Id that fills rows of a batch; masked, so any valid id does.
        chat_prefix: Ids of the chat template before the user's text, or None without a usable template.
        chat_suffix: Ids after it.
        chat: How texts are rendered, in the bundle of a job with `chat: true`; None there means that the ids above and
            those of the text alone are the template's own rendering of any text.
    """

    bos: tuple[int, ...]
    pad: int
    chat_prefix: tuple[int, ...] | None
    chat_suffix: tuple[int, ...] | None
    chat: ChatRendering | None = None


@dataclass(frozen=True)
class VisionInfo:
    """How an image is fed to a model: ids of context, as many image tokens as it has positions, then the prompt.

    Attributes:
        token: Id of the image token, at each position of an image.
        tokens: Positions of an image in the decoder.
        patches: Positions of it in the vision tower.
        before: Ids before an image.
        after: Ids between an image and the prompt.
        text_before: What is tokenised together with a prompt, before it.
        text_after: Likewise, behind it.
        prefix: Whether all of this attends both ways (PaliGemma), or the image alone (Gemma 3).
    """

    token: int
    tokens: int
    patches: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    text_before: str
    text_after: str
    prefix: bool


@dataclass(frozen=True)
class HeadInfo:
    """How a whole model goes from its last layer to words.

    Attributes:
        tied: Whether the embedding is the output matrix; else that is in HEAD_NAME, and so is its bias, if it has one.
        eos: Ids that end what it writes, ascending.
    """

    tied: bool
    eos: tuple[int, ...]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; `sha256` identifies everything in it that decides a value.

    It has a `head` where it is of a whole model, final norm included, and then it has no SAEs.
    """

    path: Path
    sha256: str
    dtype: str
    model: ModelInfo
    saes: tuple[SaeInfo, ...]
    tokenizer: TokenizerInfo
    files: Mapping[str, str]
    vision: VisionInfo | None = None
    head: HeadInfo | None = None

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.d_model

    @property
    def hooks(self) -> Mapping[Hook, int]:
        """Where SAEs read -> the width there, in the order of a forward pass."""
        width = {sae.hook: sae.d_in for sae in self.saes}
        return {hook: width[hook] for hook in in_order(set(width))}

    @property
    def hook_layers(self) -> tuple[int, ...]:
        """Layers that some SAE reads, ascending."""
        return tuple(sorted({sae.layer for sae in self.saes}))

    @property
    def last_layer(self) -> int:
        """The deepest layer that some SAE reads; of a whole model its last one."""
        return max((sae.layer for sae in self.saes), default=self.model.n_layers - 1)


def open_bundle(path: str | Path, verify: bool = False) -> Bundle:
    """Open a prepared bundle.

    Args:
        path: Its directory.
        verify: Also hash every file (seconds per gigabyte) instead of only checking that it is there.

    Raises:
        BundleError: Not a bundle, of another format version, or damaged; run `sparsemill prepare` again.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path} is not a bundle: no {MANIFEST_NAME} there; build one with `sparsemill prepare`"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path / MANIFEST_NAME} cannot be read ({error}); delete {path} and prepare again") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{path} is a bundle of another format than version {FORMAT_VERSION}; delete it and prepare again"
        )
    try:
        bundle = _from_manifest(path, manifest)
    except (KeyError, TypeError) as error:
        raise BundleError(f"{path / MANIFEST_NAME} is incomplete ({error}); delete {path} and prepare again") from None
    if bundle.sha256 != manifest_sha256(manifest):
        raise BundleError(
            f"{path / MANIFEST_NAME} was edited: its sha256 does not match; delete {path} and prepare again"
        )
    for name, sha256 in bundle.files.items():
        if not (path / name).is_file():
            raise BundleError(f"{path} lacks {name}; delete it and prepare again")
        if verify and file_sha256(path / name) != sha256:
            raise BundleError(f"{path / name} is damaged: its sha256 does not match; delete {path} and prepare again")
    return bundle


@contextmanager
def bundle_file(path: Path) -> Iterator[None]:
    """Read a file of a bundle: whatever a library raises about it is one sentence.

    Raises:
        BundleError: The file is damaged or cannot be read.
    """
    try:
        yield
    except (BundleError, MemoryError, RuntimeError):  # a RuntimeError is torch's, of its device
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise BundleError(f"{path} is damaged ({reason}); delete {path.parent} and prepare again") from error


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> str:
    """Write `bundle.json` over the files of a finished directory; returns the bundle's sha256.

    `manifest` has the fields of `Bundle` as JSON, without `files`, `format_version` and `sha256`.
    """
    files = {path.name: file_sha256(path) for path in sorted(directory.iterdir()) if path.name != MANIFEST_NAME}
    document: dict[str, Any] = {"format_version": FORMAT_VERSION, **manifest, "files": files}
    document["sha256"] = manifest_sha256(document)
    (directory / MANIFEST_NAME).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return str(document["sha256"])


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Hash of what decides a value: all of the manifest but its own hash and what only says where things come from.

    The same model and SAEs give the hash that earlier versions gave them, so that stores of then can be compared.
    """
    model = {key: value for key, value in manifest["model"].items() if key not in ("name", "source", "revision")}
    saes = [{key: value for key, value in sae.items() if key not in ("source", "sha256")} for sae in manifest["saes"]]
    decisive = {**manifest, "format_version": HASHED_AS_VERSION, "model": model, "saes": saes}
    decisive.pop("sha256", None)
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tensor_header(path: Path) -> dict[str, tuple[list[int], int]]:
    """Name -> shape and bytes of every tensor of a safetensors file, from its header alone.

    Raises:
        BundleError: The file is damaged.
    """
    with bundle_file(path), path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise ValueError("its header is too long")
        header: dict[str, Any] = json.loads(file.read(length))
        return {
            name: (entry["shape"], entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__"
        }


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_manifest(path: Path, manifest: Mapping[str, Any]) -> Bundle:
    tokenizer, vision = manifest["tokenizer"], manifest.get("vision")
    prefix, suffix, chat = tokenizer["chat_prefix"], tokenizer["chat_suffix"], tokenizer.get("chat")
    head = manifest.get("head")
    return Bundle(
        path=path,
        sha256=manifest["sha256"],
        dtype=manifest["dtype"],
        model=ModelInfo(**manifest["model"]),
        saes=tuple(
            SaeInfo(**{**sae, **{key: tuple(sae[key]) for key in ("mismatch", "unverified")}, "sha256": sae["sha256"]})
            for sae in manifest["saes"]
        ),
        tokenizer=TokenizerInfo(
            bos=tuple(tokenizer["bos"]),
            pad=tokenizer["pad"],
            chat_prefix=None if prefix is None else tuple(prefix),
            chat_suffix=None if suffix is None else tuple(suffix),
            chat=None if chat is None else _rendering(chat),
        ),
        files=manifest["files"],
        vision=None
        if vision is None
        else VisionInfo(**{**vision, **{k: tuple(vision[k]) for k in ("before", "after")}}),
        head=None if head is None else HeadInfo(**{**head, "eos": tuple(head["eos"])}),
    )


def _rendering(chat: Mapping[str, Any]) -> ChatRendering:
    turns = chat.get("turns")
    found = None if turns is None else TurnTemplate(**{**turns, "roles": tuple(turns["roles"])})
    return ChatRendering(**{**chat, "lead": tuple(chat["lead"]), "turns": found})
