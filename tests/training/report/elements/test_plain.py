"""What cannot be seen is spelled out; what people write in their languages stays as it is."""

from __future__ import annotations

import pytest

from tests.training.report.hostile import HOSTILE
from training.report.elements.plain import cut, hidden_at, plain, visible


@pytest.mark.parametrize(
    "code", [0x00, 0x1B, 0x85, 0xAD, 0x200B, 0x2028, 0x202E, 0x2066, 0xFEFF, 0x3164, 0xE0041, 0xE000]
)
def test_a_hidden_character_is_shown_by_its_code_point(code: int) -> None:
    assert visible(f"a{chr(code)}b") == f"a<i class=u>U+{code:04X}</i>b"
    assert plain(f"a{chr(code)}b") == f"a⟨U+{code:04X}⟩b"


def test_half_a_surrogate_pair_is_shown() -> None:
    assert visible("x\ud800") == "x<i class=u>U+D800</i>"


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, Żółć, naïve",
        "नमस्ते क्‍ष",  # a joiner that the script needs
        "می‌خواهم",  # a non-joiner that it needs
        "👩‍👩‍👧 ❤️ 1️⃣",  # pictures put together
        "日本語　テキスト",
        "line\nbreak\tand tab",
    ],
)
def test_what_languages_and_pictures_need_stays(text: str) -> None:
    assert visible(text) == text


def test_a_joiner_between_latin_letters_is_shown() -> None:
    assert hidden_at("a\u200db", 1)


def test_a_tower_of_accents_is_cut_down() -> None:
    assert visible("z" + "\u0351" * 9).count("<i class=u>") == 5


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_escaped(text: str) -> None:
    shown = str(visible(text))
    assert "<" not in shown.replace("<i class=u>", "").replace("</i>", "")
    assert '"' not in shown


def test_a_cut_does_not_swallow_separators_that_are_to_be_seen() -> None:
    assert cut(" a\n b\u2028c ", 10) == "a b\u2028c"
    assert cut("abcdef", 4) == "abc…"
