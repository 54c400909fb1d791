"""Write the record of a run into its store, for `sparsemill status` and for Prometheus, until it ends and how.

Every ten seconds the figures of the run become one small JSON object in the store, written by a thread of its own, so
that storage which is slow delays no unit. Storage that refuses costs people their view and nothing else: it is said
once, and the run goes on. What the record holds is in `featurestore.checks.run_files`, which reads it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featurestore.base.library_errors import brief
from featurestore.checks.run_files import BEAT_SECONDS, RUNS, RunRecord, State
from featurestore.errors import JobStopped, SparsemillError
from featurestore.format.store_plan import open_root
from featurestore.storage.files import atomic_write, shown
from featurestore.storage.steady_environment import steady_environment
from ray_jobs.reporting.prometheus import RunMeter

if TYPE_CHECKING:
    from featurestore.checks.run_files import RunSnapshot
    from ray_jobs.reporting.progress import Progress


class Recorder:
    """The record of one run; see `recorded`."""

    def __init__(self, uri: str, progress: Progress | None) -> None:
        now = datetime.now(UTC)
        run = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        at = now.isoformat(timespec="milliseconds")
        self._fs, root = open_root(uri)
        self._path = f"{root}/{RUNS}/{run}.json"
        self._record = RunRecord(
            run,
            "running",
            platform.node(),
            os.getpid(),
            started_at=at,
            updated_at=at,
            submission=_submission_id(),
            log=_log_file(),
        )
        self._progress = progress
        self._meter = RunMeter(shown(uri))
        self._next = 0.0
        self._writer = ThreadPoolExecutor(1, "run-record")
        self._writing: Future[None] | None = None
        self._refused = False

    def update(self, now: RunSnapshot) -> None:
        """Write down how the run stands, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT_SECONDS
            self.write(now)

    def write(self, now: RunSnapshot) -> None:
        """Write down how the run stands."""
        self._record = replace(self._record, **vars(now))
        self._meter.show(self._record)
        self.flush()

    def close(self, state: State, reason: str | None = None) -> None:
        """Say how the run ended."""
        self._record = replace(self._record, state=state, reason=reason, under_way=(), tokens_per_second=None)
        if self._writing is not None:
            self._writing.result()
        self.flush()
        self._writer.shutdown()

    def flush(self) -> None:
        """Have the record written as it is, unless storage is still busy with an earlier one."""
        if self._writing is not None and not self._writing.done():
            return  # storage is slow: the next beat says more than this one would
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._record = replace(self._record, updated_at=at)
        self._writing = self._writer.submit(self._put, self._record.to_bytes())

    def _put(self, data: bytes) -> None:
        try:
            with steady_environment():
                atomic_write(self._fs, self._path, data)
        except Exception as error:  # noqa: BLE001  (file systems of others raise anything, and no run fails for its record)
            if self._progress is not None and not self._refused:
                self._progress.note(
                    f"how the run stands cannot be written to the store ({brief(error)}); the run goes on"
                )
            self._refused = True


def _submission_id() -> str | None:
    """Ray's name of the job that this process is, if it is one that was submitted; Ray tells its driver so."""
    try:
        told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
        return str(told["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return None


def _log_file() -> str | None:
    """The file that takes what this process says; None where that is none, or the system does not say."""
    try:
        place = os.readlink(f"/proc/self/fd/{sys.stderr.fileno()}")  # noqa: PTH115  (a name, not a path to follow)
        return place if os.path.isfile(place) else None  # noqa: PTH113
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def recorded(uri: str, progress: Progress | None = None) -> Iterator[Recorder]:
    """Keep the record of a run for as long as it lasts; how it ends is how this is left.

    Args:
        uri: The store.
        progress: Where to say that the record cannot be written.

    Yields:
        The recorder, to be given the figures of the run every second or so.
    """
    recorder = Recorder(uri, progress)
    recorder.flush()
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
