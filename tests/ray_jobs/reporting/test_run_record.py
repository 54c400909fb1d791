"""The record of a run: written when it begins, while it lives and how it ends, and no run fails for it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from featurestore.checks.run_files import RunSnapshot, UnderWay, read_runs
from featurestore.errors import JobFailed
from ray_jobs.reporting.progress import Progress
from ray_jobs.reporting.run_record import Recorder, recorded
from tests.featurestore.stores import write_store


def snapshot(tokens: int = 0, rate: float | None = None) -> RunSnapshot:
    return RunSnapshot(
        units_done=1,
        documents=20,
        tokens=tokens,
        errors=2,
        waiting=5,
        workers=1,
        workers_wanted=3,
        tokens_per_second=rate,
        events={"lost": 1},
        failed={7: "why"},
        under_way=(UnderWay(2, "n", 1.0, 3, 0),),
    )


def latest(store: Path, recorder: Recorder) -> str:
    """What the store says, once the recorder's thread has written it."""
    if recorder._writing is not None:
        recorder._writing.result()
    (run,) = read_runs(str(store))
    return run.state


def test_a_run_is_running_from_its_first_moment_and_finished_at_its_end(tmp_path: Path) -> None:
    write_store(tmp_path)
    with recorded(str(tmp_path)) as recorder:
        assert latest(tmp_path, recorder) == "running"
        recorder.update(snapshot(100, rate=12.5))
        recorder.update(snapshot(200))  # within ten seconds
        assert latest(tmp_path, recorder) == "running"
        (run,) = read_runs(str(tmp_path))
        assert (run.units_done, run.waiting, run.workers, run.workers_wanted) == (1, 5, 1, 3)
        assert (run.tokens, run.tokens_per_second) == (100, 12.5)
        assert (dict(run.events), dict(run.failed), run.under_way[0].unit) == ({"lost": 1}, {7: "why"}, 2)
    (run,) = read_runs(str(tmp_path))
    assert (run.state, run.under_way, run.tokens, run.tokens_per_second) == ("finished", (), 100, None)


@pytest.mark.parametrize(
    ("error", "ended", "reason"),
    [(JobFailed("unit 3 failed"), "failed", "unit 3 failed"), (KeyboardInterrupt(), "stopped", "KeyboardInterrupt")],
)
def test_how_a_run_ends_is_said(tmp_path: Path, error: BaseException, ended: str, reason: str) -> None:
    write_store(tmp_path)
    with pytest.raises(type(error)), recorded(str(tmp_path)):
        raise error
    (run,) = read_runs(str(tmp_path))
    assert (run.state, run.reason) == (ended, reason)


def test_storage_that_refuses_is_mentioned_once_and_the_run_goes_on(tmp_path: Path) -> None:
    write_store(tmp_path)
    (tmp_path / ".runs").write_text("a file in the way", encoding="utf-8")
    stream = io.StringIO()
    with recorded(str(tmp_path), Progress(stream, live=False)) as recorder:
        for _ in range(3):
            recorder.write(snapshot(1))
            if recorder._writing is not None:
                recorder._writing.result()
    assert stream.getvalue().count("the run goes on") == 1


def test_the_record_of_a_submitted_job_names_it_and_the_file_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "store")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "sparsemill-1"}}')
    with (tmp_path / "driver.log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        with recorded(str(tmp_path / "store")):
            pass
    (run,) = read_runs(str(tmp_path / "store"))
    assert run.submission == "sparsemill-1"
    assert run.log in (str(tmp_path / "driver.log"), None)  # None where the system does not say


def test_a_run_that_nobody_submitted_has_no_such_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "[not what it was]")
    with recorded(str(tmp_path)):
        pass
    (run,) = read_runs(str(tmp_path))
    assert run.submission is None
