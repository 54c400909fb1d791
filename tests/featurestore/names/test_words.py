"""Words out of tokens: as people read them, in every script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.evidence.records import Token
from featurestore.names.words import DocumentWords, is_symbol, is_unspaced, text_words
from tests.featurestore.names.evidence import tokens_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Größe isn't GRÖSSE", ["größe", "isn't", "grösse"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are marks, not letters
        ("e\u0301t\u00e9", ["été"]),  # composed
        ("'quoted' a_b 3.5", ["'", "quoted", "'", "a_b", "3", ".", "5"]),
        ("what?! 😀😀", ["what", "?", "!", "😀😀"]),
        ("한국어 단어", ["한국어", "단어"]),  # Korean has spaces
        ("a\u202eb\u200bc\x00d", ["a", "b", "c", "d"]),
        (" \n\t", []),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert text_words(text) == words


def test_a_word_of_several_tokens_is_marked_by_any_of_them() -> None:
    words = DocumentWords(tokens_of(["The", " unbe", "liev", "able", " dog"]))
    assert words.words == ["the", "unbelievable", "dog"]
    assert words.marked([0, 0, 1.5, 0, 0]).tolist() == [False, True, False]


def test_a_token_of_several_words_marks_each() -> None:
    words = DocumentWords(tokens_of(["on the", " other hand"]))
    assert words.words == ["on", "the", "other", "hand"]
    assert words.marked([3, 0]).tolist() == [True, True, False, False]


def test_tokens_are_words_where_a_script_has_no_spaces() -> None:
    words = DocumentWords(tokens_of(["今天", "天气", "很", "好", "，", "ไม่", "ดี", " ok"]))
    assert words.words == ["今天", "天气", "很", "好", "，", "ไม่", "ดี", "ok"]
    assert words.marked([0, 1, 0, 0, 0, 0, 1, 0]).tolist() == [False, True, False, False, False, False, True, False]


def test_bytes_of_a_character_mark_it_whether_they_have_it_or_not() -> None:
    face = Token("🦖", 4, 5, True)
    shared = DocumentWords([Token("rex ", 0, 4, True), face, face])
    assert shared.words == ["rex", "🦖"] and shared.marked([0, 0, 1]).tolist() == [False, True]
    without = DocumentWords([Token("rex ", 0, 4, True), face, Token("", 5, 5, True)])
    assert without.marked([0, 0, 1]).tolist() == [False, True]


def test_tokens_that_do_not_count_are_no_words() -> None:
    words = DocumentWords([Token("<bos>", 0, 0, False), Token("secret ", 0, 7, False), Token("word", 7, 11, True)])
    assert words.words == ["word"]


def test_a_pooled_token_that_is_not_of_the_text_is_no_word() -> None:
    words = DocumentWords([Token("<bos>", 0, 0, True), Token("a", 0, 1, True)])
    assert words.words == ["a"] and words.marked([1, 0]).tolist() == [False]


def test_offsets_far_away_cost_nothing() -> None:
    words = DocumentWords([Token("a", 0, 1 << 50, True), Token("b", 1 << 51, 1 << 52, True)])
    assert words.words == ["a", "b"]


def test_no_tokens_are_no_words() -> None:
    assert DocumentWords([]).words == [] and DocumentWords([]).marked([]).tolist() == []


def test_kinds_of_words() -> None:
    assert is_symbol("?!") and not is_symbol("a") and not is_symbol("天")
    assert is_unspaced("天气") and not is_unspaced("한")


@given(st.lists(st.text(min_size=1, max_size=6), max_size=12))
def test_tokens_and_text_have_the_same_words_where_scripts_have_spaces(pieces: list[str]) -> None:
    words = DocumentWords(tokens_of(pieces)).words
    if not any(is_unspaced(char) for char in "".join(pieces)):
        assert words == text_words("".join(pieces))
    assert len(DocumentWords(tokens_of(pieces)).marked([1.0] * len(pieces))) == len(words)
