"""The driver on a real Ray: complete stores, the same bytes however many work, only what is missing, failures named."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import BundleError, CorpusError, JobFailed, UsageError
from featurestore.format.store_plan import create_store
from featurestore.status import run_status
from ray_jobs.cluster.session import ray_cluster
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.planning.job_plan import JobPlan, make_plan
from ray_jobs.reporting.progress import Progress
from ray_jobs.run import driver
from ray_jobs.run.driver import extract, run_plan
from ray_jobs.run.outcome import ExtractResult, TooManyErrors
from ray_jobs.run.totals import RunTotals
from tests.ray_jobs.jobs import job_mapping as mapping_of
from tests.ray_jobs.jobs import make_job, parts_of, write_corpus, write_job, write_models

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        yield write_models(directory)


@pytest.fixture(scope="module", autouse=True)
def one_ray_for_all(models: Path) -> Iterator[None]:
    """A driver that finds its process connected to Ray uses that Ray, so all tests share one start."""
    with ray_cluster(None, 3, 0):
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "c.jsonl", 130, faults=True)


@pytest.fixture(scope="module")
def first_run(models: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> ExtractResult:
    """A store made by one worker without any disturbance."""
    return extract(make_job(models, corpus, tmp_path_factory.mktemp("whole") / "store"))


def test_the_manifest_says_what_is_there_of_parts_that_two_workers_may_have_written(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(models, corpus, tmp_path / "store")
    done = driver._do_missing

    def overwritten(plan: JobPlan, *more: Any) -> RunTotals:
        """A slower worker on other hardware replaces the part after the run has heard of the first."""
        totals = done(plan, *more)
        path = tmp_path / "store" / "parts" / "part-000001.parquet"
        table, said = pq.read_table(path), pq.read_metadata(path).metadata
        with pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=19) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({k: v for k, v in said.items() if k.startswith(b"sparsemill")})
        totals.given_again.add(1)
        return totals

    monkeypatch.setattr(driver, "_do_missing", overwritten)
    extract(job)
    monkeypatch.undo()
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text(encoding="utf-8"))
    data = (tmp_path / "store" / "parts" / "part-000001.parquet").read_bytes()
    (said,) = (part for part in manifest["parts"] if part["unit"] == 1)
    assert (said["bytes"], said["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture(scope="module")
def whole(first_run: ExtractResult) -> Path:
    return Path(first_run.store)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """The same store, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "store"))


def test_a_run_gives_a_complete_store_that_verifies(first_run: ExtractResult, whole: Path) -> None:
    assert (first_run.documents, first_run.errors, first_run.units, first_run.units_run) == (130, 3, 7, 7)
    assert first_run.tokens == first_run.tokens_run > 0
    store = FeatureStore.open(str(whole))
    assert store.complete
    assert store.verify().ok
    assert store.documents().collect()["label"][:3].to_list() == [0, 1, 2]


def test_the_store_holds_what_the_engine_gives_unit_by_unit(models: Path, corpus: Path, whole: Path) -> None:
    from ray_jobs.corpus.read import read_rows

    plan = make_plan(make_job(models, corpus, whole))
    extractor = Extractor(plan.bundle, ExtractSettings(**plan.settings))
    stored = FeatureStore.open(str(whole)).matrix("tiny", pool="count").X
    for unit in plan.units[:2]:
        documents = read_rows(unit.slices, plan.job.corpus, plan.scan.keep_types)
        rows = extractor.extract(documents.text, documents.error).saes["tiny"]
        block = stored[unit.start : unit.stop].tocsr()
        assert (block.indptr == rows.indptr).all()
        assert (block.indices == rows.indices).all()
        assert (block.data == rows.values["count"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("room", [True, False])
def test_a_compressed_corpus_gives_the_same_rows_and_leaves_nothing_decompressed(
    models: Path, corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    monkeypatch.setattr("ray_jobs.corpus.slices.MARK_ROWS", 10)
    monkeypatch.setattr("ray_jobs.corpus.scan.MARK_ROWS", 10)
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    spilled = models / "cache" / "spilled"
    if not room:
        shutil.rmtree(spilled, ignore_errors=True)
        spilled.write_text("in the way")
    stream = io.StringIO()
    extract(make_job(models, packed, tmp_path / "store"), progress=Progress(stream))
    assert stream.getvalue().count("c.jsonl.gz is not kept decompressed on") == (not room)
    if room:
        assert spilled.is_dir()
        assert not [path for path in spilled.rglob("*") if path.is_file()]
    else:
        spilled.unlink()
    ours, others = (FeatureStore.open(str(store)).matrix("tiny") for store in (tmp_path / "store", whole))
    assert (ours.X != others.X).nnz == 0


def test_a_run_leaves_its_record_and_a_line_for_each_unit(first_run: ExtractResult, whole: Path) -> None:
    now = run_status(str(whole))
    assert now.run is not None
    assert (now.run.state, now.run.units_done, now.run.documents, now.run.errors) == ("finished", 7, 130, 3)
    assert (now.complete, now.running, now.units_running, now.units_failed) == (True, False, 0, 0)
    assert (now.worker_tokens, now.errors) == (first_run.tokens, 3)
    assert sorted(note.unit for note in now.slowest) == sorted({note.unit for note in now.slowest})
    assert sum(kind.documents for kind in now.error_kinds) == 3
    journal = "".join(path.read_text(encoding="utf-8") for path in (whole / ".journal").iterdir())
    lines = [json.loads(line.rstrip(",")) for line in journal.splitlines() if line.startswith("{")]
    assert sorted(line["unit"] for line in lines) == list(range(7))
    for line in lines:
        phases = line["read_seconds"] + line["compute_seconds"] + line["write_seconds"]
        assert 0 < phases <= line["seconds"] + 0.01


@pytest.mark.slow
def test_one_worker_and_three_give_the_same_bytes(models: Path, corpus: Path, whole: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    job = make_job(models, corpus, tmp_path / "store", workers={"max": 3})
    assert extract(job, progress=Progress(stream, live=True)).workers == 3
    assert parts_of(tmp_path / "store") == parts_of(whole)
    assert "of 130 documents" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")  # the live line is gone when the run is over


def test_only_what_is_missing_is_done(models: Path, corpus: Path, whole: Path, copied: Path) -> None:
    parts = sorted((copied / "parts").iterdir())
    for part in (parts[0], parts[4]):
        part.unlink()
    untouched = parts[1].stat().st_mtime_ns
    again = extract(make_job(models, corpus, copied))
    assert (again.units_run, again.documents_run, again.documents) == (2, 40, 130)
    assert parts[1].stat().st_mtime_ns == untouched
    assert parts_of(copied) == parts_of(whole)
    assert FeatureStore.open(str(copied)).verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_an_empty_file_under_the_name_of_a_part_is_none_and_its_unit_is_done_again(
    models: Path, corpus: Path, whole: Path, copied: Path, finished: bool
) -> None:
    (copied / "parts" / "part-000003.parquet").write_bytes(b"")
    if not finished:
        (copied / "manifest.json").unlink()
    assert extract(make_job(models, corpus, copied)).units_run == 1
    assert parts_of(copied) == parts_of(whole)
    assert FeatureStore.open(str(copied)).verify().ok


@pytest.mark.slow
def test_a_directory_under_the_name_of_a_part_is_none_and_is_named_when_resuming(
    models: Path, corpus: Path, copied: Path
) -> None:
    part = copied / "parts" / "part-000003.parquet"
    part.unlink()
    part.mkdir()
    plan = make_plan(make_job(models, corpus, copied))
    assert [unit.index for unit in plan.missing] == [3]
    with pytest.raises(JobFailed, match=r"unit 3 .* failed: IsADirectoryError.*part-000003\.parquet.*6 of 7 parts"):
        run_plan(plan)


def test_a_missing_manifest_is_written_without_any_work(models: Path, corpus: Path, copied: Path) -> None:
    manifest = copied / "manifest.json"
    before = manifest.read_bytes()
    manifest.unlink()
    result = extract(make_job(models, corpus, copied))
    assert (result.units_run, result.workers) == (0, 0)
    assert manifest.read_bytes() == before


def test_a_run_with_nothing_to_do_starts_no_ray_and_opens_no_weights(models: Path, corpus: Path, whole: Path) -> None:
    job = write_job(whole.parent / "job.yaml", mapping_of(models, corpus, whole))
    code = f"""
import sys
from ray_jobs.run.driver import extract
from ray_jobs.spec import load_job
result = extract(load_job({str(job)!r}))
print(result.units_run, result.documents, "ray" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.stdout.split() == ["0", "130", "False", "False"], done.stderr


@pytest.mark.slow
def test_a_part_that_cannot_be_written_fails_its_unit_and_no_other(models: Path, corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, corpus, tmp_path / "store"))
    obstacle = tmp_path / "store" / "parts" / "part-000002.parquet"
    obstacle.mkdir(parents=True)
    (tmp_path / "store" / "store.json").write_bytes(plan.store.to_bytes())
    stream = io.StringIO()
    with pytest.raises(JobFailed, match=r"unit 2 \(documents 40 to 59\) failed: IsADirectoryError.*; 6 of 7 parts"):
        run_plan(plan, progress=Progress(stream, live=False))
    assert stream.getvalue().count("unit 2 failed") == 2
    assert len(parts_of_files(tmp_path / "store")) == 6
    obstacle.rmdir()
    assert extract(plan.job).units_run == 1
    assert FeatureStore.open(str(tmp_path / "store")).verify().ok


def test_a_corpus_that_changes_under_the_run_stops_it(models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 60)
    plan = make_plan(make_job(models, corpus, tmp_path / "store"))
    write_corpus(corpus, 50)
    with pytest.raises(CorpusError, match="changed since the corpus was scanned"):
        run_plan(plan)


@pytest.mark.slow
def test_what_a_worker_cannot_open_is_said_by_the_driver(models: Path, corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(make_job(models, corpus, tmp_path / "store"))
    weights = plan.bundle.path / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:1000])
        with pytest.raises(BundleError, match=r"model\.safetensors is damaged \(.*\); delete .* and prepare again"):
            run_plan(plan)
    finally:
        weights.write_bytes(whole)
    assert not (tmp_path / "store" / "parts").exists()


@pytest.mark.slow
def test_a_run_of_which_too_much_failed_is_a_failure_and_keeps_its_store(
    models: Path, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    job = make_job(models, corpus, tmp_path / "store", corpus={"max_errors": 2})
    for units_run in (7, 0):
        with pytest.raises(TooManyErrors, match=r"3 of 130 documents \(2\.3%\) .* corpus\.max_errors: 2 ") as failed:
            extract(job)
        assert failed.value.result.units_run == units_run
        assert parts_of(tmp_path / "store") == parts_of(whole)
    assert FeatureStore.open(str(tmp_path / "store")).complete


def test_another_jobs_store_is_not_touched(models: Path, corpus: Path, tmp_path: Path) -> None:
    ours = make_plan(make_job(models, corpus, tmp_path / "store"))
    theirs = make_plan(make_job(models, corpus, tmp_path / "store", pool=["max"]))
    create_store(theirs.job.store, theirs.store)  # begun by someone else between our plan and our run
    with pytest.raises(UsageError, match="pool"):
        run_plan(ours)
    assert parts_of_files(tmp_path / "store") == []


def parts_of_files(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "parts").glob("*.parquet") if path.is_file())
