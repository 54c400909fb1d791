"""What `verify` says while a run is writing, and of a store that a run has left unfinished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from featurestore.checks.holder import LEASE_JSON, STALE_SECONDS
from featurestore.checks.verify import verify_store
from featurestore.errors import StoreError
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, write_part
from ray_jobs.run.store_lease import hold_store
from sparsemill import main
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store

UNITS, DONE = 10, 2


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two parts of ten."""
    root = tmp_path / "store"
    plan = plan_of([3] * UNITS)
    create_store(str(root), plan)
    for unit in range(DONE):
        write_part(str(root), plan, unit, random_rows(SCHEMA, 3, seed=unit, prefix=f"u{unit}"))
    return root


def spoil(store: Path) -> None:
    part = store / "parts" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-40])


def verify(store: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = main(["verify", str(store), *options])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--quick",)], ids=["whole", "quick"])
def test_a_store_that_a_run_is_writing_is_sound_so_far(
    store: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_store(str(store)):
        code, page = verify(store, capsys, *options)
        assert code == 0 and len(page.splitlines()) == 1
        assert f"a run is writing: 2 of {UNITS} parts are there, what is there is sound (process {os.getpid()} " in page
        code, page = verify(store, capsys, "--json", *options)
        report: dict[str, Any] = json.loads(page)
        assert code == 0 and report["ok"] and report["problems"] == [] and report["finished"] is False
        assert report["writer"].startswith(f"process {os.getpid()} on ")
        assert (report["parts"], report["units"]) == (DONE, UNITS)
        with pytest.raises(StoreError, match="is incomplete"):
            FeatureStore.open(str(store))


def test_damage_is_found_while_a_run_is_writing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(store)
    with hold_store(str(store)):
        code, page = verify(store, capsys)
        assert code == 1 and "a run is writing: 2 of 10 parts are there, with 1 problem (process" in page
        assert "part-000001.parquet: cannot be read as a part" in page and "is missing" not in page


def test_a_run_that_was_killed_leaves_an_unfinished_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kill = (
        "import os, signal; from ray_jobs.run.store_lease import hold_store\n"
        f"with hold_store({str(store)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", kill], cwd=Path(__file__).parents[3], timeout=60)
    assert (store / LEASE_JSON).exists()
    code, page = verify(store, capsys)
    assert code == 1 and len(page.splitlines()) == 1
    assert "unfinished: 2 of 10 parts are there, what is there is sound; rerun extract to finish it (2 parts" in page
    report = verify_store(str(store))
    assert not report.ok and report.writer is None
    assert report.missing == report.problems and len(report.missing) == 1 + UNITS - DONE
    spoil(store)
    code, page = verify(store, capsys)
    assert code == 1 and "unfinished: 2 of 10 parts are there, with 1 problem" in page and len(page.splitlines()) == 2


def test_a_run_elsewhere_is_judged_by_when_it_was_last_heard_of(store: Path) -> None:
    lease = store / LEASE_JSON
    with hold_store(str(store)):
        mine = json.loads(lease.read_text())
    for data in (json.dumps({**mine, "machine": "another one", "host": "node-7"}), "no lease"):
        lease.write_text(data)
        assert verify_store(str(store)).writer == (
            f"process {mine['pid']} on node-7 since {mine['since']}" if "{" in data else "another run"
        )
        heard = time.time() - STALE_SECONDS - 1
        os.utime(lease, (heard, heard))
        report = verify_store(str(store))
        assert report.writer is None and not report.ok


def test_a_finished_store_that_a_run_holds_needs_all_its_parts_but_those_that_it_writes(tmp_path: Path) -> None:
    write_store(tmp_path)
    part = tmp_path / "parts" / "part-000001.parquet"
    with hold_store(str(tmp_path)):
        assert verify_store(str(tmp_path)).writer is None and verify_store(str(tmp_path)).ok
        part.unlink()
        report = verify_store(str(tmp_path))
        assert report.ok and report.writer is not None and report.finished
    report = verify_store(str(tmp_path))
    assert report.problems == ("parts/part-000001.parquet: is missing; rerun extract",) and report.missing == ()
