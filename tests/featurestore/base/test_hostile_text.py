"""What a terminal shows of text that anybody may have written."""

from __future__ import annotations

import pytest

from featurestore.base.hostile_text import columns, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Straße, 漢字 привет 🙂", "Straße, 漢字 привет 🙂"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("evil\u202etxt", "evil\\u202etxt"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u3164", "\\u3164"),  # Hangul filler: a letter that nobody sees
        ("\U000e0041", "\\U000e0041"),  # a tag character
        ("\ud800", "\\ud800"),
    ],
)
def test_what_moves_turns_or_hides_is_spelled_out_and_all_else_stays(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_wide_letters_take_two_columns_and_marks_none() -> None:
    assert [columns(char) for char in "a漢🙂\u0301"] == [1, 2, 2, 0]
