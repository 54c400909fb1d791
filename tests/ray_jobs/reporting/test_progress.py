"""The line that says how far a run is."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from featurestore.base.live import LIVE_SECONDS, LOG_SECONDS, LiveLine
from featurestore.base.number_words import duration
from featurestore.checks.run_files import RunSnapshot, UnderWay
from ray_jobs.reporting.progress import Progress, describe
from ray_jobs.reporting.rate import JobSize

JOB = JobSize(documents=1000, documents_before=0, mean_tokens=100.0)
NOW = RunSnapshot(waiting=5, workers_wanted=2)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def shown(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_log_gets_a_line_at_once_and_then_only_now_and_then() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, live=False, clock=clock)
    for second in range(91):
        progress.update(replace(NOW, workers=2, documents=second, tokens_per_second=100.0), JOB)
        clock.now += 1.0
    assert len(shown(stream)) == 1 + 90 / LOG_SECONDS
    assert "\r" not in stream.getvalue()
    assert shown(stream)[-1] == "90 of 1,000 documents (9 %) · 100 tokens/s · 15:10 left · 2 workers"


def test_a_terminal_gets_one_line_that_moves_and_is_taken_away() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, live=True, clock=clock)
    for _ in range(10):
        progress.update(NOW, JOB)
        clock.now += LIVE_SECONDS / 2
    assert stream.getvalue().count("\r\x1b[K") == 5
    assert "\n" not in stream.getvalue()
    progress.note("a worker died")
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[Ka worker died\n")


def test_a_live_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    Progress(stream, live=True, clock=Clock()).update(NOW, JOB)
    assert len(stream.getvalue().removeprefix("\r\x1b[K")) == 19


def test_a_terminal_that_cannot_move_its_cursor_is_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    Progress(stream, clock=Clock()).update(NOW, JOB)
    assert stream.getvalue().endswith("ready\n") and "\x1b" not in stream.getvalue()


def test_a_log_can_wait_for_its_first_line() -> None:
    clock, stream = Clock(), io.StringIO()
    line = LiveLine(stream, live=False, clock=clock, at_once=False)
    for _ in range(40):
        line.show(lambda: "so far")
        clock.now += 1.0
    assert stream.getvalue() == "so far\n"


def test_the_line_says_what_is_known() -> None:
    assert describe(NOW, JOB) == "0 of 1,000 documents (0 %) · 0 of 2 workers ready"
    done = replace(NOW, documents=1000, workers=1, workers_wanted=1, errors=3, tokens_per_second=250.0)
    assert describe(done, JOB) == "1,000 of 1,000 documents (100 %) · 250 tokens/s · 0:00 left · 1 worker · 3 errors"


def test_documents_of_earlier_runs_and_of_units_under_way_count_as_done() -> None:
    under_way = tuple(UnderWay(unit, "n", 1.0, documents=10, tokens=1000) for unit in range(2))
    now = replace(NOW, documents=80, workers=2, tokens_per_second=100.0, under_way=under_way)
    line = describe(now, replace(JOB, documents_before=400))
    assert line == "500 of 1,000 documents (50 %) · 100 tokens/s · 8:20 left · 2 workers"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3600, "1:00:00"), (172_800, "2 d 0 h"), (-1, "0:00")]
)
def test_time_left_is_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
