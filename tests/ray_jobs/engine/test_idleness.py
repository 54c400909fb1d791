"""The clock of a device's idleness, and that the engine keeps it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ray_jobs.backbone.bundle import Bundle
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.idleness import IdleClock
from tests.tiny import tiny_texts

SLOW = 0.2  # seconds, beyond anything that tiny models do


def test_only_the_time_with_nothing_under_way_is_counted() -> None:
    ticks = iter([0.0, 2.0, 5.0, 5.5])
    clock = IdleClock(lambda: next(ticks))
    clock.busy()  # at 2
    clock.busy()  # something more: nobody looks at the clock
    clock.idle()  # at 5
    clock.idle()
    clock.busy()  # at 5.5
    assert clock.seconds == 2.5


def slowed(function: Any) -> Any:
    def slow(*args: Any) -> Any:
        time.sleep(SLOW)
        return function(*args)

    return slow


@pytest.mark.parametrize("slow", ["tokenizer", "backbone"])
def test_waiting_for_tokens_is_idle_and_a_batch_is_not(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    extractor = Extractor(bundle, ExtractSettings(threads=1))
    what, method = (extractor.tokenizer, "encode") if slow == "tokenizer" else (extractor.backbone, "forward")
    monkeypatch.setattr(what, method, slowed(getattr(what, method)))
    begun = time.perf_counter()
    idle = extractor.extract(tiny_texts(8, seed=1)).idle_seconds
    busy = time.perf_counter() - begun - idle
    assert (idle if slow == "tokenizer" else busy) >= SLOW


def test_a_call_without_a_batch_is_all_idle(bundle: Bundle) -> None:
    assert Extractor(bundle, ExtractSettings(threads=1)).extract([None, ""]).idle_seconds > 0
