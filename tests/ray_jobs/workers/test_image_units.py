"""A corpus of images through plan, worker and store: what the whole model gives; what is wrong costs one row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import JobFailed, JobSpecError
from featurestore.format.store_plan import create_store
from ray_jobs.images import decoder as decoder_module
from ray_jobs.planning import calibrate
from ray_jobs.planning.estimate import estimate
from ray_jobs.planning.identity import check_software
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.planning.warnings import warnings_of
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.ray_jobs.images.hostile import IMAGES as HOSTILE
from tests.ray_jobs.jobs import make_job, parts_of
from tests.reference import encode, undecided
from tests.tiny import tiny_sae
from tests.tiny_vision import VisionReference, png, tiny_images, tiny_vision

pytestmark = pytest.mark.slow

GOOD = tiny_images(12, seed=5)
ODD = list(HOSTILE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        tiny_vision(directory, "paligemma2")
        tiny_sae(directory / "sae", model_name=None)
        yield directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images, and between them all hostile ones."""
    rows: list[dict[str, Any]] = [
        {"id": f"good {n}", "image": {"bytes": png(image), "path": None}, "ask": f"what is {n}", "label": n % 2}
        for n, image in enumerate(GOOD)
    ]
    for n, name in enumerate(ODD):
        data = HOSTILE[name]()[0]
        rows.insert((7 * n) % len(rows), {"id": name, "image": {"bytes": data, "path": "x"}, "ask": "", "label": 2})
    path = tmp_path_factory.mktemp("corpus") / "c.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    return path


def image_plan(models: Path, table: Path, store: Path, **changes: Any) -> JobPlan:
    mapping = {
        "corpus": {"image": "image", "text": "ask"},
        "model": {"name": str(models / "tiny-paligemma2"), "tokens": "image", "max_tokens": 256},
        "value_bits": 24,
        "hidden": ["mean"],
        "pixels": 4,
        "units": {"documents": 40},
    }
    return make_plan(make_job(models, table, store, **{**mapping, **changes}))


def worked(plan: JobPlan) -> dict[str, list[Any]]:
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    for unit in plan.units:
        worker.run(unit)
    worker.leave()
    parts = sorted((Path(plan.job.store) / "parts").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]).to_pydict()


@pytest.fixture(scope="module")
def plan(models: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> JobPlan:
    return image_plan(models, corpus, tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture(scope="module")
def rows(plan: JobPlan) -> dict[str, list[Any]]:
    return worked(plan)


def test_good_images_among_hostile_ones_are_what_the_whole_model_gives(
    models: Path, rows: dict[str, list[Any]]
) -> None:
    reference = VisionReference(models / "tiny-paligemma2")
    for n, image in enumerate(GOOD[:6]):
        row = rows["doc_id"].index(f"good {n}")
        residual = reference.residual(image, f"what is {n}", 2)
        acts, left_out = encode(models / "sae", residual), undecided(models / "sae", residual)
        assert rows["error"][row] is None
        assert rows["n_tokens"][row] == len(residual) == 16
        found = dict(zip(rows["tiny__indices"][row], rows["tiny__max"][row], strict=True))
        wanted = {f: acts[:, f].max() for f in np.flatnonzero((acts > 0).any(axis=0)) if not left_out[f]}
        assert {f for f in found if not left_out[f]} == set(wanted)
        for feature, value in wanted.items():
            assert found[feature] == pytest.approx(value, rel=1e-4)
        np.testing.assert_allclose(rows["resid_post_2__hidden_mean"][row], residual.mean(axis=0), rtol=1e-4, atol=1e-4)


def test_every_hostile_image_has_features_or_an_error(rows: dict[str, list[Any]]) -> None:
    assert len(rows["doc_id"]) == len(GOOD) + len(ODD)
    for name in ODD:
        row = rows["doc_id"].index(name)
        wanted = HOSTILE[name]()[1]
        assert (rows["error"][row] is None) == (not isinstance(wanted, str)), name
        assert rows["n_tokens"][row] == (0 if isinstance(wanted, str) else 16)
        assert (rows["pixels"][row] is None) == isinstance(wanted, str)


def test_neighbours_of_hostile_images_have_the_features_that_they_have_alone(
    models: Path, rows: dict[str, list[Any]], tmp_path: Path
) -> None:
    table = [
        {"id": f"good {n}", "image": png(image), "ask": f"what is {n}", "label": 0} for n, image in enumerate(GOOD)
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "good.parquet")
    alone = worked(image_plan(models, tmp_path / "good.parquet", tmp_path / "store"))
    for n in range(len(GOOD)):
        row, other = rows["doc_id"].index(f"good {n}"), alone["doc_id"].index(f"good {n}")
        assert rows["tiny__indices"][row] == alone["tiny__indices"][other]
        np.testing.assert_allclose(rows["tiny__sum"][row], alone["tiny__sum"][other], rtol=1e-4)


def test_a_plan_prices_images_and_what_decides_them_is_in_the_identity(plan: JobPlan, models: Path) -> None:
    assert plan.mean_tokens == 16
    assert plan.store.identity["corpus"]["image"] == "image"
    assert plan.store.identity["model"]["tokens"] == "image"
    assert plan.store.identity["pixels"] == 4
    assert plan.store.identity["software"]["pillow"] == decoder_module.decoder_version()
    figures = estimate(plan, rate=1000.0)
    text = 17 * 2 * 3 * (32 * 64 * 2 + 2 * 32 * 32 + 3 * 32 * 64)  # matrices of three layers at what is fed
    tower = 16 * 2 * (2 * (4 * 24 * 24 + 2 * 24 * 32)) + 16 * 2 * 24 * 32
    attention = 17 * 4 * 3 * 64 * 17 + 16 * 4 * 2 * 24 * 16
    assert figures.gflop_per_token * 1e9 == pytest.approx((text + tower + attention) / 16 + 2 * 32 * 96)
    assert figures.worker_hours is not None
    assert not [sentence for sentence in warnings_of(plan, figures) if "corpus.text" in sentence]
    software = dict(plan.store.identity["software"])
    check_software(software)
    with pytest.raises(JobFailed, match="pillow"):
        check_software({**software, "pillow": "1.0 (libjpeg_turbo 1)"})


def test_another_worker_writes_the_same_bytes(plan: JobPlan, rows: dict[str, list[Any]]) -> None:
    before = parts_of(Path(plan.job.store))
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    worker.run(plan.units[0])
    assert parts_of(Path(plan.job.store)) == before


def test_folders_of_files_and_tables_of_paths_give_the_same_features(models: Path, tmp_path: Path) -> None:
    for n, image in enumerate(GOOD):
        (tmp_path / "c" / "abc"[n % 3]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / "abc"[n % 3] / f"{n}.png").write_bytes(png(image))
    names = sorted(str(path.relative_to(tmp_path / "c")) for path in (tmp_path / "c").rglob("*.png"))
    table = "file,label\n" + "".join(f"{name},{name[0]}\n" for name in names)
    (tmp_path / "c" / "t.csv").write_text(table, encoding="utf-8")
    common = {"text": None, "id": None}
    folder = worked(
        image_plan(models, tmp_path / "c", tmp_path / "s1", corpus={**common, "format": "images", "keep": ["label"]})
    )
    listed = worked(image_plan(models, tmp_path / "c" / "t.csv", tmp_path / "s2", corpus={**common, "image": "file"}))
    assert folder["doc_id"] == names
    for column in ("label", "tiny__indices", "tiny__max", "pixels"):
        assert folder[column] == listed[column]


def test_calibrating_measures_the_model_on_pictures_of_nothing(plan: JobPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "MEASURED_SECONDS", 0.2)
    tokens, documents, seconds = calibrate._timed(str(plan.bundle.path), plan.settings, list(plan.scan.sample))
    assert tokens == 16 * documents > 0
    assert seconds > 0


def test_without_pillow_the_job_is_refused_in_a_sentence(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "installed_version", lambda: None)
    with pytest.raises(JobSpecError, match="Pillow, which is not installed"):
        image_plan(models, corpus, tmp_path / "store")
