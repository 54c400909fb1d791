"""Measure this machine's rate: the real engine on a sample of the job's own documents, on all workers at once.

Workers share caches and memory, so one alone would be too fast; each is a process with a worker's environment, as Ray
would start it. After a warm-up, which also says how fast it goes, all begin together and run as much of the sample as
takes about MEASURED_SECONDS. Reading the corpus and writing parts are left out (a run's own rate, remembered when it
ends, has them). The result replaces what an earlier run or calibration remembered (`measured`).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import CorpusError, JobFailed

if TYPE_CHECKING:
    from threading import Barrier

    from ray_jobs.planning.job_plan import JobPlan

IMAGE_SIDE = 512  # pixels of an image as data sets have them
WARM_UP_DOCUMENTS = 32  # the first batch pays for kernels, caches and pages that later ones find ready
MEASURED_SECONDS = 15.0  # repeats to within a few per cent on an idle machine
MAX_ROUNDS = 50  # of the whole sample; a fast GPU is through with it in a blink
START_SECONDS = 600.0  # for all workers to open the bundle

_barrier: Barrier | None = None  # of a calibrating process, set when it starts


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        tokens_per_second: Of one worker while the others work, mean over workers.
        workers: Workers at once.
        documents: Documents run, all workers together, warm-up left out.
        seconds: Time of the slowest worker.
    """

    tokens_per_second: float
    workers: int
    documents: int
    seconds: float


def calibrate(plan: JobPlan, note: Callable[[str], None] | None = None) -> Calibration:
    """Measure this machine's rate for a job and remember it for later plans.

    Args:
        plan: The plan.
        note: Called with a line of text before the work.

    Raises:
        CorpusError: The corpus has no document to measure with.
        JobFailed: A worker died or could not run.
    """
    from ray_jobs.cluster.session import environment, worker_environment
    from ray_jobs.planning.measured import place_here, remember_rates

    texts = [text for text in plan.scan.sample if text.strip() or plan.bundle.vision is not None]
    if not texts:
        raise CorpusError("--calibrate: the sample of the corpus has no document with text; give --rate instead")
    workers = _workers_here(plan)
    if note is not None:
        note(f"calibrating: {workers} x {plan.compute.threads} threads on {len(texts)} sampled documents")
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    task = (str(plan.bundle.path), plan.settings, texts)
    with (
        environment(worker_environment(plan.compute.threads)),
        ProcessPoolExecutor(workers, context, _keep_barrier, (barrier,)) as pool,
    ):
        futures = [pool.submit(_measure, *task) for _ in range(workers)]
        failures = [error for future in futures if (error := future.exception()) is not None]
        cause = next((error for error in failures if not isinstance(error, BrokenBarrierError)), None)
        if isinstance(cause, BrokenProcessPool):
            raise JobFailed("calibrating failed: a worker died, likely for want of memory; lower workers.max")
        if cause is not None:
            raise cause
        measured = [future.result() for future in futures]
    rates = [tokens / seconds for tokens, _, seconds in measured]
    rate = sum(rates) / len(rates)
    if not rate > 0:
        raise JobFailed(
            "calibrating failed: no document of the sample could be run; try `sparsemill extract` to see why"
        )
    remember_rates(plan, {place_here(plan.compute.device): rate})
    return Calibration(rate, workers, sum(n for _, n, _ in measured), max(seconds for _, _, seconds in measured))


def _workers_here(plan: JobPlan) -> int:
    if plan.compute.device != "cpu":
        return 1  # GPUs do not share what workers wait for
    room = max(1, (os.cpu_count() or 1) // plan.compute.threads)
    return min(plan.job.workers.max or room, room)


def _keep_barrier(barrier: Barrier) -> None:
    global _barrier  # the one way to hand a barrier to a pool's process
    _barrier = barrier


def _measure(bundle: str, settings: Mapping[str, Any], texts: Sequence[str]) -> tuple[int, int, float]:
    """In a process of its own: tokens, documents and seconds of the measured part."""
    try:
        return _timed(bundle, settings, texts)
    except BaseException:
        if _barrier is not None:
            _barrier.abort()  # or the others would wait for us
        raise


def _timed(bundle: str, settings: Mapping[str, Any], texts: Sequence[str]) -> tuple[int, int, float]:
    import torch

    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.engine.extractor import Extractor, ExtractSettings

    torch.set_num_threads(settings["threads"])
    opened = open_bundle(bundle)
    extractor = Extractor(opened, ExtractSettings(**settings))

    def extract(some: Sequence[str]) -> int:
        # What an image shows costs nothing; decoding it is done beside the device and not measured.
        images = None if opened.vision is None else [np.zeros((IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)] * len(some)
        return int(extractor.extract(some, images=images).n_tokens.sum())

    extract(texts[:WARM_UP_DOCUMENTS])
    started = time.perf_counter()
    extract(texts[:WARM_UP_DOCUMENTS])
    a_document = (time.perf_counter() - started) / len(texts[:WARM_UP_DOCUMENTS])
    wanted = min(max(round(MEASURED_SECONDS / a_document), WARM_UP_DOCUMENTS), MAX_ROUNDS * len(texts))
    lot = [*texts[:: max(1, len(texts) // wanted)]][:wanted] if wanted < len(texts) else list(texts)
    rounds = max(1, round(wanted / len(lot)))
    if _barrier is not None:
        _barrier.wait(START_SECONDS)
    started = time.perf_counter()
    tokens = sum(extract(lot) for _ in range(rounds))
    return tokens, rounds * len(lot), time.perf_counter() - started
