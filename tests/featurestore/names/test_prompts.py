"""What a text generator is asked about a feature, and what of its answer is a name."""

from __future__ import annotations

import pytest

from featurestore.names.prompts import MOST_CHARACTERS, name_in, prompt
from tests.featurestore.names.evidence import SAE, evidence


def test_a_prompt_shows_marked_pieces_after_worked_examples() -> None:
    documents = [
        evidence("a", ["I", " saw", " a", " big", " dog", " here"], {3: [3, 4]}),
        evidence("b", ["dog", "s", "!"], {3: [0, 1]}),
        evidence("b2", ["dog", "s", "!"], {3: [0, 1]}),  # the same piece again
        evidence("c", ["no", " animal"], {3: [], 4: [0]}),
    ]
    asked = prompt(documents, SAE, 3)
    assert asked is not None
    assert asked.endswith("\n\n- I saw a «big dog» here\n- «dogs»!\nIn common:")
    assert asked.count("In common: ") == 3
    assert prompt(documents, SAE, 9) is None and prompt(documents[3:], SAE, 3) is None


def test_pieces_are_one_line_around_the_strongest_token() -> None:
    pieces = [f" w{n}" for n in range(99)]
    pieces[50] = " «x\n»\u202e\x00"
    asked = prompt([evidence("a", pieces, {3: [50]})], SAE, 3)
    assert asked is not None
    last = asked.rpartition("\n\n")[2].splitlines()
    assert last == [f"- {' '.join(f'w{n}' for n in range(38, 50))} «<x > » w51 w52 w53 w54 w55 w56", "In common:"]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (" hot drinks\n\n- next", "hot drinks"),
        ("\n\n**Names of dogs.**", "Names of dogs"),
        ("In common: x", "x"),
        ("a\u202eb\x1b[0m\tc", "a b [0m c"),
        ("", None),
        ("\n ...\n", None),
        ("«»", None),
        ("word " * 100, ("word " * 24).strip()),
        ("x" * 500, "x" * MOST_CHARACTERS),
    ],
)
def test_an_answer_becomes_one_short_line(answer: str, name: str | None) -> None:
    assert name_in(answer) == name
