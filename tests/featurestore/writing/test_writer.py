"""Committing parts: whole or not at all, refused when wrong, counted when finished."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.reader import FeatureStore
from featurestore.status import run_status
from featurestore.writing.writer import PartRecord, committed_units, create_store, finish_store, read_record, write_part
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, with_sparse, write_store

PLAN = plan_of([6, 4])


@pytest.fixture
def store(tmp_path: Path) -> str:
    create_store(str(tmp_path / "store"), PLAN)
    return str(tmp_path / "store")


def test_a_record_says_what_lies_on_disk(store: str) -> None:
    rows = random_rows(SCHEMA, 6)
    record = write_part(store, PLAN, 0, rows)
    data = (Path(store) / "parts/part-000000.parquet").read_bytes()
    tokens = int(rows.n_tokens.sum())
    assert record == PartRecord(0, 6, 0, tokens, len(data), hashlib.sha256(data).hexdigest())
    assert read_record(store, 0, PLAN) == record


def test_doing_a_unit_twice_changes_nothing(store: str) -> None:
    assert write_part(store, PLAN, 0, random_rows(SCHEMA, 6)) == write_part(store, PLAN, 0, random_rows(SCHEMA, 6))
    assert [path.name for path in (Path(store) / "parts").iterdir()] == ["part-000000.parquet"]


@pytest.mark.parametrize(
    ("unit", "rows", "said"),
    [
        (0, random_rows(SCHEMA, 5), "has 6 documents, but 5 rows were given"),
        (2, random_rows(SCHEMA, 6), "there is no unit 2; the store has units 0 to 1"),
        (0, replace(random_rows(SCHEMA, 6), doc_id=["a"] * 6), "a doc_id occurs twice"),
        (0, replace(random_rows(SCHEMA, 6), doc_id=[*"abcde", "\ud800"]), "cannot be stored"),
        (0, replace(random_rows(SCHEMA, 6), n_tokens=np.zeros(6, np.uint32)), "row 0: has no tokens and yet"),
        (0, with_sparse(random_rows(SCHEMA, 6), "l9_8", indices=np.zeros(1, np.uint32)), "'l9_8'"),
    ],
)
def test_rows_that_break_the_format_are_refused_and_leave_nothing(store: str, unit: int, rows, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        write_part(store, PLAN, unit, rows)
    assert not (Path(store) / "parts").exists()


def test_a_kept_value_of_another_type_is_refused(store: str) -> None:
    rows = random_rows(SCHEMA, 6)
    with pytest.raises(StoreError, match="cannot be stored"):
        write_part(store, PLAN, 0, replace(rows, keep={**rows.keep, "group": ["text"] * 6}))


def test_an_error_text_with_a_lone_surrogate_is_repaired(store: str) -> None:
    rows = replace(random_rows(SCHEMA, 6), error=["bad \ud800"] + [None] * 5)
    empty = {name: sparse.rows(0, 6) for name, sparse in random_rows(SCHEMA, 6, seed=1).sparse.items()}
    rows = replace(rows, n_tokens=np.zeros(6, np.uint32), sparse={n: _emptied(s) for n, s in empty.items()})
    write_part(store, PLAN, 0, rows)
    assert FeatureStore.open(store, partial=True).documents().collect()["error"][0] == "bad ?"


def _emptied(sparse):
    none = {pool: values[:0] for pool, values in sparse.values.items()}
    return replace(sparse, indptr=np.zeros_like(sparse.indptr), indices=sparse.indices[:0], values=none)


WRITER = """
import resource, signal, sys
from featurestore.writing.writer import *
from tests.featurestore.stores import SCHEMA, plan_of, random_rows
signal.signal(signal.SIGXFSZ, signal.SIG_DFL if sys.argv[2] == "killed" else signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
write_part(sys.argv[1], plan_of([6, 4]), 0, random_rows(SCHEMA, 6))
"""


def run_writer(store: str, fate: str) -> subprocess.CompletedProcess:
    """Write a part in a process that may write no more than 5,000 bytes: the kernel stops it in the middle."""
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", WRITER, store, fate]
    return subprocess.run(command, cwd=root, env={"PYTHONPATH": root}, capture_output=True, text=True)


def test_a_writer_killed_in_the_middle_of_a_write_leaves_no_visible_part(store: str) -> None:
    assert run_writer(store, "killed").returncode == -signal.SIGXFSZ
    (leftover,) = (Path(store) / "parts").iterdir()
    assert leftover.name.startswith(".part-000000") and leftover.stat().st_size == 5000
    assert committed_units(store) == {}

    records = [write_part(store, PLAN, unit, random_rows(SCHEMA, size)) for unit, size in enumerate([6, 4])]
    assert list(committed_units(store)) == [0, 1]
    finish_store(store, records)
    assert not leftover.exists()


def test_a_full_disk_is_an_error_and_leaves_no_file(store: str) -> None:
    done = run_writer(store, "refused")
    assert done.returncode == 1 and "OSError" in done.stderr
    assert list((Path(store) / "parts").iterdir()) == []


def test_committed_units_come_from_names_alone(store: str) -> None:
    parts = Path(store) / "parts"
    parts.mkdir()
    for name in ("part-000001.parquet", "part-000000.parquet", ".part-000002.parquet.a.tmp", "notes.txt"):
        (parts / name).write_bytes(b"1234")
    assert committed_units(store) == {0: 4, 1: 4}
    assert list(committed_units(store)) == [0, 1]


def test_a_directory_or_an_empty_file_is_no_committed_part(store: str) -> None:
    write_part(store, PLAN, 1, random_rows(SCHEMA, 4))
    (Path(store) / "parts/part-000000.parquet").touch()
    (Path(store) / "parts/part-000002.parquet").mkdir()
    assert list(committed_units(store)) == [1]
    assert FeatureStore.open(store, partial=True).units == (1,)
    assert run_status(store).units_done == 1
    write_part(store, PLAN, 0, random_rows(SCHEMA, 6))
    assert list(committed_units(store)) == [0, 1]


def test_the_manifest_lists_every_part_in_unit_order_with_totals(tmp_path: Path) -> None:
    plan, _ = write_store(tmp_path, (7, 5, 9))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [record["unit"] for record in manifest["parts"]] == [0, 1, 2]
    assert manifest["rows"] == 21 and manifest["errors"] == 2
    assert manifest["bytes"] == sum(path.stat().st_size for path in (tmp_path / "parts").iterdir())
    assert manifest["fingerprint"] == plan.fingerprint
    assert manifest["store_sha256"] == hashlib.sha256((tmp_path / "store.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("units", [[0], [0, 0], [0, 1, 1]])
def test_a_store_is_not_finished_without_one_record_for_each_unit(store: str, units: list[int]) -> None:
    with pytest.raises(StoreError, match=f"{len(units)} records for 2 units"):
        finish_store(store, [PartRecord(unit, 6, 0, 1, 1, "") for unit in units])
    assert not (Path(store) / "manifest.json").exists()


def test_a_record_with_other_rows_than_the_plan_is_refused(store: str) -> None:
    with pytest.raises(StoreError, match="part 1 has 5 rows"):
        finish_store(store, [PartRecord(0, 6, 0, 1, 1, ""), PartRecord(1, 5, 0, 1, 1, "")])


def test_a_part_of_another_job_is_not_taken_for_ones_own(store: str) -> None:
    write_part(store, plan_of([6, 4], bundle="other"), 0, random_rows(SCHEMA, 6))
    with pytest.raises(StoreError, match="part 0 carries the fingerprint of another job; delete it"):
        read_record(store, 0, PLAN)


@pytest.mark.parametrize("data", [None, b"", b"PAR1 not parquet PAR1"])
def test_a_part_that_cannot_be_read_is_named(store: str, data: bytes | None) -> None:
    (Path(store) / "parts").mkdir()
    if data is not None:
        (Path(store) / "parts/part-000000.parquet").write_bytes(data)
    with pytest.raises(StoreError, match="part 0 cannot be read"):
        read_record(store, 0)
