"""A run over images that is killed goes on with the bytes of an undisturbed one, hostile images and all."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.format.store_plan import create_store
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.spec import load_job
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.crash.ground import PATIENCE, Ground, computing, descendants, eventually, start, working
from tests.ray_jobs.images.hostile import IMAGES as HOSTILE
from tests.ray_jobs.jobs import job_mapping, parts_of, write_job
from tests.tiny import tiny_sae
from tests.tiny_vision import png, tiny_images, tiny_vision

UNITS, IMAGES = 10, 120
ODD = ("cut png", "says 60,000 x 60,000", "text", "palette with transparency", "turned to the right", "cmyk jpeg")


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """An image job on disk, and its parts as a worker makes them in this process, without Ray."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    tiny_vision(tmp_path, "paligemma2")
    tiny_sae(tmp_path / "sae", model_name=None)
    pictures = [png(image) for image in tiny_images(UNITS * IMAGES, least=50, most=90)]
    for number, name in enumerate(ODD):
        pictures[37 * number + 5] = HOSTILE[name]()[0]
    rows = [{"id": f"d{n}", "image": {"bytes": data, "path": None}, "label": n % 3} for n, data in enumerate(pictures)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=100)

    def mapping(store: str) -> dict[str, object]:
        return job_mapping(
            tmp_path,
            tmp_path / "c.parquet",
            tmp_path / store,
            corpus={"image": "image", "text": None},
            model={"name": str(tmp_path / "tiny-paligemma2"), "tokens": "image"},
            pixels=8,
            units={"documents": IMAGES},
            workers={"max": 2, "cpus": 1},
        )

    plan = make_plan(load_job(write_job(tmp_path / "undisturbed.yaml", mapping("undisturbed"))))
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    for unit in plan.units:
        worker.run(unit)
    worker.leave()
    job = write_job(tmp_path / "job.yaml", mapping("store"))
    return Ground(job, tmp_path / "store", parts_of(tmp_path / "undisturbed"))


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_leave_the_bytes_of_an_undisturbed_run(ground: Ground) -> None:
    driver = start(ground.job)
    victims = eventually(lambda: computing(driver), driver)
    os.kill(victims[0], signal.SIGKILL)
    eventually(lambda: parts_of(ground.store) and computing(driver), driver)
    family = set(descendants(driver.pid))
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    eventually(lambda: not working(family))  # till then its workers go on
    survived = parts_of(ground.store)
    assert 0 < len(survived) < UNITS, "the driver was killed too late to prove anything"
    assert all(ground.expected[name] == data for name, data in survived.items())
    again = start(ground.job, "--json")
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert json.loads(out)["units_run"] == UNITS - len(survived)
    assert parts_of(ground.store) == ground.expected
    store = FeatureStore.open(str(ground.store))
    assert store.verify().ok
    errors = store.documents().collect()["error"].drop_nulls().to_list()
    assert len(errors) == 3
    assert store.dense("pixels").shape == (UNITS * IMAGES, 192)
