"""Pages fit the terminal that they are shown on, lose nothing there, and are whole in files."""

from __future__ import annotations

import io
import os
import sys

import pytest

from featurestore.base import terminal
from featurestore.base.terminal import print_facts, table_lines

ROWS = [
    ["", "method", "macro F1", "interval", "note"],
    ["", "tfidf", "0.769", "[0.679, 0.849]", ""],
    ["*", "l9_4k:sum", "0.933", "[0.878, 0.976]", "chosen in 5 of 5 seeds"],
]


@pytest.fixture
def sixty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "page_width", lambda: 60)


def test_a_table_sets_names_left_and_numbers_right() -> None:
    header, rule, first, second = table_lines(ROWS, left={0, 1, 3}, naming=2)
    assert header == "   method     macro F1  interval                          note" and set(rule) == {"-"}
    assert first == "   tfidf         0.769  [0.679, 0.849]"
    assert second.startswith("*  l9_4k:sum     0.933  [0.878, 0.976]  ")


def test_wide_letters_take_two_columns() -> None:
    rows = [["class", "n"], ["猫", "1"], ["dog", "22"]]
    assert table_lines(rows, left={0}) == ["class   n", "---------", "猫      1", "dog    22"]


def test_a_table_that_is_too_wide_says_the_same_row_by_row(sixty: None) -> None:
    lines = table_lines(ROWS, left={0, 1, 3}, naming=2)
    assert lines[:3] == ["tfidf", "    macro F1  0.769", "    interval  [0.679, 0.849]"]
    assert lines[3:] == [
        "*  l9_4k:sum",
        "    macro F1  0.933",
        "    interval  [0.878, 0.976]",
        "    note      chosen in 5 of 5 seeds",
    ]


def test_a_fact_is_broken_under_the_place_where_it_begins(sixty: None, capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("units", "3 of 4"), ("error", "word " * 30), ("", "x" * 90)], margin=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  units      3 of 4"
    assert lines[1].startswith("  error      word") and lines[2].startswith(" " * 13 + "word")
    assert all(len(line) <= 60 for line in lines if "x" not in line)
    assert lines[-1] == " " * 13 + "x" * 90


def test_where_no_terminal_is_a_fact_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("error", "word " * 200)])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_page_is_as_wide_as_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal.page_width() > 1_000_000
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal.page_width() == 60
