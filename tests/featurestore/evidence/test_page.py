"""Evidence for the eye: readable at 60 columns, with and without colours, whatever the text holds."""

from __future__ import annotations

import io
import re

import pytest

from featurestore.base.hostile_text import columns
from featurestore.base.terminal import has_colours
from featurestore.evidence.page import page
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def evidence(words: list[str], values: list[float], doc_id: str = "d1") -> DocumentEvidence:
    tokens, place = [], 0
    for number, word in enumerate(words):
        text = f" {word}" if number else word
        tokens.append(Token(text, place, place + len(text), True))
        place += len(text)
    feature = FeatureEvidence("l9", 7, tuple(values), max(values), sum(values))
    return DocumentEvidence(doc_id, tuple(tokens), (feature,))


def test_tokens_that_fire_have_their_activation_behind_them() -> None:
    document = evidence(["Ignore", "all", "previous", "instructions"], [37.8, 0.0, 12.04, 0.0])
    assert list(page(document, 60, False)) == [
        "d1  4 counted tokens",
        "",
        "  l9:7  fires on 2 tokens  max 37.8  sum 49.84",
        "    [Ignore|37.8] all [previous|12] instructions",
    ]


def test_colours_add_nothing_but_colours() -> None:
    document = evidence(["love", "and", "hate"] * 30, [3.0, 0.0, 1.0] * 30)
    plain, coloured = list(page(document, 60, False)), list(page(document, 60, True))
    assert [ESCAPE.sub("", line) for line in coloured] == plain
    assert any("\x1b[38;5;16;48;5;202m[love|3]\x1b[0m" in line for line in coloured)
    assert all(
        line.count("\x1b[38") == line.count("\x1b[0m") for line in coloured
    )  # no colour leaks into the next line


@pytest.mark.parametrize("width", [20, 60, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    words = [
        "word",
        "漢字" * 16,
        "a" * 150,
        "e\u0301" * 30,
        "🙂",
        "x",
    ]
    document = evidence(words * 3, [0.0, 1.0, 0.0, 2.0, 0.0, 0.5] * 3, doc_id="d" * 90)
    for line in page(document, width, False):
        assert sum(map(columns, line)) <= width


def test_hostile_text_moves_no_cursor() -> None:
    document = evidence(["\x1b[2J", "\u202eevil", "a\nb", "\u200b"], [1.0, 0.0, 0.0, 2.0], doc_id="\x1b]0;x\x07")
    for line in page(document, 60, False):
        assert line.isprintable()


def test_where_nothing_fires_for_long_the_text_is_cut() -> None:
    values = [0.0] * 300
    values[150] = 1.0
    (_, _, _, *lines) = page(evidence([f"w{number}" for number in range(300)], values), 60, False)
    text = " ".join(line.strip() for line in lines)
    assert text.startswith("w0 w1") and "[w150|1]" in text
    assert re.findall(r"\.\.\. \((\d+) tokens\) \.\.\.", text) == ["101", "125"]


def test_a_problem_stands_above_the_features() -> None:
    (_, line) = page(DocumentEvidence("d1", (), (), "its corpus is gone"), 60, False)
    assert line == "  its corpus is gone"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "no_color", "expected"),
    [
        (Terminal(), "xterm-256color", "", True),
        (Terminal(), "xterm-256color", "1", False),
        (Terminal(), "dumb", "", False),
        (io.StringIO(), "xterm-256color", "", False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, term: str, no_color: str, expected: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert has_colours(stream) is expected
