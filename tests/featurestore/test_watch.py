"""`status --watch`: painted again on a terminal, lines in a pipe, at an end with the run or at Ctrl-C."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import sparsemill
from featurestore import watch
from featurestore.checks.run_files import RUNS
from featurestore.writing.writer import create_store, finish_store, read_record, write_part
from tests.featurestore.checks.test_run_files import put, record
from tests.featurestore.stores import SCHEMA, plan_of, random_rows

PLAN = plan_of([8, 8, 8])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Unit 0 of three is there, and a run is heard of."""
    create_store(str(tmp_path), PLAN)
    write_part(str(tmp_path), PLAN, 0, random_rows(SCHEMA, 8, prefix="u0"))
    beat(str(tmp_path))
    return str(tmp_path)


def beat(store: str, **changes: object) -> None:
    now = datetime.now(UTC).isoformat()
    put(Path(store), RUNS, "a.json", record(started_at=now, updated_at=now, **changes).to_bytes())


def then(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """What happens between one look and the next."""
    left = iter(steps)
    monkeypatch.setattr(watch.time, "sleep", lambda _: next(left)())


def commit(store: str, unit: int) -> None:
    write_part(store, PLAN, unit, random_rows(SCHEMA, 8, prefix=f"u{unit}"))


def finish(store: str) -> None:
    commit(store, 2)
    finish_store(store, [read_record(store, unit, PLAN) for unit in range(3)])


def test_a_pipe_gets_a_line_for_each_change_until_the_store_is_complete(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    then(monkeypatch, lambda: commit(store, 1), lambda: None, lambda: finish(store))
    assert sparsemill.main(["status", store, "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[10:].partition(",")[0] for line in lines] == [
        "running: 8 of 24 documents",
        "running: 16 of 24 documents",
        "complete: 24 of 24 documents",
    ]


def test_as_json_each_line_is_a_document_and_a_run_that_fails_ends_with_one(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    then(monkeypatch, lambda: beat(store, state="failed", reason="the disk is full"))
    assert sparsemill.main(["status", store, "--watch", "--json"]) == 1
    first, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["running"], last["running"], last["run"]["reason"]) == (True, False, "the disk is full")


def test_a_terminal_sees_one_page_in_the_place_of_the_last(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "9")
    then(monkeypatch, lambda: commit(store, 1), lambda: finish(store))
    assert sparsemill.main(["status", store, "--watch"]) == 0
    first, second, third = screen.getvalue().split("\x1b[J")
    height = first.count("\n")
    assert first.endswith(f"\x1b[{height}F") and height <= 8  # one line stays for the cursor
    assert "1 of 3" in first and "2 of 3" in second and "3 of 3" in third
    assert "more lines" in first
    assert all(len(line) <= 60 for line in third.splitlines())


def test_ctrl_c_leaves_without_a_word(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    then(monkeypatch, interrupt)
    assert sparsemill.main(["status", store, "--watch"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and len(said.out.splitlines()) == 1


def test_where_nothing_runs_the_page_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_store(str(tmp_path), PLAN)
    then(monkeypatch)
    assert sparsemill.main(["status", str(tmp_path), "--watch"]) == 1
    assert "incomplete: 0 of 24 documents" in capsys.readouterr().out


def test_status_names_the_job_of_a_cluster_and_its_log(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    beat(store, submission="sparsemill-1f-20260101", log="/tmp/ray/job-driver-x.log", host="head")
    assert sparsemill.main(["status", store]) == 0
    page = capsys.readouterr().out
    assert "job        sparsemill-1f-20260101 of a Ray cluster; `ray job logs sparsemill-1f-20260101`" in page
    assert "log        /tmp/ray/job-driver-x.log on head" in page
