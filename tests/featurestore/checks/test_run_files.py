"""What runs leave in a store is read however late, damaged or hostile it is, and no reader of features sees it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore.checks.run_files import JOURNAL, RUNS, SILENT_SECONDS, RunRecord, UnderWay, read_notes, read_runs
from featurestore.reader import FeatureStore
from featurestore.writing.writer import committed_units
from tests.featurestore.stores import write_store


def record(**changes: Any) -> RunRecord:
    now = datetime.now(UTC).isoformat()
    under_way = (UnderWay(1, "node", 3.5, 2, 40),)
    made = RunRecord("r", "running", "node", 7, now, now, events={"lost": 2}, failed={4: "why"}, under_way=under_way)
    return replace(made, **changes)


def put(store: Path, directory: str, name: str, data: bytes) -> None:
    (store / directory).mkdir(exist_ok=True)
    (store / directory / name).write_bytes(data)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_store(tmp_path)
    put(tmp_path, RUNS, "a.json", record().to_bytes())
    assert read_runs(str(tmp_path)) == [
        record(started_at=x.started_at, updated_at=x.updated_at) for x in read_runs(str(tmp_path))
    ]


def test_the_latest_run_comes_last(tmp_path: Path) -> None:
    write_store(tmp_path)
    for name, day in (("a", "2026-03-02"), ("b", "2026-03-01"), ("c", "2026-03-03")):
        put(tmp_path, RUNS, f"{name}.json", record(run=name, started_at=f"{day}T00:00:00+00:00").to_bytes())
    assert [run.run for run in read_runs(str(tmp_path))] == ["b", "a", "c"]


def test_a_run_lives_while_it_is_heard_of() -> None:
    long_ago = (datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS + 5)).isoformat()
    assert record().is_alive
    assert not record(updated_at=long_ago).is_alive
    assert not record(state="finished").is_alive
    missed = record(updated_at=(datetime.now(UTC) - timedelta(seconds=20)).isoformat())
    assert (missed.is_alive, missed.is_missed, record().is_missed) == (False, True, False)
    ahead = record(updated_at=(datetime.now(UTC) + timedelta(seconds=20)).isoformat())  # another machine's clock
    assert ahead.is_alive and ahead.seconds_silent == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[1, 2]",
        b'{"run": "x"}',
        b"[" * 100_000,
        json.dumps({"run": 1, "state": [], "host": {}, "pid": "x", "started_at": 0, "updated_at": None}).encode(),
        record().to_bytes().replace(b'"units_done": 0', b'"units_done": "many"'),
        record(updated_at="yesterday").to_bytes(),
        record(updated_at="2026-01-01T00:00:00").to_bytes(),
    ],
)
def test_damaged_files_are_passed_over(tmp_path: Path, data: bytes) -> None:
    write_store(tmp_path)
    put(tmp_path, RUNS, "bad.json", data)
    put(tmp_path, JOURNAL, "bad.json", data)
    put(tmp_path, RUNS, "good.json", record(run="good").to_bytes())
    assert [run.run for run in read_runs(str(tmp_path))] == ["good"]
    assert read_notes(str(tmp_path), {0: 1}) == {}


def test_a_note_counts_only_while_its_part_is_there_in_that_size(tmp_path: Path) -> None:
    write_store(tmp_path)
    sizes = committed_units(str(tmp_path))
    line = {"rows": 7, "errors": 1, "tokens": 9, "seconds": 2.0, "host": "h"}
    notes = [{"unit": unit, "bytes": size, **line} for unit, size in sizes.items()]
    notes[1]["bytes"] += 1
    put(tmp_path, JOURNAL, "x.json", json.dumps([*notes, "no object", {"unit": 2}]).encode())
    assert set(read_notes(str(tmp_path), sizes)) == {0, 2}
    assert read_notes(str(tmp_path), {}) == {}


def test_readers_and_verify_take_no_notice(tmp_path: Path) -> None:
    write_store(tmp_path)
    before = FeatureStore.open(str(tmp_path)).documents().collect()
    put(tmp_path, RUNS, "a.json", record().to_bytes())
    put(tmp_path, JOURNAL, "a.json", b"[]")
    store = FeatureStore.open(str(tmp_path))
    assert store.verify().ok
    assert store.documents().collect().equals(before)
