"""Make questions of rows: the prompt, its choices and which is right, or the answers that are; or why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.labels.spec import TaskSpec
from ray_jobs.labels.template import Template, Unfilled, column, unpacked

_WHOLE = re.compile(r"-?[0-9]{1,6}")
MOST_CHOICES = 1_000
SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Question:
    """One row's question.

    Attributes:
        prompt: What is asked.
        choices: Texts to choose from; empty where an answer is written.
        right: Place of the right choice.
        answers: Texts that are right, where an answer is written.
    """

    prompt: str
    choices: tuple[str, ...] = ()
    right: int = 0
    answers: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The right choice, or the first right answer."""
        return self.choices[self.right] if self.choices else self.answers[0]


class Asker:
    """Makes questions of rows.

    Args:
        task: What is asked.
        text: The text column of the corpus.
    """

    def __init__(self, task: TaskSpec, text: str) -> None:
        self._prompt = task.prompt_template(text)
        self._several = task.several()
        self._answer = task.answer
        self._writes = task.generate is not None

    def question(self, row: Mapping[str, Any]) -> Question | str:
        """The question of a row (column -> value), or the sentence that is its error."""
        try:
            prompt = self._prompt.fill(row)
            if not prompt.strip():
                return "the prompt is empty"
            several = _texts(self._several, row, "answer" if self._writes else "choice")
            if self._writes:
                return Question(prompt, answers=several)
            if len(several) < 2:
                return f"there is one choice only ({_cut(several[0])})"
            assert self._answer is not None
            return Question(prompt, several, _place(row.get(self._answer), several, self._answer))
        except Unfilled as error:
            return str(error)


def _texts(several: tuple[Template, ...] | str, row: Mapping[str, Any], what: str) -> tuple[str, ...]:
    """The texts of all choices or answers.

    Raises:
        Unfilled: There are none, too many, or one that is empty, no text, or there twice.
    """
    if isinstance(several, str):
        value = unpacked(row.get(several))
        if value is None:
            raise Unfilled(f"the row has no '{several}'")
        value = value if isinstance(value, list) else [value]
        found = [column(several).fill({several: item}) for item in value]
    else:
        found = [one.fill(row) for one in several]
    if not 0 < len(found) <= MOST_CHOICES:
        raise Unfilled(f"there are {len(found)} {what}s")
    if (empty := next((number for number, text in enumerate(found) if not text.strip()), None)) is not None:
        raise Unfilled(f"{what} {empty} is empty")
    if what == "choice" and (twice := next((text for text in found if found.count(text) > 1), None)) is not None:
        raise Unfilled(f"the choice {_cut(twice)} is there twice")
    return tuple(found)


def _place(answer: Any, choices: Sequence[str], name: str) -> int:
    """Which choice an answer means: one that reads like it, or else the one at this place.

    Raises:
        Unfilled: None.
    """
    if answer is None:
        raise Unfilled(f"the row has no '{name}'")
    if not isinstance(answer, bool):
        text = column(name).fill({name: answer})
        plain = [choice.strip().casefold() for choice in choices]
        if text in choices:
            return choices.index(text)
        if plain.count(text.strip().casefold()) == 1:
            return plain.index(text.strip().casefold())
        if not _WHOLE.fullmatch(text.strip()):
            raise Unfilled(f"the answer {_cut(text)} in '{name}' is not among the choices")
        answer = int(text)
    if not 0 <= int(answer) < len(choices):
        raise Unfilled(f"the answer {int(answer)} in '{name}' is no place among {len(choices)} choices, from 0")
    return int(answer)


def _cut(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
