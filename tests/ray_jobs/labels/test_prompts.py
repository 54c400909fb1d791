"""Rows become questions, or an error that says why not; templates hold names and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ray_jobs.labels.prompts import Asker, Question
from ray_jobs.labels.spec import TaskSpec
from ray_jobs.labels.template import template_of

CHOOSE: dict[str, Any] = {"prompt": "question", "choices": "options", "answer": "right"}


def asked(task: dict[str, Any], **row: Any) -> Question | str:
    return Asker(TaskSpec.model_validate(task), "text").question(row)


def test_a_template_takes_columns_nested_values_lists_and_numbers() -> None:
    row = {"context": json.dumps({"contexts": ["First.", "Second."]}), "n": 3, "x": 2.5, "flag": True}
    found = template_of("{context.contexts}\n{n} {x} {flag} {{kept}}").fill(row)
    assert found == "First.\nSecond.\n3 2.5 true {kept}"


def test_no_value_of_a_row_is_taken_for_a_template() -> None:
    assert template_of("Q: {q}").fill({"q": "{q} {0.__class__}"}) == "Q: {q} {0.__class__}"
    assert asked({**CHOOSE, "prompt": "{q.__class__}"}, q="text", options='["a", "b"]', right=0) == (
        "the row has no 'q.__class__'"
    )


@pytest.mark.parametrize(
    ("options", "answer", "place"),
    [
        (["no", "yes"], True, 1),
        (["no", "yes"], 0, 0),
        (["no", "yes"], "yes", 1),
        (["no", "yes"], " YES ", 1),
        (["3", "2", "1"], 1, 2),  # one that reads like it comes before a place
        (["low", "high"], "1", 1),
    ],
)
def test_an_answer_is_a_text_a_place_or_a_truth_value(options: list[str], answer: Any, place: int) -> None:
    found = asked(CHOOSE, question="What?", options=json.dumps(options), right=answer)
    assert isinstance(found, Question) and found.right == place and found.answer == options[place]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "  ", "options": '["a", "b"]', "right": 0}, "the prompt is empty"),
        ({"question": None, "options": '["a", "b"]', "right": 0}, "the row has no 'question'"),
        ({"question": "What?", "options": None, "right": 0}, "the row has no 'options'"),
        ({"question": "What?", "options": '["a", "b"]', "right": None}, "the row has no 'right'"),
        ({"question": "What?", "options": '["a", "b"]', "right": "c"}, "the answer 'c' in 'right' is not among"),
        ({"question": "What?", "options": '["a", "b"]', "right": 2}, "the answer 2 in 'right' is no place among 2"),
        ({"question": "What?", "options": '["a", "b"]', "right": -1}, "the answer -1"),
        ({"question": "What?", "options": '["a", "a"]', "right": 0}, "the choice 'a' is there twice"),
        ({"question": "What?", "options": '["a", ""]', "right": 0}, "choice 1 is empty"),
        ({"question": "What?", "options": '["a"]', "right": 0}, "there is one choice only"),
        ({"question": "What?", "options": "[]", "right": 0}, "there are 0 choices"),
        ({"question": "What?", "options": '["a", {"b": 1}]', "right": 0}, "'options' is no text"),
    ],
)
def test_a_row_that_is_no_question_says_why(row: dict[str, Any], said: str) -> None:
    assert str(asked(CHOOSE, **row)).startswith(said)


def test_choices_may_be_columns_and_answers_have_aliases() -> None:
    piqa = {"prompt": "Goal: {goal}", "choices": ["{sol1}", "{sol2}"], "answer": "label"}
    found = asked(piqa, goal="Eat.", sol1="Use a fork.", sol2="Use a rock.", label=0)
    assert found == Question("Goal: Eat.", ("Use a fork.", "Use a rock."), 0)
    write = {"prompt": "q", "answers": "names", "generate": 4}
    assert asked(write, q="Who?", names='["Ann", "Anna"]') == Question("Who?", answers=("Ann", "Anna"))
    assert asked(write, q="Who?", names="Ann") == Question("Who?", answers=("Ann",))
