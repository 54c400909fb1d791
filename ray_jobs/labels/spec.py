"""Validate a label job: JOB.yaml with `task` and `out` in place of SAEs and a store.

A label job is run as any other job is: on the same corpora, units and workers. So it has a `JobSpec` of its own
(`job_of`), without SAEs, whose store is the directory of parts beside the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from featurestore.errors import CorpusError, JobSpecError
from featurestore.specs.spec_file import load_mapping, parse_spec
from featurestore.specs.spec_sentences import another_kind
from ray_jobs.labels.template import Template, column, template_of
from ray_jobs.spec import (
    CorpusSpec,
    JobSpec,
    ModelSpec,
    PathName,
    UnitsSpec,
    WorkersSpec,
    job_from_mapping,
    load_job,
)

PARTS = ".parts"  # what a table's name ends in where its parts are
OWN_COLUMNS = (
    "id", "correct", "choice", "answer", "margin", "log_likelihood", "log_likelihood_per_token",
    "log_likelihood_per_byte", "place", "exact", "choice_bytes", "prompt_tokens", "prompt",
)  # fmt: skip
"""Columns of a label table that no kept column may be called."""


_NO_TEXT = ", not text; name another"  # how a corpus ends its sentence about a column of another type

T = TypeVar("T")


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _texts(value: Any) -> Any:
    """A name stays one, a list becomes a tuple; numbers and truth values in it are no texts."""
    if isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"holds {item!r}, which is no text; put quotes around it")
        return tuple(value)
    return value


_Column = Annotated[str, Field(min_length=1)]
_Several = Annotated[_Column | tuple[_Column, ...], BeforeValidator(_texts)]


class TaskSpec(_Spec):
    """What is asked of each row, and what would be right.

    Attributes:
        prompt: A column, or a template with columns in braces; the corpus' `text` where not given.
        choices: A column that holds lists, or a list of texts, which may be templates.
        answer: The column of the right choice: its text, its place from 0, or a truth value (false is place 0).
        by: What of a choice is compared: its log-likelihood, or that for each of its tokens or bytes.
        separator: What goes between prompt and choice; a space where not given, nothing in a chat.
        answers: A column of texts, or of lists of texts that are all right; or a list of templates.
        generate: Tokens to generate, greedily.
        until: The answer ends before the first of these texts.
        match: What makes an answer right: the same text, or the same but for case, punctuation, articles and blanks.
    """

    prompt: _Column | None = None
    choices: _Several | None = None
    answer: _Column | None = None
    by: Literal["sum", "per_token", "per_byte"] = "sum"
    separator: str | None = None
    answers: _Several | None = None
    generate: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
    until: Annotated[_Column | tuple[_Column, ...], BeforeValidator(_texts)] = ("\n",)
    match: Literal["exact", "normalised"] = "normalised"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        chosen, written = self.choices is not None, self.generate is not None
        if chosen == written:
            raise ValueError("needs either choices with answer, or generate with answers")
        needed, other = ("answer", "answers") if chosen else ("answers", "answer")
        if getattr(self, needed) is None:
            raise ValueError(f"{'choices' if chosen else 'generate'} needs {needed} too; add it")
        if getattr(self, other) is not None:
            raise ValueError(f"{other} goes with {'generate' if chosen else 'choices'}; remove it")
        own = ("by", "separator") if written else ("until", "match")
        if given := [key for key in own if key in self.model_fields_set]:
            raise ValueError(f"{given[0]} goes with {'choices' if written else 'generate'}; remove it")
        return self

    @model_validator(mode="after")
    def _templates_can_be_read(self) -> Self:
        for key in ("prompt", "choices", "answers"):
            value = getattr(self, key)
            for text in (value,) if isinstance(value, str) else value or ():
                try:
                    template_of(text)
                except ValueError as error:
                    raise ValueError(f"{key} {error}") from None
        if isinstance(self.choices, tuple) and len(self.choices) < 2:
            raise ValueError("choices needs two texts at least, or the name of a column that holds lists")
        if self.answers == ():
            raise ValueError("answers is empty; name a column")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a generated answer."""
        return (self.until,) if isinstance(self.until, str) else self.until

    def prompt_template(self, text: str) -> Template:
        """The prompt, of a corpus with this text column."""
        if self.prompt is None:
            return column(text)
        return template_of(self.prompt) if "{" in self.prompt or "}" in self.prompt else column(self.prompt)

    def several(self) -> tuple[Template, ...] | str:
        """Choices or answers: templates, or the column that holds lists."""
        value = self.choices if self.choices is not None else self.answers
        assert value is not None
        if isinstance(value, tuple):
            return tuple(template_of(text) for text in value)
        return (template_of(value),) if "{" in value else value

    def columns(self, text: str) -> tuple[str, ...]:
        """Every column that it reads, of a corpus with this text column; those of the prompt first."""
        several = self.several()
        read = [*self.prompt_template(text).columns]
        read += [several] if isinstance(several, str) else [name for one in several for name in one.columns]
        return tuple(dict.fromkeys([*read, *([self.answer] if self.answer is not None else [])]))


class LabelSpec(_Spec):
    """A whole label job: corpus -> prompts -> model -> one table.

    Attributes:
        corpus: As in any job; `text` only matters where the task names no prompt.
        model: As in any job. Whole prompts are fed or none: nothing is cut, and there are no windows.
        task: What is asked.
        out: The table, a Parquet file or URL; its parts are kept beside it, in a directory named `{out}.parts`.
        workers: What to run on.
        units: How the work is divided.
    """

    corpus: CorpusSpec
    model: ModelSpec
    task: TaskSpec
    out: PathName
    workers: WorkersSpec = WorkersSpec()
    units: UnitsSpec = UnitsSpec()

    @field_validator("out")
    @classmethod
    def _is_a_table(cls, out: str) -> str:
        if not out.endswith(".parquet"):
            raise ValueError(f"'{out}' has to end in .parquet, for that is what is written")
        return out

    @field_validator("corpus")
    @classmethod
    def _corpus_of_text(cls, corpus: CorpusSpec) -> CorpusSpec:
        for key in ("image", "messages"):
            if getattr(corpus, key) is not None:
                raise ValueError(f"{key} has no meaning in a label job, whose prompts are text; remove it")
        for name in corpus.keep:
            if name in OWN_COLUMNS:
                raise ValueError(f"keep: '{name}' is a column that every label table has; rename or drop it")
        return corpus

    @field_validator("model")
    @classmethod
    def _whole_prompts(cls, model: ModelSpec) -> ModelSpec:
        for key in ("long_documents", "stride", "tokens", "turns", "generation_prompt"):
            if key in model.model_fields_set and getattr(model, key) != type(model).model_fields[key].default:
                why = "a chat always ends by opening the model's turn" if "gen" in key else "prompts are fed whole"
                raise ValueError(f"{key} has no meaning in a label job ({why}); remove it")
        if model.attn == "flex_attention":
            raise ValueError("attn: label jobs run by transformers' own modules; use 'eager' or 'sdpa'")
        return model

    @property
    def parts(self) -> str:
        """The store of the parts."""
        return f"{self.out}{PARTS}"

    @property
    def text(self) -> str:
        """The text column of the corpus."""
        assert self.corpus.text is not None
        return self.corpus.text

    @property
    def separator(self) -> str:
        """What goes between a prompt and a choice."""
        given = self.task.separator
        return given if given is not None else "" if self.model.chat else " "


def of_text(spec: LabelSpec, job: JobSpec, do: Callable[[JobSpec], T]) -> T:
    """Do something with the corpus of a label job, with a column for its text that is text.

    A corpus has a text; of what a prompt is made of the first column may be numbers or lists, as another is not.

    Raises:
        CorpusError: What `do` raises of the last column, or of any about something else.
    """
    columns = spec.task.columns(spec.text)
    for number, name in enumerate(columns, 1):
        try:
            with reworded():
                return do(job.model_copy(update={"corpus": job.corpus.model_copy(update={"text": name})}))
        except CorpusError as error:
            if number == len(columns) or _NO_TEXT not in str(error):
                raise
    raise AssertionError("a task reads a column")


def as_asked(corpus: CorpusSpec) -> CorpusSpec:
    """The corpus of a label job as its rows are read: prompts are made of kept columns, whatever is in its text."""
    return corpus.model_copy(update={"text": None})


@contextmanager
def reworded() -> Iterator[None]:
    """What is wrong with a corpus, said of the task's columns where those may be meant.

    Raises:
        CorpusError: In place of one about keys that the task has set.
    """
    try:
        yield
    except CorpusError as error:
        said = str(error).replace("corpus.text", "task").replace("corpus.keep", "task or corpus.keep")
        raise CorpusError(said) from None


def is_label_job(mapping: Mapping[str, Any]) -> bool:
    """Whether a JOB.yaml is one."""
    return "task" in mapping


def load_label_job(path: str | Path) -> tuple[LabelSpec, JobSpec]:
    """Read the JOB.yaml of a label job.

    Returns:
        The label job, and the job that it is run as, both with paths resolved.

    Raises:
        JobSpecError: The file cannot be read or describes no label job; one sentence naming file and key.
    """
    mapping = load_mapping(path, JobSpecError)
    if not is_label_job(mapping):
        if (other := another_kind(mapping, LabelSpec)) is not None:
            raise JobSpecError(f"{path}: {other}")
        raise JobSpecError(f"{path}: is no label job, for it has no task; add one, as `sparsemill label --help` shows")
    return label_job_from_mapping(mapping, Path(path).resolve().parent, str(path))


def load_either(path: str | Path) -> tuple[LabelSpec | None, JobSpec]:
    """Read a JOB.yaml of either kind.

    Returns:
        The label job if it is one, and the job, which is what that is run as; its store is then that of the parts.

    Raises:
        JobSpecError: It is neither.
    """
    return load_label_job(path) if is_label_job(load_mapping(path, JobSpecError)) else (None, load_job(path))


def as_mapping(spec: LabelSpec, job: JobSpec) -> dict[str, Any]:
    """A label job as plain data that means the same wherever it is read: with the resolved paths of the job it is."""
    update = {
        "corpus": spec.corpus.model_copy(update={"path": job.corpus.path}),
        "model": spec.model.model_copy(update={"name": job.model.name}),
        "workers": spec.workers.model_copy(update={"rates": job.workers.rates}),
    }
    return spec.model_copy(update=update).model_dump(mode="json", exclude_unset=True, exclude_none=True)


def label_job_from_mapping(
    mapping: Mapping[str, Any], base_dir: str | Path, where: str = "job"
) -> tuple[LabelSpec, JobSpec]:
    """The same from plain data; relative paths start from `base_dir`."""
    spec = parse_spec(mapping, LabelSpec, JobSpecError, where)
    read = spec.task.columns(spec.text)
    corpus = spec.corpus.model_copy(
        update={"text": read[0] if read else spec.text, "keep": tuple(dict.fromkeys([*spec.corpus.keep, *read]))}
    )
    # Paths are resolved as those of any job; it needs an SAE to be one, which goes again.
    stand_in = {"release": "unused", "id": "unused", "name": "unused"}
    plain = {
        "corpus": spec.corpus.model_dump(),
        "model": spec.model.model_dump(exclude_unset=True),
        "saes": [stand_in],
        "store": spec.parts,
        "workers": spec.workers.model_dump(),
        "units": spec.units.model_dump(),
    }
    job = job_from_mapping(plain, base_dir, where)
    model = job.model.model_copy(
        update={"generation_prompt": job.model.chat, "tokens": "all" if job.model.chat else "content"}
    )
    corpus = corpus.model_copy(update={"path": job.corpus.path})
    job = job.model_copy(update={"corpus": corpus, "model": model, "saes": (), "pool": (), "hidden": ()})
    return spec.model_copy(update={"out": job.store.removesuffix(PARTS)}), job
