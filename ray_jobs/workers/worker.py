"""Do a unit: read its documents, extract their features, write its part.

A `Worker` opens the bundle once, then does unit after unit; only a `Report` of a few numbers leaves it. It is a plain
class: `actor` makes a Ray actor of it, whose `live` and `abandon` are called from a second thread while `run` computes.
It decides nothing: exceptions leave it as they are, and which unit comes next is up to the dispatcher.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore.base.fault_points import fault_point
from featurestore.errors import JobFailed, MismatchError
from featurestore.url_secrets import shown
from ray_jobs.corpus.extracted import part_rows
from ray_jobs.corpus.spill import Spill, run_name
from ray_jobs.images.decoder import DecodedImages, ImageDecoder
from ray_jobs.reporting.prometheus import UnitDetail, UnitMeter
from ray_jobs.workers.failures import transient_storage_errors
from ray_jobs.workers.worker_pool import Abandoned

if TYPE_CHECKING:
    from featurestore.format.rows import PartRows
    from featurestore.writing.writer import PartRecord
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.corpus.read import DocumentRows
    from ray_jobs.planning.job_plan import JobPlan, UnitOutput
    from ray_jobs.planning.units import Unit
    from ray_jobs.spec import JobSpec


@dataclass(frozen=True)
class WorkerTask:
    """What every worker of a job needs to know; plain data, a few kilobytes.

    Attributes:
        job: The job, with its dtype settled.
        keep_types: Types of the kept columns, from the scan.
        bundle: Directory of the bundle on the driver's machine.
        bundle_sha256: What the bundle must be.
        settings: Fields of `ExtractSettings`.
        fingerprint: What the store's fingerprint must be.
        software: Versions to compute with.
        output: What is written in place of features; None for features.
    """

    job: JobSpec
    keep_types: Mapping[str, str]
    bundle: str
    bundle_sha256: str
    settings: Mapping[str, Any]
    fingerprint: str
    software: Mapping[str, str]
    output: UnitOutput | None = None

    @classmethod
    def of(cls, plan: JobPlan) -> WorkerTask:
        """The task that a plan gives to every worker."""
        return cls(
            job=plan.job,
            keep_types=plan.scan.keep_types,
            bundle=str(plan.bundle.path),
            bundle_sha256=plan.bundle.sha256,
            settings=plan.settings,
            fingerprint=plan.store.fingerprint,
            software=plan.software,
            output=plan.output,
        )


@dataclass(frozen=True)
class Report:
    """A committed unit: its record, the seconds from the first byte read to the part in its place, and their detail.

    `notes` are sentences for the user about this machine, once each, and `hardware` is what it computed on.
    """

    record: PartRecord
    seconds: float
    detail: UnitDetail = field(default_factory=UnitDetail)
    notes: tuple[str, ...] = ()
    hardware: str = ""


class _Stop(Exception):  # noqa: N818  (no error)
    """The way out of the engine, between two batches, of a unit that was abandoned; never leaves the worker."""


class Worker:
    """Does units of one job.

    Args:
        task: The job's task.
    """

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._live = (-1, 0, 0, 0)
        self._abandoned: set[int] = set()
        self._meter = UnitMeter(shown(task.job.store))
        self._spill = Spill(run_name(task.fingerprint), self._read_on)
        self._decoder = None if task.job.corpus.image is None else ImageDecoder()

    def open(self) -> dict[str, Any]:
        """Open store, bundle and engine: all that can be wrong with this machine shows here and not in a unit.

        Returns:
            Host name and process id, for messages.

        Raises:
            SparsemillError: Other software, another bundle or another store than the job's.
        """
        import pyarrow as pa

        from featurestore.format.store_plan import read_plan
        from ray_jobs.engine.extractor import Extractor, ExtractSettings
        from ray_jobs.planning.identity import check_software
        from ray_jobs.planning.job_plan import store_schema
        from ray_jobs.planning.measured import place_here

        fault_point("worker.opening")
        pa.array([""])  # pyarrow imports pandas, where it is there, at its first list: no unit need wait for that
        with transient_storage_errors():
            check_software(self._task.software)
            self._plan = read_plan(self._task.job.store)
            if self._plan.fingerprint != self._task.fingerprint:
                raise MismatchError(
                    f"{shown(self._task.job.store)} is not the store of this job as seen from {platform.node()}; "
                    "give a path or URL that is the same storage on every node"
                )
            bundle, output = self._bundle(), self._task.output
            features = store_schema(self._task.job, output.bundle(bundle) if output else bundle, {})
            self._engine = output.engine(bundle, self._task.settings, features) if output else None
            if self._engine is None:
                self._extractor = Extractor(bundle, ExtractSettings(**self._task.settings))
            self._hardware = place_here(self._task.settings["device"]).hardware
        return {"host": platform.node(), "pid": os.getpid()}

    def run(self, unit: Unit, blamed: Mapping[int, str] | None = None) -> Report | Abandoned:
        """Read, extract and commit one unit, unless `abandon` is called for it before all is computed.

        Args:
            unit: The unit.
            blamed: Documents of it, counted from its first, that are known to make it fail, and why: they get this as
                their error and are not computed. The others come out as if these were not there.

        Raises:
            SparsemillError: The corpus changed or the store refused the rows.
            OSError: Storage failed.
        """
        from featurestore.writing.writer import write_part

        started = time.perf_counter()
        self._live = (unit.index, 0, 0, 0)
        self._meter.begin()
        with transient_storage_errors():
            try:
                rows = self._rows(unit, 0, unit.rows, blamed or {})
            except _Stop:
                return Abandoned(unit.index)
            fault_point("worker.before_write")
            with self._meter.phase("write"):
                record = write_part(self._task.job.store, self._plan, unit.index, rows)
            fault_point("worker.after_commit")
        notes, self._spill.refused = tuple(self._spill.refused), []
        seconds = time.perf_counter() - started
        return Report(record, seconds, self._meter.end(record, rows.doc_id, rows.error), notes, self._hardware)

    def try_range(self, unit: Unit, start: int, stop: int, blamed: Mapping[int, str]) -> None:
        """Compute documents `[start, stop)` of a unit, counted from its first, and write nothing; errors as for `run`.

        A range without documents at fault goes through without an exception; so does one whose documents are all
        blamed.
        """
        from featurestore.errors import StoreError
        from featurestore.format.rules import problems

        self._live = (unit.index, 0, 0, 0)
        with transient_storage_errors():
            rows = self._rows(unit, start, stop, blamed)
            if (problem := next(problems(self._plan.schema, rows), None)) is not None:
                raise StoreError(problem)

    def live(self) -> tuple[int, int, int, int]:
        """Unit under way (-1 before the first), and how far it is; answered while `run` computes.

        Its documents and tokens so far, and blocks of a compressed file that were read since the last of these changed.
        """
        return self._live

    def abandon(self, unit: int) -> None:
        """Stop a unit, under way or still to come, at its next batch."""
        self._abandoned.add(unit)

    def leave(self) -> None:
        """The run ends: remove from this machine what was kept for it; answered while `run` computes."""
        self._spill.close()
        if self._decoder is not None:
            self._decoder.close()

    def _rows(self, unit: Unit, start: int, stop: int, blamed: Mapping[int, str]) -> PartRows:
        import torch

        from ray_jobs.corpus.read import read_rows

        self._go_on(unit.index, 0, 0)
        torch.set_num_threads(self._task.settings["threads"])  # a setting of the calling thread, and Ray has several
        with self._meter.phase("read"):
            output, corpus = self._task.output, self._task.job.corpus
            corpus = output.corpus(corpus) if output else corpus
            rows = read_rows(unit.slices, corpus, self._task.keep_types, self._spill)
            documents = _some(rows, start, stop)
        for row, reason in blamed.items():
            if start <= row < stop and documents.error[row - start] is None:
                documents.error[row - start], documents.text[row - start] = reason, None
        images = None if self._decoder is None else DecodedImages(documents.image, self._decoder)
        fault_point("worker.computing", documents.text)

        def go_on(n_documents: int, n_tokens: int) -> None:
            self._go_on(unit.index, n_documents, n_tokens)

        with self._meter.phase("compute"):
            if self._engine is not None:
                return self._engine.rows(documents, go_on)
            extracted = self._extractor.extract(documents.text, documents.error, on_progress=go_on, images=images)
        self._meter.was_idle(extracted.idle_seconds)
        return part_rows(documents, extracted)

    def _go_on(self, unit: int, n_documents: int, n_tokens: int) -> None:
        """Called between batches."""
        self._live = (unit, n_documents, n_tokens, 0)
        if unit in self._abandoned:
            self._abandoned.discard(unit)
            raise _Stop

    def _read_on(self) -> None:
        """Called while a compressed file is read up to a unit's first row, which may take longer than any unit."""
        unit, n_documents, n_tokens, blocks = self._live
        self._live = (unit, n_documents, n_tokens, blocks + 1)
        if unit in self._abandoned:
            self._go_on(unit, n_documents, n_tokens)

    def _bundle(self) -> Bundle:
        from ray_jobs.backbone.bundle import MANIFEST_NAME, open_bundle

        path = self._task.bundle
        if not os.path.exists(os.path.join(path, MANIFEST_NAME)):  # noqa: PTH110, PTH118
            from ray_jobs.prepare.build import prepare  # a node without the driver's disk makes its own copy

            path = str(prepare(self._task.job))
        bundle = open_bundle(path)
        if bundle.sha256 != self._task.bundle_sha256:
            raise JobFailed(
                f"the bundle on {platform.node()} is not the driver's ({path} has sha256 {bundle.sha256[:12]}..., "
                f"not {self._task.bundle_sha256[:12]}...); put one bundle on storage that all nodes share"
            )
        return bundle


def _some(documents: DocumentRows, start: int, stop: int) -> DocumentRows:
    """Documents `[start, stop)` of these."""
    from ray_jobs.corpus.read import DocumentRows

    return DocumentRows(
        doc_id=documents.doc_id[start:stop],
        text=documents.text[start:stop],
        keep={name: values[start:stop] for name, values in documents.keep.items()},
        error=documents.error[start:stop],
        image=documents.image[start:stop],
    )
