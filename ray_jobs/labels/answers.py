"""The `UnitOutput` of a label job: questions of the rows of a unit, the model's answers, and the rows of a part.

A part has what a store's part always has, and the columns of a label table. Lists of numbers are JSON there, for a
store's columns are plain; `table` makes lists of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.format.rows import PartRows
from featurestore.format.schema import StoreSchema
from ray_jobs.labels.grading import cut_off, grade
from ray_jobs.labels.prompts import Asker, Question
from ray_jobs.labels.spec import LabelSpec, TaskSpec, as_asked

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.corpus.read import DocumentRows
    from ray_jobs.language.tokens import Completions
    from ray_jobs.spec import CorpusSpec

REVISION = 1
"""Grows when the same task on the same model comes out otherwise."""

LISTS = ("log_likelihood", "log_likelihood_per_token", "log_likelihood_per_byte")
_TYPES = {
    "correct": "bool", "choice": "string", "answer": "string", "margin": "float64",
    **dict.fromkeys(LISTS, "string"),
    "place": "int64", "exact": "bool", "choice_bytes": "int64", "prompt_tokens": "int64", "prompt": "string",
}  # fmt: skip


def columns_of(task: TaskSpec) -> dict[str, str]:
    """Column of a label table -> its type in a part; which of two stands there depends on the task."""
    other = "exact" if task.generate is None else "place"
    return {name: kind for name, kind in _TYPES.items() if name != other}


@dataclass(frozen=True)
class Labels:
    """What a label job writes of its rows; plain data, which travels to workers.

    Attributes:
        task: What is asked.
        text: The text column of the corpus.
        separator: What goes between a prompt and a choice.
        keep: Columns of the corpus to copy.
    """

    task: TaskSpec
    text: str
    separator: str
    keep: tuple[str, ...]

    @classmethod
    def of(cls, spec: LabelSpec) -> Labels:
        """Those of a job."""
        return cls(spec.task, spec.text, spec.separator, spec.corpus.keep)

    def identity(self) -> dict[str, Any]:
        """What of it decides a value, for the fingerprint."""
        task = self.task.model_dump(mode="json", exclude_none=True)
        return {"labels": REVISION, "task": task, "text": self.text, "separator": self.separator}

    def corpus(self, corpus: CorpusSpec) -> CorpusSpec:
        """The corpus as `as_asked` has it."""
        return as_asked(corpus)

    def bundle(self, bundle: Bundle) -> Bundle:
        """The bundle, of which all is needed."""
        return bundle

    def schema(self, keep_types: Mapping[str, str]) -> StoreSchema:
        """The columns of a part."""
        kept = tuple((name, keep_types[name]) for name in self.keep)
        return StoreSchema(keep=(*columns_of(self.task).items(), *kept), saes=(), dense=())

    def engine(self, bundle: Bundle, settings: Mapping[str, Any], features: StoreSchema) -> Labeller:  # noqa: ARG002
        """What answers, loaded; it has no features."""
        return Labeller(self, bundle, settings)


@dataclass(frozen=True)
class _Answer:
    """What a model made of a question: the columns of its row, and the tokens that it was fed."""

    columns: Mapping[str, Any]
    n_tokens: int


class Labeller:
    """Answers the questions of rows.

    Args:
        labels: What is asked.
        bundle: Of the whole model.
        settings: Fields of the engine's `ExtractSettings`, those of which that say how and on what to compute.
    """

    def __init__(self, labels: Labels, bundle: Bundle, settings: Mapping[str, Any]) -> None:
        import torch

        from ray_jobs.language.model import LanguageModel
        from ray_jobs.language.tokens import PromptTokenizer

        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        self._labels = labels
        self._budget, self._most = settings["batch_tokens"], settings["max_tokens"]
        self._tokenizer = PromptTokenizer(bundle, settings["chat"])
        self._model = LanguageModel(bundle, settings["device"], settings["attn_implementation"])

    @cached_property
    def _asker(self) -> Asker:
        return Asker(self._labels.task, self._labels.text)

    def rows(self, documents: DocumentRows, on_progress: Callable[[int, int], None] | None = None) -> PartRows:
        """The rows of a part, in the order of the documents; `on_progress` gets questions and tokens done so far."""
        asked: list[Question | str] = [self._question(documents, row) for row in range(len(documents.doc_id))]
        numbers = [row for row, one in enumerate(asked) if isinstance(one, Question)]
        questions = [one for one in asked if isinstance(one, Question)]
        answer = self._chosen if self._labels.task.generate is None else self._written
        found: list[_Answer | str] = [str(one) for one in asked]
        for row, answered in zip(numbers, answer(questions, on_progress), strict=True):
            found[row] = answered
        names = columns_of(self._labels.task)
        own = {name: [one.columns[name] if isinstance(one, _Answer) else None for one in found] for name in names}
        return PartRows(
            doc_id=documents.doc_id,
            keep={**own, **{name: documents.keep[name] for name in self._labels.keep}},
            n_tokens=np.array([one.n_tokens if isinstance(one, _Answer) else 0 for one in found], dtype=np.uint32),
            truncated=np.zeros(len(found), dtype=bool),
            error=[one if isinstance(one, str) else None for one in found],
            sparse={},
            dense={},
        )

    def _question(self, documents: DocumentRows, row: int) -> Question | str:
        return documents.error[row] or self._asker.question(
            {name: values[row] for name, values in documents.keep.items()}
        )

    def _chosen(
        self, questions: Sequence[Question], on_progress: Callable[[int, int], None] | None
    ) -> list[_Answer | str]:
        """For each question which choice is likeliest."""
        from ray_jobs.language.likelihood import log_likelihoods
        from ray_jobs.language.tokens import Completions

        separator = self._labels.separator
        tokens = [
            self._tokenizer.completions(q.prompt, [f"{separator}{text}" for text in q.choices]) for q in questions
        ]
        found: list[_Answer | str] = []
        for one in tokens:
            longest = 0 if isinstance(one, str) else max(map(len, one.ids))
            said = f"the prompt has {longest} tokens with its longest choice, more than model.max_tokens: {self._most}"
            found.append(one if isinstance(one, str) else said if longest > self._most else "")
        sound = [number for number, error in enumerate(found) if not error]
        prompts = [one for number in sound if isinstance(one := tokens[number], Completions)]
        told = log_likelihoods(self._model, prompts, self._budget, on_progress)
        for number, one, sums in zip(sound, prompts, told, strict=True):
            found[number] = sums if isinstance(sums, str) else self._choice(questions[number], one, sums)
        return found

    def _choice(self, question: Question, tokens: Completions, sums: Sequence[float]) -> _Answer:
        n_tokens = [len(ids) - start for ids, start in zip(tokens.ids, tokens.start, strict=True)]
        n_bytes = [len(text.encode()) for text in question.choices]
        by = {
            "sum": list(sums),
            "per_token": [total / n for total, n in zip(sums, n_tokens, strict=True)],
            "per_byte": [total / n for total, n in zip(sums, n_bytes, strict=True)],
        }
        score = by[self._labels.task.by]
        place = max(range(len(score)), key=lambda c: (score[c], -c))  # of equals the first
        second = max(value for c, value in enumerate(score) if c != place)
        columns = {
            "correct": place == question.right,
            "choice": question.choices[place],
            "answer": question.answer,
            "margin": score[place] - second,
            **{name: json.dumps(by[kind], allow_nan=False) for name, kind in zip(LISTS, by, strict=True)},
            "place": place,
            "choice_bytes": n_bytes[place],
            "prompt_tokens": min(tokens.start),
            "prompt": question.prompt,
        }
        return _Answer(columns, tokens.n_tokens)

    def _written(
        self, questions: Sequence[Question], on_progress: Callable[[int, int], None] | None
    ) -> list[_Answer | str]:
        """For each question what the model writes."""
        from ray_jobs.language.generation import write

        task = self._labels.task
        assert task.generate is not None
        found: list[_Answer | str] = []
        prompts: dict[int, np.ndarray] = {}
        for number, question in enumerate(questions):
            ids = self._tokenizer.prompt(question.prompt)
            if not isinstance(ids, str) and len(ids) + task.generate > self._most:
                ids = (
                    f"the prompt has {len(ids)} tokens, more than model.max_tokens: {self._most} leaves beside "
                    f"{task.generate} of an answer"
                )
            found.append(ids if isinstance(ids, str) else "")
            prompts |= {} if isinstance(ids, str) else {number: ids}
        told = write(self._model, list(prompts.values()), task.generate, self._budget, on_progress)
        for (number, ids), one in zip(prompts.items(), told, strict=True):
            if isinstance(one, str):
                found[number] = one
                continue
            question, text = questions[number], cut_off(self._tokenizer.decoded(one.ids), task.stops)
            exact, alike = grade(text, question.answers)
            steps, n_bytes = max(len(one.ids), 1), len(text.encode())
            values = [one.log_likelihood, one.log_likelihood / steps, one.log_likelihood / max(n_bytes, 1)]
            columns = {
                "correct": exact if task.match == "exact" else alike,
                "choice": text,
                "answer": question.answer,
                "margin": one.margin,
                **{name: json.dumps([value], allow_nan=False) for name, value in zip(LISTS, values, strict=True)},
                "exact": exact,
                "choice_bytes": n_bytes,
                "prompt_tokens": len(ids),
                "prompt": question.prompt,
            }
            found[number] = _Answer(columns, len(ids) + len(one.ids))
        return found
