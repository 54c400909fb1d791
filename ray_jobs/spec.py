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

from featurestore.base.dense_names import HIDDEN, parse_dense_name
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.poolings import NAMED, is_pool, pool_order
from featurestore.errors import JobSpecError
from featurestore.finding.dialect import CsvSpec
from featurestore.finding.patterns import joined
from featurestore.specs.spec_file import load_mapping, parse_spec
from featurestore.specs.spec_values import Flag, PathText
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
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
FilledNames = Annotated[Names, AfterValidator(_filled)]
Count = Annotated[int, Field(ge=1, strict=True)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusSpec(_Spec):
    """Where the documents are and which columns (JSON keys) to take.

    Attributes:
        path: Files, globs or directories, local or as URLs (`s3://`, `gs://`, `hf://`, ...); of a job that was loaded,
            with the job's directory in front and every `[`, `*`, `?`, `{` of that in brackets.
        text: The column that holds the document.
        id: The column that holds its unique id; without one, ids are "{file name}:{row}".
        keep: Further columns to copy into the store.
        format: Taken from the file names where not given.
        csv: How CSV files are written, where they do not say it themselves.
        max_errors: A run of which more documents failed ends with exit code 1: a share below 1 (0.5 is half of them,
            exactly half passes), or a whole number (1 is one document; 0 allows none).
    """

    path: Annotated[tuple[PathName, ...], BeforeValidator(_listed), AfterValidator(_filled)]
    text: Name = "text"
    id: Name | None = None
    keep: Names = ()
    format: Literal["parquet", "jsonl", "csv"] | None = None
    csv: CsvSpec | None = None
    max_errors: Annotated[float | int, BeforeValidator(errors_allowed)] = 0.5

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
        tokens: Pool the tokens of the text only, or all that are fed (beginning-of-sequence and template too).
        chat: Put each document into the model's chat template as a user's turn.
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
    tokens: Literal["content", "all"] = "content"
    chat: Flag = False
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
        if not self.chat and (self.generation_prompt or self.date is not None):
            key = "generation_prompt" if self.generation_prompt else "date"
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
    """One sparse autoencoder: `release` + `id` of sae-lens, or `path`, a directory (`ray_jobs.prepare.local_layouts`).

    Attributes:
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
    """What to run on: at most `max` actors, each with `gpus` (a fraction shares one) and `cpus` threads of torch.

    `hardware` and `rates` are for `plan` alone: the kind of hardware to price, and the rates file that knows it.
    """

    max: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    gpus: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] | None = None
    cpus: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None  # more threads than any machine has cores
    hardware: Name | None = None
    rates: PathName | None = None


class UnitsSpec(_Spec):
    """How many documents a unit of work has; sized from the tokens of the corpus where not given."""

    documents: Count | None = None


class JobSpec(_Spec):
    """A whole job: corpus -> model -> SAEs -> store.

    Attributes:
        pool: Poolings to store, in the order max, sum, count, last, top{N} whatever order the file has.
        hidden: Dense baselines to store of each hooked layer.
        store: Directory or URL of the feature store to write or resume.
        value_bits: Significant bits that stored values keep; 8 is bfloat16's precision, 24 float32's.
    """

    corpus: CorpusSpec
    model: ModelSpec
    saes: Annotated[tuple[SaeSpec, ...], BeforeValidator(_list), AfterValidator(_filled)]
    pool: FilledNames = ("max", "sum", "count")
    hidden: Annotated[tuple[Literal["mean", "last"], ...], BeforeValidator(_listed)] = ()
    store: PathName
    workers: WorkersSpec = WorkersSpec()
    units: UnitsSpec = UnitsSpec()
    value_bits: Annotated[int, Field(ge=1, le=24, strict=True)] = 8

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
