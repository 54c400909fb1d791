"""A written answer is right if it is one of the right ones, but for what hardly matters."""

from __future__ import annotations

import pytest

from ray_jobs.labels.grading import cut_off, grade, normalised


@pytest.mark.parametrize(
    ("answer", "right", "exact", "alike"),
    [
        ("Paris", ["Paris"], True, True),
        ("paris.", ["Paris"], False, True),
        ("The Beatles", ["Beatles"], False, True),
        ("jean-luc  picard", ["Jean Luc Picard"], False, True),
        ("Bob", ["Ann", "bob"], False, True),
        ("Paris, France", ["Paris"], False, False),
        ("", ["a"], False, False),
        ("a", ["A"], False, True),  # an article alone is an answer
        ("?", ["!"], False, False),
        ("", ["Paris"], False, False),
        ("ﬁve", ["five"], False, True),
    ],
)
def test_exact_and_normalised(answer: str, right: list[str], exact: bool, alike: bool) -> None:
    assert grade(answer, right) == (exact, alike)


def test_an_answer_ends_before_the_first_stop_and_has_no_blanks_around_it() -> None:
    assert cut_off("\n Paris.\nQuestion: next", ["\n"]) == "Paris."
    assert cut_off("Paris. It is", [".", "\n"]) == "Paris"
    assert cut_off("\n", ["\n"]) == ""


def test_normalising_twice_changes_nothing() -> None:
    for text in ("The  Cat!", "a", "?", "é—b", ""):
        assert normalised(normalised(text)) == normalised(text)
