"""The models and the corpus that all tests of crashes share, and the parts that an undisturbed run gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.format.store_plan import create_store
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.spec import load_job
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.crash.ground import DOCUMENTS, UNITS, Ground, mapping
from tests.ray_jobs.jobs import parts_of, write_corpus, write_job, write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_corpus(directory / "c.jsonl", UNITS * DOCUMENTS, max_words=60, faults=True)
    return write_models(directory)


@pytest.fixture(scope="session")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The parts as a worker makes them in this process, without Ray."""
    directory = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(models / "cache"))
        plan = make_plan(load_job(write_job(directory / "job.yaml", mapping(models, directory / "store"))))
        create_store(plan.job.store, plan.store)
        worker = Worker(WorkerTask.of(plan))
        worker.open()
        for unit in plan.units:
            worker.run(unit)
    return parts_of(directory / "store")


@pytest.fixture
def ground(models: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(models / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = write_job(tmp_path / "job.yaml", mapping(models, tmp_path / "store"))
    return Ground(job, tmp_path / "store", undisturbed)
