"""Sparsemill as the product runs it: `Worker`s as Ray actors, one a core with one thread each, units pulled by them.

`Ours` plans the job, starts Ray and the workers and lets every worker meet the rehearsal (as a job of its own) before
the clock. Under the clock the corpus is scanned again, which is what reading it for the plan costs; the workers read
their rows, tokenise, run, encode, pool maximum, sum and count, and write their parts; the manifest is written.
`Command` is `sparsemill extract` from its start to its end: Python, Ray, opening models and all, with only the bundle
prepared before.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.peers import Sae, Setup, Task
from featurestore.errors import JobFailed

POOLS = ("max", "sum", "count")


def sae_name(number: int, sae: Sae) -> str:
    """Column prefix of an SAE of a job."""
    return f"sae{number}_layer{sae.layer}"


def job_mapping(setup: Setup, corpus: Path, store: Path) -> dict[str, Any]:
    """What JOB.yaml would hold."""
    return {
        "corpus": {"path": str(corpus), "text": "text", "id": "id"},
        "model": {"name": setup.model, "max_tokens": setup.max_tokens, "dtype": setup.dtype},
        "saes": [{"path": sae.path, "name": sae_name(number, sae)} for number, sae in enumerate(setup.saes)],
        "pool": list(POOLS),
        "store": str(store),
        "workers": {"max": setup.threads, "gpus": 0, "cpus": 1},
    }


class _Job:
    """A planned job and what the benchmark asks of it."""

    def __init__(self, setup: Setup, corpus: Path, store: Path) -> None:
        from featurestore.format.store_plan import create_store
        from ray_jobs.planning.job_plan import make_plan
        from ray_jobs.spec import job_from_mapping
        from ray_jobs.workers.worker import WorkerTask

        self.plan = make_plan(job_from_mapping(job_mapping(setup, corpus, store), corpus.parent))
        create_store(self.plan.job.store, self.plan.store)
        self.task = WorkerTask.of(self.plan)

    def scan(self) -> None:
        """Read the corpus as planning does."""
        from ray_jobs.corpus.scan import scan

        scan(self.plan.job.corpus)

    def finish(self, reports: Sequence[Any]) -> int | None:
        """Write the manifest; the positions that went through the model."""
        from featurestore.writing.writer import finish_store

        records = [report.record for report in reports]
        finish_store(self.plan.job.store, records)
        if self.plan.bundle.model.model_type in _without_padding():
            return sum(record.tokens for record in records)
        return None

    def features(self) -> Sequence[np.ndarray]:
        """Of the first SAE, from the store."""
        return store_features(self.plan.job.store, self.plan.job.saes[0].name)

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of the job."""
        bundle = self.plan.bundle.path
        return {
            "units": len(self.plan.units),
            "bundle_bytes": sum(file.stat().st_size for file in Path(bundle).iterdir()),
            "dtype": self.plan.compute.dtype,
        }


def _without_padding() -> tuple[str, ...]:
    """Model types whose documents the engine feeds end to end on a CPU."""
    from ray_jobs.backbone import gemma

    return tuple(gemma.MODEL_TYPES)


def store_features(store: str | Path, name: str) -> Sequence[np.ndarray]:
    """Features whose maximum is above zero, of each document."""
    from featurestore import FeatureStore

    matrix, _ = FeatureStore.open(str(store)).matrix(name, pool="max")
    return np.split(matrix.indices, matrix.indptr[1:-1])


class Hand:
    """A worker that has met a rehearsal; Ray makes actors of it."""

    def open(self, rehearsal: Any, unit: Any, task: Any) -> None:
        """Do one unit of the rehearsal, then open the task."""
        from ray_jobs.workers.worker import Worker

        worker = Worker(rehearsal)
        worker.open()
        worker.run(unit)
        del worker
        gc.collect()
        self._worker = Worker(task)
        self._worker.open()

    def run(self, unit: Any) -> Any:
        """Do one unit of the task."""
        return self._worker.run(unit)

    def peak_rss(self) -> int:
        """Bytes of memory that this process has had at the most."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Ours:
    """Ray actors over a planned job."""

    def open(self, setup: Setup, task: Task) -> None:
        """Plan, start Ray and the workers, rehearse."""
        from ray_jobs.cluster.session import ray_cluster, worker_environment

        rehearsal = _Job(setup, task.rehearsal, task.scratch / "store")
        self._job = _Job(setup, task.corpus, task.out / "store")
        self._stack = ExitStack()
        self._ray = self._stack.enter_context(ray_cluster(None, setup.threads, 0))
        root = str(Path(__file__).parents[2])
        actor = self._ray.remote(num_cpus=1, runtime_env={"env_vars": {**worker_environment(1), "PYTHONPATH": root}})(
            Hand
        )
        self._hands = [actor.remote() for _ in range(setup.threads)]
        unit = rehearsal.plan.units[0]
        self._ray.get([hand.open.remote(rehearsal.task, unit, self._job.task) for hand in self._hands])

    def run(self) -> int | None:
        """Scan, hand out the units, write the manifest."""
        from ray.util import ActorPool

        self._job.scan()
        pool = ActorPool(self._hands)
        reports = list(pool.map_unordered(lambda hand, unit: hand.run.remote(unit), self._job.plan.units))
        return self._job.finish(reports)

    def features(self) -> Sequence[np.ndarray]:
        """From the store."""
        return self._job.features()

    @property
    def facts(self) -> dict[str, Any]:
        """Of the job, and the memory of the worker that needed most."""
        return {
            **self._job.facts,
            "worker_peak_rss": max(self._ray.get([hand.peak_rss.remote() for hand in self._hands])),
        }

    def close(self) -> None:
        """Stop Ray."""
        self._stack.close()


class Command:
    """The command line, in a process of its own."""

    def open(self, setup: Setup, task: Task) -> None:
        """Write JOB.yaml and prepare the bundle."""
        self._task, self._name = task, sae_name(0, setup.sae)
        self._job_file = task.scratch / "job.yaml"
        mapping = job_mapping(setup, task.corpus, task.out / "store")
        self._job_file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
        self._sparsemill("prepare")

    def run(self) -> int | None:
        """Run it."""
        result = self._sparsemill("extract")
        self.facts = {"seconds_from_plan_to_manifest": result["seconds"]}
        return None

    def features(self) -> Sequence[np.ndarray]:
        """From the store."""
        return store_features(self._task.out / "store", self._name)

    def close(self) -> None:
        """Nothing to stop."""

    def _sparsemill(self, command: str) -> dict[str, Any]:
        with tempfile.TemporaryFile("w+") as errors:
            call = [sys.executable, "-m", "sparsemill", command, str(self._job_file), "--json"]
            done = subprocess.run(call, stdout=subprocess.PIPE, stderr=errors, text=True)
            if done.returncode:
                errors.seek(0)
                raise JobFailed(f"sparsemill {command} ended with {done.returncode}: {errors.read()[-500:]}")
        result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        return result
