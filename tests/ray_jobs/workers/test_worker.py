"""One unit in, one part file out: the same bytes whoever does it, and refusals before the first unit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import CorpusError, JobFailed, MismatchError
from featurestore.format.store_plan import create_store
from featurestore.writing.writer import committed_units, read_record
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.planning.measured import place_here
from ray_jobs.workers.worker import Worker, WorkerTask
from ray_jobs.workers.worker_pool import Abandoned
from tests.ray_jobs.jobs import make_job, parts_of, write_corpus, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield write_models(directory)


@pytest.fixture
def plan(models: Path, tmp_path: Path) -> JobPlan:
    corpus = write_corpus(tmp_path / "c.jsonl", 40, faults=True)
    made = make_plan(make_job(models, corpus, tmp_path / "store"))
    create_store(made.job.store, made.store)
    return made


def opened(task: WorkerTask) -> Worker:
    worker = Worker(task)
    worker.open()
    return worker


def test_a_unit_becomes_a_part_and_a_report_of_it(plan: JobPlan) -> None:
    report = opened(WorkerTask.of(plan)).run(plan.units[0])
    assert committed_units(plan.job.store) == {0: report.record.bytes}
    assert report.record == read_record(plan.job.store, 0, plan.store)
    assert (report.record.rows, report.record.errors) == (20, 3)
    assert report.seconds > 0
    assert report.hardware == place_here("cpu").hardware != ""


def test_every_row_of_the_corpus_has_a_row_in_the_part(plan: JobPlan) -> None:
    import pyarrow.parquet as pq

    opened(WorkerTask.of(plan)).run(plan.units[0])
    (part,) = (Path(plan.job.store) / "parts").glob("*.parquet")
    rows = pq.read_table(part).to_pydict()
    expected = [f"d{row}" for row in range(20)]
    expected[3] = "c.jsonl:3"  # its line is broken, so its id is unknown
    assert rows["doc_id"] == expected
    assert [row for row, error in enumerate(rows["error"]) if error] == [3, 5, 9]
    assert "not finite" in rows["error"][9]
    assert [row for row in range(20) if not rows["tiny__indices"][row]] == [3, 5, 7, 9]
    assert rows["n_tokens"][7] == 0 and rows["error"][7] is None
    assert rows["label"][:3] == [0, 1, 2]


def test_doing_a_unit_again_gives_the_same_bytes(plan: JobPlan) -> None:
    worker = opened(WorkerTask.of(plan))
    worker.run(plan.units[1])
    first = parts_of(Path(plan.job.store))
    worker.run(plan.units[0])
    worker.run(plan.units[1])
    assert parts_of(Path(plan.job.store))["part-000001.parquet"] == first["part-000001.parquet"]


def test_progress_can_be_asked_for_while_a_unit_runs(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 150)
    job = make_job(models, corpus, tmp_path / "store", units={"documents": 150})
    plan = make_plan(job)
    create_store(job.store, plan.store)
    worker = opened(replace(WorkerTask.of(plan), settings={**plan.settings, "batch_tokens": 64}))
    assert worker.live() == (-1, 0, 0, 0)
    thread = threading.Thread(target=worker.run, args=(plan.units[0],))
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add(worker.live())
        thread.join(0.002)
    under_way = sorted(tokens for unit, documents, tokens, _ in seen if unit == 0 and 0 < documents < 150)
    assert len(under_way) > 2
    assert worker.live()[:2] == (0, 150)
    assert worker.live()[2] == read_record(job.store, 0).tokens
    assert np.all(np.diff(under_way) > 0)


def test_a_store_of_another_job_is_refused_before_anything_is_computed(plan: JobPlan) -> None:
    with pytest.raises(MismatchError, match="same storage on every node"):
        opened(replace(WorkerTask.of(plan), fingerprint="0" * 64))


def test_another_bundle_than_the_drivers_is_refused(plan: JobPlan) -> None:
    with pytest.raises(JobFailed, match="is not the driver's"):
        opened(replace(WorkerTask.of(plan), bundle_sha256="0" * 64))


def test_other_software_than_the_drivers_is_refused(plan: JobPlan) -> None:
    with pytest.raises(JobFailed, match="transformers"):
        opened(replace(WorkerTask.of(plan), software={**plan.software, "transformers": "4.0"}))


def test_a_node_without_the_drivers_disk_makes_its_own_bundle(
    plan: JobPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "other_node"))
    worker = opened(replace(WorkerTask.of(plan), bundle="/not/on/this/node"))
    worker.run(plan.units[0])
    assert list((tmp_path / "other_node" / "bundles").iterdir())


def test_a_corpus_that_changed_since_the_plan_is_refused(plan: JobPlan) -> None:
    worker = opened(WorkerTask.of(plan))
    write_corpus(Path(plan.job.corpus.path[0]), 12)
    with pytest.raises(CorpusError, match="changed"):
        worker.run(plan.units[1])
    assert committed_units(plan.job.store) == {}


def test_documents_that_are_blamed_keep_their_row_and_the_others_come_out_as_if_alone(plan: JobPlan) -> None:
    import pyarrow.parquet as pq

    from ray_jobs.corpus.read import read_rows
    from ray_jobs.engine.extractor import Extractor, ExtractSettings

    blamed = {2: "the worker failed on this document: ValueError", 11: "it died"}
    report = opened(WorkerTask.of(plan)).run(plan.units[0], blamed)
    assert (report.record.rows, report.record.errors) == (20, 5)
    (part,) = (Path(plan.job.store) / "parts").glob("*.parquet")
    rows = pq.read_table(part).to_pydict()
    assert (rows["error"][2], rows["error"][11]) == (blamed[2], blamed[11])
    assert (rows["doc_id"][2], rows["label"][2]) == ("d2", 2)
    documents = read_rows(plan.units[0].slices, plan.job.corpus, plan.scan.keep_types)
    known = [blamed.get(row, error) for row, error in enumerate(documents.error)]
    alone = Extractor(plan.bundle, ExtractSettings(**plan.settings)).extract(documents.text, known)
    assert [list(row) for row in rows["tiny__indices"]] == [
        alone.saes["tiny"].indices[start:stop].tolist()
        for start, stop in zip(alone.saes["tiny"].indptr[:-1], alone.saes["tiny"].indptr[1:], strict=True)
    ]


def test_a_document_that_the_corpus_found_faulty_keeps_that_error_when_blamed_too(plan: JobPlan) -> None:
    import pyarrow.parquet as pq

    opened(WorkerTask.of(plan)).run(plan.units[0], {3: "it died"})
    (part,) = (Path(plan.job.store) / "parts").glob("*.parquet")
    assert "JSON" in pq.read_table(part).to_pydict()["error"][3]


def test_trying_documents_writes_nothing(plan: JobPlan) -> None:
    worker = opened(WorkerTask.of(plan))
    worker.try_range(plan.units[0], 0, 10, {2: "known"})
    worker.try_range(plan.units[1], 19, 20, {})
    assert committed_units(plan.job.store) == {}


def test_a_unit_that_was_done_elsewhere_is_stopped_at_its_next_batch(plan: JobPlan) -> None:
    worker = opened(WorkerTask.of(plan))
    worker.abandon(1)
    assert worker.run(plan.units[1]) == Abandoned(1)
    assert committed_units(plan.job.store) == {}
    worker.run(plan.units[0])
    assert list(committed_units(plan.job.store)) == [0]
