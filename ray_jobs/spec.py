"""Validate JOB.yaml: what a job is, as frozen values.

Every key is checked before anything is downloaded or started, an unknown one is refused with the nearest valid name,
and relative paths are resolved against the directory of JOB.yaml, so that a job means the same wherever it is called
from. Whether the things that a job names exist is found out by those who open them (`corpus.scan`, `prepare`).
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from featurestore.base.dense_names import HIDDEN, PIXELS, parse_dense_name
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import NAMED, is_pool, pool_order
from featurestore.errors import JobSpecError
from featurestore.finding.dialect import CsvSpec
from featurestore.finding.files import IMAGE, TABLE_OR_IMAGE
from featurestore.finding.patterns import joined
from featurestore.specs.spec_file import load_mapping, parse_spec
from featurestore.specs.spec_values import Flag, OneOrMore, PathText
from ray_jobs.backbone.sites import Site
from ray_jobs.tolerance import errors_allowed

RESERVED_COLUMNS = ("doc_id", "n_tokens", "truncated", "error")

_SAE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def _listed(value: Any) -> Any:
    """A lone text is a list of one: `pool: max`, `keep: label`, `path: a.csv`."""
    return (value,) if isinstance(value, str) else _list(value)


def _list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list; write [a, b] or one '- a' a line")
    return value


def _filled(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("is empty; name at least one")
    return value


def _utf8(value: str) -> str:
    if any("\ud800" <= char <= "\udfff" for char in value) or "\0" in value:
        raise ValueError("holds a character that no file or column name can have; remove it")
    return value


def _day(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        try:
            datetime.date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value} is no day of the calendar") from None
        return value
    raise ValueError(f"must be a day, as 2026-01-31, not {value!r}")


Name = Annotated[str, Field(min_length=1), BeforeValidator(lambda v: _utf8(v) if isinstance(v, str) else v)]
PathName = Annotated[PathText, BeforeValidator(lambda v: _utf8(v) if isinstance(v, str) else v)]
Names = Annotated[tuple[Name, ...], OneOrMore(_listed)]
FilledNames = Annotated[Names, AfterValidator(_filled)]
Count = Annotated[int, Field(ge=1, strict=True)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusSpec(_Spec):
    """Where the documents are and which columns (JSON keys) to take.

    Attributes:
        path: Files, globs or directories, local or as URLs (`s3://`, `gs://`, `hf://`, ...); of a job that was loaded,
            with the job's directory in front and every `[`, `*`, `?`, `{` of that in brackets.
        text: The column that holds the document; of images the one that holds the prompt of each, if there is one.
        messages: In its place, a column of conversations: lists of turns, each with a `role` and a `content`.
        image: The column that holds the document's image: encoded bytes, a path from the table's directory on, or what
            `datasets` makes of both. Of a directory of image files, each of which is a document, any name will do.
        id: The column that holds its unique id; without one, ids are "{file name}:{row}".
        keep: Further columns to copy into the store.
        format: Taken from the file names where not given; `images` are image files alone.
        csv: How CSV files are written, where they do not say it themselves.
        max_errors: A run of which more documents failed ends with exit code 1: a share below 1 (0.5 is half of them,
            exactly half passes), or a whole number (1 is one document; 0 allows none).
    """

    path: Annotated[tuple[PathName, ...], OneOrMore(_listed), AfterValidator(_filled)]
    text: Name | None = "text"
    messages: Name | None = None
    image: Name | None = None
    id: Name | None = None
    keep: Names = ()
    format: Literal["parquet", "jsonl", "csv", "images"] | None = None
    csv: CsvSpec | None = None
    max_errors: Annotated[float | int, BeforeValidator(errors_allowed)] = 0.5

    @model_validator(mode="before")
    @classmethod
    def _messages_are_the_text(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("messages") is not None:
            if data.get("text", data["messages"]) != data["messages"]:
                raise ValueError("a document is either a text or a conversation; remove text or messages")
            return {**data, "text": data["messages"]}
        return data

    @model_validator(mode="before")
    @classmethod
    def _images_need_no_text(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        image = data.get("image")
        if image is None and data.get("format") == "images":
            image = IMAGE
        return data if image is None else {"text": None, **data, "image": image}

    @model_validator(mode="after")
    def _is_of_something(self) -> Self:
        if self.text is None and self.image is None:
            raise ValueError("text is null; name the column that holds the document, or an image column")
        if self.messages is not None and self.image is not None:
            raise ValueError("a document is either an image or a conversation; remove image or messages")
        return self

    @property
    def find_as(self) -> str | None:
        """The format that files are looked for with; see `featurestore.finding.files.look_up`."""
        if self.format == "images":
            return IMAGE
        return TABLE_OR_IMAGE if self.format is None and self.image is not None else self.format

    @field_validator("keep")
    @classmethod
    def _keep_is_storable(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        for name in keep:
            if keep.count(name) > 1:
                raise ValueError(f"names '{name}' twice; remove one")
            if name in RESERVED_COLUMNS:
                raise ValueError(f"'{name}' is a column that every store has already; rename or drop it")
            if parse_dense_name(name) is not None:
                raise ValueError(f"'{name}' is the name of a hidden-state column; rename or drop it")
        return keep


class ModelSpec(_Spec):
    """The language model and how documents are fed to it.

    Attributes:
        name: A hub name, a directory, or a .gguf file.
        revision: Branch, tag or commit on the hub.
        dtype: Compute dtype; chosen from the hardware where not given.
        max_tokens: Positions fed to the model at once, beginning-of-sequence and template included.
        long_documents: Cut what does not fit, or go on in a further window.
        stride: Tokens of context that a further window repeats; `max_tokens // 8` where not given, 0 when truncating.
        tokens: Pool the tokens of the text only (`content`), or `all` that are fed (beginning-of-sequence and template
            too). In a job of images: `image`, the positions of the image, which is the default there; `text`, those
            behind it; or `all`.
        prompt: In a job of images, what is fed behind each image, before its own text if it has one.
        chat: Put each document into the model's chat template as a user's turn.
        turns: The roles whose turns of a conversation (`corpus.messages`) are pooled.
        system_prompt: What the template is given as the system's turn, where a conversation has none of its own.
        generation_prompt: Open the model's turn behind it (with `tokens: all`, which alone can see it).
        date: The day that a chat template is told which asks for it; the day of `prepare` where not given.
        attn: Attention implementation; chosen for the model where not given.
    """

    name: PathName
    revision: Name | None = None
    dtype: Literal["bfloat16", "float32"] | None = None
    max_tokens: Annotated[int, Field(ge=2, le=2**20, strict=True)] = 1024
    long_documents: Literal["truncate", "windows"] = "truncate"
    stride: Annotated[int, Field(ge=0, strict=True)] = 0
    tokens: Literal["content", "all", "image", "text"] = "content"
    prompt: str = ""
    chat: Flag = False
    turns: FilledNames = ("user",)
    system_prompt: Annotated[str, Field(min_length=1)] | None = None
    generation_prompt: Flag = False
    date: Annotated[str, BeforeValidator(_day)] | None = None
    attn: Literal["eager", "flex_attention", "sdpa"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _stride_is_derived(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("long_documents") == "windows" and data.get("stride") is None:
            max_tokens = data.get("max_tokens", cls.model_fields["max_tokens"].default)
            return {**data, "stride": max_tokens // 8 if isinstance(max_tokens, int) else 0}
        return data

    @model_validator(mode="after")
    def _chat_is_on(self) -> Self:
        said = {
            "generation_prompt": self.generation_prompt,
            "system_prompt": self.system_prompt is not None,
            "date": self.date is not None,
        }
        if not self.chat and any(said.values()):
            key = next(key for key, is_said in said.items() if is_said)
            raise ValueError(f"{key} only has a meaning with chat: true; set that or remove {key}")
        if self.generation_prompt and self.tokens != "all":
            raise ValueError(
                "generation_prompt only has a meaning with tokens: all, for no token of a text sees what follows it; "
                "set that or remove generation_prompt"
            )
        return self

    @model_validator(mode="after")
    def _stride_leaves_room(self) -> Self:
        if self.long_documents == "truncate" and self.stride:
            raise ValueError("stride only has a meaning with long_documents: windows; set that or remove stride")
        if self.long_documents == "windows" and self.stride > self.max_tokens - 2:
            raise ValueError(
                f"stride {self.stride} leaves a window of max_tokens {self.max_tokens} no room for new tokens;"
                f" set it to at most {self.max_tokens - 2}"
            )
        return self


class SaeSpec(_Spec):
    """One sparse autoencoder: `release` + `id` of sae-lens, or `path`, a directory (see `prepare.sae_directories`).

    Attributes:
        release: A release of sae-lens' registry, or a repository on the hub.
        id: An SAE of the release, or a folder in the repository.
        path: A directory with an SAE, in place of release and id.
        revision: Branch, tag or commit of the release on the hub.
        name: Prefix of its columns in the store; derived where not given ("layer_12/width_16k/..." -> "l12_16k").
        layer: The layer that it reads; taken from the SAE's own metadata where not given.
        site: Where in the layer it reads (`resid_post`, `mlp_out`, ...); likewise.
        allow_pickle: Open weights that are kept as a pickle, tensors only, in a process of its own.
        allow_mismatch: Run although its metadata names another model, layer or site; the store records it.
    """

    release: Name | None = None
    id: Name | None = None
    path: PathName | None = None
    revision: Name | None = None
    name: str = ""
    layer: Annotated[int, Field(ge=0, strict=True)] | None = None
    site: Site | None = None
    allow_mismatch: Flag = False
    allow_pickle: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _name_is_derived(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("name") is None:
            return {**data, "name": _derived_name(data.get("id") or data.get("path"))}
        return data

    @field_validator("name")
    @classmethod
    def _name_is_a_column_prefix(cls, name: str) -> str:
        if not _SAE_NAME.fullmatch(name) or "__" in name:
            raise ValueError(
                f"'{name}' cannot begin column names; use a letter, then letters, digits and single underscores"
            )
        return name

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is not None and (self.release is not None or self.id is not None):
            raise ValueError("an SAE has either a path or a release and id, not both; remove one")
        if self.path is None and (self.release is None or self.id is None):
            raise ValueError("an SAE needs a release and an id of sae-lens, or a path; add what is missing")
        if self.path is not None and self.revision is not None:
            raise ValueError("revision is of a release on the hub, and this SAE has a path; remove one")
        return self


class WorkersSpec(_Spec):
    """What to run on.

    Attributes:
        max: At most so many workers (actors of Ray); as many as there is room for where not given.
        gpus: GPUs of each, a fraction of one where several share it; the layers are divided among several. 1 or 0 where
            not given, as there are GPUs here.
        cpus: Threads of torch of each; 2 beside a GPU and 1 without where not given.
        batch_tokens: Tokens that are fed to the model at once; chosen for the device where not given.
        hardware: For `plan` alone: the kind of hardware to price.
        rates: For `plan` alone: the rates file that knows it; by default the one that comes with the package.
    """

    max: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    gpus: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] | None = None
    cpus: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None  # more threads than any machine has cores
    batch_tokens: Annotated[int, Field(ge=1, le=2**20, strict=True)] | None = None
    hardware: Name | None = None
    rates: PathName | None = None

    @field_validator("gpus")
    @classmethod
    def _several_gpus_are_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and not gpus.is_integer():
            raise ValueError(f"{gpus:g} is neither a fraction of one GPU nor a whole number of them; set it to one")
        return gpus


class UnitsSpec(_Spec):
    """How the work is divided.

    Attributes:
        documents: Documents of a unit of work; sized from the tokens of the corpus where not given.
    """

    documents: Count | None = None


class JobSpec(_Spec):
    """A whole job: corpus -> model -> SAEs -> store.

    Attributes:
        corpus: Where the documents are.
        model: The language model, and how documents are fed to it.
        saes: The sparse autoencoders, one or many, of any layers and sites: one pass of the model serves them all.
        pool: Poolings to store, in the order max, sum, count, last, top{N} whatever order the file has.
        hidden: Dense baselines to store of each hooked layer.
        pixels: Of images, side of a small copy to store beside them, as a baseline that has seen no model.
        store: Directory or URL of the feature store to write or resume.
        workers: What to run on.
        units: How the work is divided.
        value_bits: Significant bits that stored values keep; 8 is bfloat16's precision, 24 float32's.
    """

    corpus: CorpusSpec
    model: ModelSpec
    saes: Annotated[tuple[SaeSpec, ...], BeforeValidator(_list), AfterValidator(_filled)]
    pool: FilledNames = ("max", "sum", "count")
    hidden: Annotated[tuple[Literal["mean", "last"], ...], OneOrMore(_listed)] = ()
    pixels: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    store: PathName
    workers: WorkersSpec = WorkersSpec()
    units: UnitsSpec = UnitsSpec()
    value_bits: Annotated[int, Field(ge=1, le=24, strict=True)] = 8

    def at_most(self, workers: int | None) -> Self:
        """The same job on at most so many workers; as it is if None."""
        if workers is None:
            return self
        return self.model_copy(update={"workers": self.workers.model_copy(update={"max": workers})})

    @field_validator("pool")
    @classmethod
    def _pools_are_known(cls, pools: tuple[str, ...]) -> tuple[str, ...]:
        for pool in pools:
            if pool in {"mean", "binary"}:
                raise ValueError(f"'{pool}' is not stored but derived on reading; store max or sum instead")
            if not is_pool(pool):
                hint = did_you_mean(pool, NAMED) or ";"
                raise ValueError(
                    f"'{pool}' is no pooling{hint} use {', '.join(NAMED)} or top followed by a number (top20)"
                )
        return tuple(sorted(_distinct(pools), key=pool_order))

    @field_validator("hidden")
    @classmethod
    def _hidden_is_ordered(cls, hidden: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(_distinct(hidden), key=HIDDEN.index))

    @model_validator(mode="before")
    @classmethod
    def _images_are_pooled(cls, data: Any) -> Any:
        """`tokens: image` is what an image job means that does not say which."""
        if not isinstance(data, Mapping):
            return data
        corpus, model = data.get("corpus"), data.get("model")
        if not isinstance(corpus, Mapping) or not isinstance(model, Mapping) or model.get("tokens") is not None:
            return data
        of_images = corpus.get("image") is not None or corpus.get("format") == "images"
        return {**data, "model": {**model, "tokens": "image"}} if of_images else data

    @model_validator(mode="after")
    def _images_and_texts_are_told_apart(self) -> Self:
        model = self.model
        if self.corpus.image is None:
            if model.tokens in ("image", "text") or model.prompt:
                key = f"tokens: {model.tokens}" if model.tokens in ("image", "text") else "prompt"
                raise ValueError(f"model.{key} only has a meaning for images; set corpus.image, or remove it")
            if self.pixels is not None:
                raise ValueError("pixels only has a meaning for images; set corpus.image, or remove it")
            return self
        if self.pixels is not None and PIXELS in self.corpus.keep:
            raise ValueError(
                f"the kept column '{PIXELS}' clashes with that of pixels: {self.pixels}; rename or drop it"
            )
        if model.tokens == "content":
            raise ValueError("model.tokens: content is for texts; images have image, text or all")
        if model.chat:
            raise ValueError("model.chat is for texts; what is fed around an image is its model's own, so remove chat")
        if model.long_documents == "windows":
            raise ValueError("model.long_documents: windows is for texts; an image is fed whole, so remove it")
        return self

    @model_validator(mode="after")
    def _conversations_are_chat(self) -> Self:
        if self.corpus.messages is not None and not self.model.chat:
            raise ValueError("corpus.messages are put into the model's chat template; set model.chat: true")
        if self.corpus.messages is None and self.model.turns != ("user",):
            raise ValueError("model.turns only has a meaning with corpus.messages; set that or remove turns")
        return self

    @model_validator(mode="after")
    def _columns_do_not_clash(self) -> Self:
        names = [sae.name for sae in self.saes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two SAEs are named '{name}'; give each its own name under saes")
        for column in self.corpus.keep:
            if any(column.startswith(f"{name}__") for name in names):
                raise ValueError(f"the kept column '{column}' clashes with the columns of an SAE; rename one of them")
        return self


def load_job(path: str | Path) -> JobSpec:
    """Read JOB.yaml; relative paths in it are taken from the directory that holds it.

    Raises:
        JobSpecError: The file cannot be read or does not describe a job; one sentence naming file and key.
    """
    return job_from_mapping(load_mapping(path, JobSpecError), Path(path).resolve().parent, where=str(path))


def job_from_mapping(mapping: Mapping[str, Any], base_dir: str | Path, where: str = "job") -> JobSpec:
    """Validate a job given as plain data.

    Args:
        mapping: What JOB.yaml would hold.
        base_dir: The directory that relative paths (corpus, model, SAEs, store) start from.
        where: What to call the source in messages.

    Raises:
        JobSpecError: One sentence naming the source, the key and what is wrong.
    """
    job = parse_spec(mapping, JobSpec, JobSpecError, where)
    base = Path(base_dir).absolute()
    saes = tuple(
        sae if sae.path is None else sae.model_copy(update={"path": _resolved(sae.path, base)}) for sae in job.saes
    )
    model_name = _resolved(job.model.name, base) if _is_local_model(job.model.name, base) else job.model.name
    return job.model_copy(
        update={
            "corpus": job.corpus.model_copy(update={"path": tuple(joined(path, base) for path in job.corpus.path)}),
            "model": job.model.model_copy(update={"name": model_name}),
            "saes": saes,
            "workers": job.workers.model_copy(
                update={"rates": None if job.workers.rates is None else _resolved(job.workers.rates, base)}
            ),
            "store": _resolved(job.store, base),
        }
    )


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"names '{name}' twice; remove one")
    return names


def _derived_name(source: Any) -> str:
    """A column prefix from an SAE's id or path: "layer_12/width_16k/canonical" -> "l12_16k", "saes/mine" -> "mine"."""
    text = source if isinstance(source, str) else ""
    layer = re.search(r"(?:layer[_-]?|blocks\.|layers\.)([0-9]+)", text)
    width = re.search(r"width[_-]?([0-9]+[km]?)", text)
    if layer and width:
        return f"l{layer[1]}_{width[1]}"
    if layer:
        return f"l{layer[1]}"
    last = re.sub(r"[^A-Za-z0-9]+", "_", text.rstrip("/").rsplit("/", 1)[-1]).strip("_")
    return last if last[:1].isalpha() else f"sae_{last}".rstrip("_")


def _is_local_model(name: str, base: Path) -> bool:
    """Hub names look like relative paths: what exists on disk, or can only be a path, is one."""
    looks_like_a_path = name.startswith((".", "/", "~")) or name.endswith((".gguf", "/")) or name.count("/") > 1
    return not _URI.match(name) and (looks_like_a_path or (base / name).exists())


def _resolved(path: str, base: Path) -> str:
    if _URI.match(path):
        return path
    return os.path.normpath(base / Path(path).expanduser())
