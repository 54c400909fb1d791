"""Pages fit the terminal that they are shown on, lose nothing there, and are whole in files."""

from __future__ import annotations

import io
import os
import sys

import pytest

from featurestore.base import terminal
from featurestore.base.live import WIPE, LiveLine
from featurestore.base.terminal import cut_to, fact_lines, print_facts, print_page, table_lines

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


def test_lines_are_broken_at_spaces_and_go_on_further_in(sixty: None, capsys: pytest.CaptureFixture[str]) -> None:
    print_page(f"  {'word ' * 20}\nshort\n{'猫 ' * 30}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  " + " ".join(["word"] * 11) and lines[1].startswith(" " * 6 + "word")
    assert lines[2] == "short" and lines[3] == " ".join("猫" * 20)


def test_a_cell_that_is_too_wide_goes_on_under_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "page_width", lambda: 40)
    lines = table_lines([["name", "n", "what"], ["a", "7", "word " * 12]], left={0, 2})
    assert lines[:2] == ["a", "    n     7"] and lines[2].startswith("    what  word")
    assert lines[3].startswith(" " * 10 + "word") and all(len(line) <= 40 for line in lines)


def test_what_is_cut_ends_with_an_ellipsis_and_counts_wide_letters() -> None:
    assert (cut_to("abcdef", 6), cut_to("abcdef", 4), cut_to("猫猫猫", 5)) == ("abcdef", "abc…", "猫猫…")


@pytest.mark.parametrize(
    ("tty", "env", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_is_only_where_a_person_looks_and_moves_no_word(
    tty: bool, env: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty, raising=False)
    (line,) = fact_lines([("error", "it failed")])
    assert ("\x1b[31m" in line) == coloured
    assert line.replace("\x1b[31m", "").replace("\x1b[0m", "") == "error      it failed"


def test_a_page_is_as_wide_as_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal.page_width() > 1_000_000
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal.page_width() == 60


STRANGE = "spam\x1b[2J\u202e\x9b2J"  # clears the screen, turns the writing, and clears it once more


def test_what_a_page_is_given_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_page(f"  class {STRANGE}\nnext")
    print_facts([("class", STRANGE), (STRANGE, "label")])
    print("\n".join(table_lines([["class", "n"], [f"{STRANGE}\nforged", "1"]], left={0})))
    out = capsys.readouterr().out
    assert all(char.isprintable() for char in out.replace("\n", ""))
    assert out.splitlines()[:2] == [r"  class spam\x1b[2J\u202e\x9b2J", "next"]
    assert out.splitlines()[-1] == r"spam\x1b[2J\u202e\x9b2J\nforged  1"


def test_a_line_that_moves_and_those_above_it_cannot_either() -> None:
    for live in (True, False):
        stream = io.StringIO()
        line = LiveLine(stream, live=live)
        line.note(f"note {STRANGE}\nsecond line")
        line.show(lambda: f"shown {STRANGE}")
        said = stream.getvalue().replace(WIPE, "")
        assert all(char.isprintable() for char in said.replace("\n", "")) and said.count(r"\x1b[2J") == 2
        assert "\nsecond line\n" in said


def test_our_own_colours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "has_colours", lambda _: True)
    (line,) = fact_lines([("error", STRANGE)])
    assert line == f"\x1b[31merror\x1b[0m      {STRANGE.encode('unicode_escape').decode()}"
