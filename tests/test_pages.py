"""Pages on terminals of 40 to 200 columns: no line is wider unless a word is, and every word is there."""

from __future__ import annotations

import io
import re
import sys
import warnings
from pathlib import Path

import pytest

import sparsemill
from featurestore.base.terminal import width_of
from tests.mistakes.ground import make_ground
from tests.training.stores import build_store, make_documents

COMMANDS = (
    "status store", "verify store", "verify damaged", "show store", "show store --doc doc-1", "show store --feature 3",
)  # fmt: skip
SLOW = (
    "explain study/models/sae.json --top 1", "study study.yaml", "predict study/models/sae.json --store store",
    "cache list", "init good.csv --out new", "saes", "saes --model gemma-2-2b --layer 12", "doctor",
)  # fmt: skip
ESCAPES = re.compile("\x1b[^m]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    build_store(folder / "store", make_documents(n=20))
    build_store(folder / "damaged", make_documents(n=20))
    part = sorted((folder / "damaged" / "parts").glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-40] + b"\0" * 40)
    return folder


def page(command: str, stdout: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints."""
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with warnings.catch_warnings():
        assert sparsemill.main(command.split()) in (0, 1)
    return stdout.getvalue()


def check_page(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    for line in page(command, Terminal(), monkeypatch).splitlines():
        line = ESCAPES.sub("", line)
        for_copying = "\t" in line or line.startswith("  sparsemill ")
        assert width_of(line) <= columns or len(line.split()) == 1 or for_copying, line


@pytest.mark.parametrize("columns", [40, 60, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_wider_than_the_terminal_unless_a_word_is(
    command: str, columns: int, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stores)
    monkeypatch.setenv("SPARSEMILL_CACHE", str(stores / "cache"))
    check_page(command, columns, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 200])
def test_no_line_of_the_other_commands_is_wider_either(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ground").mkdir()
    monkeypatch.chdir(tmp_path / "ground")
    make_ground(tmp_path / "ground")
    for command in SLOW:
        check_page(command, columns, monkeypatch)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_narrow_page_has_every_word_of_a_wide_one(
    command: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stores)
    monkeypatch.setenv("SPARSEMILL_CACHE", str(stores / "cache"))
    whole = page(command, io.StringIO(), monkeypatch).split()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    assert page(command, Terminal(), monkeypatch).split() == whole
