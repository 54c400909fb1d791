"""Writing down how a run stands, for `sparsemill status` and for Prometheus, while it lives and when it ends.

Every ten seconds the dispatcher's state becomes one small JSON object in the store, written by a thread of its own,
so that storage which is slow delays no unit. Storage that refuses costs people their view and nothing else: it is said
once, and the run goes on.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featurestore.base.foreign import brief
from featurestore.checks.run_files import BEAT_SECONDS, RUNS, RunRecord, State, UnderWay
from featurestore.errors import JobStopped, SparsemillError
from featurestore.format.store_plan import open_root
from featurestore.storage.files import atomic_write, shown
from ray_jobs.reporting.prometheus import RunMeter

if TYPE_CHECKING:
    from ray_jobs.reporting.progress import Progress

RATE_SECONDS = 60.0  # over which the rate is taken: a start-up or a lost worker does not linger in it


@dataclass(frozen=True)
class RunState:
    """What the dispatcher knows of a run at a moment; the fields are those of `RunRecord`."""

    units_done: int
    documents: int
    tokens: int
    errors: int
    waiting: int
    workers: int
    workers_wanted: int
    events: Mapping[str, int]
    failed: Mapping[int, str]
    under_way: tuple[UnderWay, ...]
    unmet: str | None = None


class Recorder:
    """The record of one run; see `recorded`."""

    def __init__(self, uri: str, progress: Progress | None) -> None:
        now = datetime.now(UTC)
        run = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        at = now.isoformat(timespec="milliseconds")
        self._fs, root = open_root(uri)
        self._path = f"{root}/{RUNS}/{run}.json"
        self._record = RunRecord(run, "running", platform.node(), os.getpid(), started_at=at, updated_at=at)
        self._progress = progress
        self._meter = RunMeter(shown(uri))
        self._seen: deque[tuple[float, int]] = deque()  # (when, tokens)
        self._next = 0.0
        self._writer = ThreadPoolExecutor(1, "run-record")
        self._writing: Future[None] | None = None
        self._refused = False

    def __call__(self, state: Callable[[], RunState]) -> None:
        """Take note of the state, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT_SECONDS
            self.take(state())

    def take(self, state: RunState) -> None:
        """Write down how the run stands."""
        now = time.monotonic()
        if state.workers or state.tokens:  # until there are workers nothing can be measured
            self._seen.append((now, state.tokens + sum(under.tokens for under in state.under_way)))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_SECONDS:
            self._seen.popleft()
        rate = None
        if len(self._seen) > 1 and self._seen[-1][1] > self._seen[0][1]:
            rate = (self._seen[-1][1] - self._seen[0][1]) / (self._seen[-1][0] - self._seen[0][0])
        self._record = replace(self._record, **vars(state), tokens_per_second=rate)
        self._meter.show(self._record)
        self._write()

    def close(self, state: State, reason: str | None = None) -> None:
        """Say how the run ended."""
        self._record = replace(self._record, state=state, reason=reason, under_way=(), tokens_per_second=None)
        if self._writing is not None:
            self._writing.result()
        self._write()
        self._writer.shutdown()

    def _write(self) -> None:
        if self._writing is not None and not self._writing.done():
            return  # storage is slow: the next beat says more than this one would
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._record = replace(self._record, updated_at=at)
        self._writing = self._writer.submit(self._put, self._record.to_bytes())

    def _put(self, data: bytes) -> None:
        try:
            atomic_write(self._fs, self._path, data)
        except Exception as error:  # noqa: BLE001  (file systems of others raise anything, and no run fails for its record)
            if self._progress is not None and not self._refused:
                self._progress.note(
                    f"how the run stands cannot be written to the store ({brief(error)}); the run goes on"
                )
            self._refused = True


@contextmanager
def recorded(uri: str, progress: Progress | None = None) -> Iterator[Recorder]:
    """Keep the record of a run for as long as it lasts; how it ends is how this is left.

    Args:
        uri: The store.
        progress: Where to say that the record cannot be written.

    Yields:
        What the dispatcher calls with its state.
    """
    recorder = Recorder(uri, progress)
    recorder._write()
    try:
        yield recorder
    except JobStopped as error:
        recorder.close("stopped", str(error))
        raise
    except SparsemillError as error:
        recorder.close("failed", str(error))
        raise
    except BaseException as error:
        recorder.close("stopped", type(error).__name__)
        raise
    recorder.close("finished")
