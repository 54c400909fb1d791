"""`status` from the store alone: live, after a death, after the end; errors by kind with or without a journal."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore import cli
from featurestore.base.number_words import error_kind
from featurestore.checks.run_files import JOURNAL, RUNS, UnderWay
from featurestore.errors import StoreError
from featurestore.status import run_status
from featurestore.writing.writer import committed_units, create_store, write_part
from tests.featurestore.checks.test_run_files import put, record
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """Units 0 and 1 of four are there."""
    plan = plan_of([8, 8, 8, 8])
    create_store(str(tmp_path), plan)
    for unit in range(2):
        write_part(str(tmp_path), plan, unit, random_rows(SCHEMA, 8, prefix=f"u{unit}"))
    return tmp_path


def page(store: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.status(argparse.Namespace(store=str(store), json=False, watch=False)) == 0
    return capsys.readouterr().out


def test_a_live_run_shows_what_it_does_and_how_long_it_will_take(
    half_done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = run_status(str(half_done)).tokens
    live = record(
        workers=2,
        workers_wanted=3,
        tokens_per_second=tokens / 40.0,
        under_way=(UnderWay(2, "n1", 61.0, 3, 0),),
        failed={},
    )
    put(half_done, RUNS, "a.json", live.to_bytes())
    now = run_status(str(half_done))
    assert (now.units_done, now.units_running, now.units_failed, now.running) == (2, 1, 0, True)
    assert now.seconds_left == pytest.approx(40.0)  # as much again as is done, at this rate
    out = page(half_done, capsys)
    assert ": running" in out
    assert "2 of 4, 1 running" in out
    assert "2 of 3 ready" in out
    assert "0:40 left" in out
    assert "unit 2: 1:01 on n1, 3 documents so far" in out
    assert "events     lost 2" in out


@pytest.mark.parametrize(
    ("silent", "state"),
    [(3, r": running, last heard of [3-6] s ago"), (14, r": incomplete, its run was last heard of 1[4-7] s ago")],
)
def test_a_run_is_called_running_only_while_it_is_heard_of(
    half_done: Path, capsys: pytest.CaptureFixture[str], silent: int, state: str
) -> None:
    then = (datetime.now(UTC) - timedelta(seconds=silent)).isoformat()
    put(half_done, RUNS, "a.json", record(updated_at=then, unmet="no node has a GPU").to_bytes())
    now = run_status(str(half_done))
    assert (now.running, now.missed) == (silent < 12, silent > 12)
    assert now.seconds_silent == pytest.approx(silent, abs=3)
    out = page(half_done, capsys)
    assert re.search(state, out)
    assert ("waiting    no node has a GPU" in out) == now.running
    assert "ended without a word" not in out
    if now.missed:
        assert re.search(r"last run .* since .*, last heard of 1[4-7] s ago", out)
        assert ": running" not in out


def test_a_run_that_was_killed_is_not_called_running(half_done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then = (datetime.now(UTC) - timedelta(minutes=12)).isoformat()
    put(half_done, RUNS, "a.json", record(started_at=then, updated_at=then).to_bytes())
    now = run_status(str(half_done))
    assert (now.running, now.units_running, now.seconds_left) == (False, 0, None)
    out = page(half_done, capsys)
    assert "incomplete; rerun extract" in out
    assert "ended without a word, last heard of 12:0" in out


def test_units_that_were_given_up_are_named_until_their_parts_are_there(
    half_done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = record(state="failed", reason="unit 3 failed", failed={1: "once", 3: "disk \x1b[31mon fire"}, under_way=())
    put(half_done, RUNS, "a.json", failed.to_bytes())
    assert run_status(str(half_done)).units_failed == 1
    out = page(half_done, capsys)
    assert "1 failed" in out
    assert "failed: unit 3 failed" in out
    assert "unit 3: disk \\x1b[31mon fire" in out  # nothing from a file reaches the terminal as control


def test_errors_come_by_kind_with_examples_from_the_journal_or_from_the_parts(tmp_path: Path) -> None:
    write_store(tmp_path, (20, 15))
    from_parts = run_status(str(tmp_path)).error_kinds
    (kind,) = from_parts
    assert (kind.kind, kind.documents) == ("the line is broken", 4)
    assert kind.examples[0] == ("u0-6", "the line is broken")
    assert len(kind.examples) == 3
    sizes = committed_units(str(tmp_path))
    noted = {"unit": 0, "bytes": sizes[0], "rows": 20, "errors": 2, "tokens": 5, "seconds": 2.0, "host": "n1"}
    noted["kinds"] = {"the line is broken": [2, "u0-6", "the line is broken"]}
    put(tmp_path, JOURNAL, "x.json", json.dumps([noted]).encode())
    now = run_status(str(tmp_path))
    assert [(kind.kind, kind.documents) for kind in now.error_kinds] == [("the line is broken", 4)]
    assert (now.slowest[0].unit, now.slowest[0].seconds, now.worker_tokens) == (0, 2.0, 5)


def test_a_damaged_part_is_named_in_one_sentence(tmp_path: Path) -> None:
    write_store(tmp_path, (20, 15))
    part = tmp_path / "parts" / "part-000001.parquet"
    data = bytearray(part.read_bytes())
    data[4:2000] = bytes(1996)  # the pages; the footer stays
    part.write_bytes(data)
    with pytest.raises(StoreError, match="part 1 cannot be read"):
        run_status(str(tmp_path))


def test_status_without_any_note_is_what_the_parts_say(tmp_path: Path) -> None:
    _, parts = write_store(tmp_path)
    now = run_status(str(tmp_path))
    assert now.complete
    assert (now.rows_done, now.errors) == (21, sum(rows.n_errors for rows in parts))
    assert now.tokens == sum(rows.total_tokens for rows in parts)
    assert (now.run, now.runs, now.slowest) == (None, 0, ())


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("the line is not JSON (Expecting value, column 1)", "the line is not JSON"),
        ("the text in 'body' is null", "the text in '...' is null"),
        ("it has 12,345 bytes, 3.5 too many", "it has N bytes, N too many"),
        ("(only this)", "(only this)"),
        ("the image's file 'a.png' is not there", "the image's file '...' is not there"),
    ],
)
def test_kinds_of_errors_leave_out_names_and_numbers(sentence: str, kind: str) -> None:
    assert error_kind(sentence) == kind
