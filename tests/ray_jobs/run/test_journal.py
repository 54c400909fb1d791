"""Records are remembered in few files, believed only where the part is there in that size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurestore.writing.writer import PartRecord
from ray_jobs.run import journal
from ray_jobs.run.journal import Journal, earlier_records
from ray_jobs.workers.worker import Report


def report(unit: int, sha256: str = "ab") -> Report:
    return Report(PartRecord(unit, rows=10, errors=1, tokens=100, bytes=1000 + unit, sha256=sha256), seconds=2.5)


def written(store: Path, reports: list[Report]) -> list[Path]:
    book = Journal(str(store))
    for entry in reports:
        book.add(entry, "host")
    book.close()
    return sorted((store / ".journal").iterdir())


def test_what_was_written_down_is_known_again(tmp_path: Path) -> None:
    reports = [report(unit) for unit in range(5)]
    written(tmp_path, reports)
    sizes = {entry.record.unit: entry.record.bytes for entry in reports}
    assert earlier_records(str(tmp_path), sizes) == {entry.record.unit: entry.record for entry in reports}


def test_many_records_take_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FILE_RECORDS", 100)
    files = written(tmp_path, [report(unit) for unit in range(250)])
    assert [len(json.loads(file.read_text())) for file in files] == [100, 100, 50]


def test_a_part_of_another_size_or_none_has_no_record(tmp_path: Path) -> None:
    written(tmp_path, [report(0), report(1), report(2)])
    assert earlier_records(str(tmp_path), {0: 999, 2: 1002}).keys() == {2}


def test_two_runs_keep_two_journals_and_a_disagreement_counts_for_nothing(tmp_path: Path) -> None:
    written(tmp_path, [report(0), report(1)])
    written(tmp_path, [report(1, sha256="cd"), report(2)])
    assert earlier_records(str(tmp_path), {0: 1000, 1: 1001, 2: 1002}).keys() == {0, 2}


@pytest.mark.parametrize("damage", ["", "[1, null, {}]", '{"parts": 3}', '[{"unit": 0}]', "\x00\xff", "[" * 100_000])
def test_a_damaged_journal_costs_reading_and_nothing_else(tmp_path: Path, damage: str) -> None:
    (file,) = written(tmp_path, [report(0)])
    written(tmp_path, [report(1)])
    file.write_text(damage)
    assert earlier_records(str(tmp_path), {0: 1000, 1: 1001}).keys() == {1}


def test_storage_that_refuses_the_journal_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / ".journal").write_text("a file where the directory should be")
    book = Journal(str(tmp_path))
    book.add(report(0), "host")
    book.close()
    assert earlier_records(str(tmp_path), {0: 1000}) == {}
