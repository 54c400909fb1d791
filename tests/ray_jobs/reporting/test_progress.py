"""The line that says how far a run is."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from ray_jobs.reporting.progress import LIVE_SECONDS, LOG_SECONDS, Progress, Standing, describe, duration

STANDING = Standing(documents=0, total=1000, tokens=0, mean_tokens=100.0, workers=0, wanted=2)


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
        progress.update(replace(STANDING, workers=2, documents=second, tokens=100 * second))
        clock.now += 1.0
    assert len(shown(stream)) == 1 + 90 / LOG_SECONDS
    assert "\r" not in stream.getvalue()
    assert shown(stream)[-1] == "90 of 1,000 documents (9 %) · 100 tokens/s · 15:10 left · 2 workers"


def test_a_terminal_gets_one_line_that_moves_and_is_taken_away() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, live=True, clock=clock)
    for _ in range(10):
        progress.update(STANDING)
        clock.now += LIVE_SECONDS / 2
    assert stream.getvalue().count("\r\x1b[K") == 5
    assert "\n" not in stream.getvalue()
    progress.note("a worker died")
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[Ka worker died\n")


def test_a_live_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    Progress(stream, live=True, clock=Clock()).update(STANDING)
    assert len(stream.getvalue().removeprefix("\r\x1b[K")) == 19


def test_speed_is_that_of_the_last_minute() -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), live=False, clock=clock)
    tokens = 0
    for second in range(200):
        tokens += 10 if second < 100 else 1000
        clock.now += 1.0
        progress.update(replace(STANDING, workers=1, tokens=tokens))
    assert progress.tokens_per_second == pytest.approx(1000)


def test_starting_up_is_not_counted_as_slowness() -> None:
    clock = Clock()
    progress = Progress(io.StringIO(), live=False, clock=clock)
    for _ in range(20):
        progress.update(STANDING)
        clock.now += 1.0
    assert progress.tokens_per_second is None
    for second in range(10):
        progress.update(replace(STANDING, workers=1, tokens=500 * second))
        clock.now += 1.0
    assert progress.tokens_per_second == pytest.approx(500)


def test_the_line_says_what_is_known() -> None:
    assert describe(STANDING, None) == "0 of 1,000 documents (0 %) · 0 of 2 workers ready"
    done = replace(STANDING, documents=1000, workers=1, wanted=1, errors=3)
    assert describe(done, 250.0) == "1,000 of 1,000 documents (100 %) · 250 tokens/s · 0:00 left · 1 worker · 3 errors"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3600, "1:00:00"), (172_800, "2 d 0 h"), (-1, "0:00")]
)
def test_time_left_is_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
