"""Documents that break things, in nine ways: each keeps its row with what was wrong, and no neighbour notices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.base.fault_points import VARIABLE
from featurestore.format.schema import round_values
from featurestore.format.store_plan import create_store
from ray_jobs.corpus.read import read_rows
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.planning.job_plan import make_plan
from ray_jobs.run.document_search import DIED
from ray_jobs.spec import JobSpec, load_job
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.crash.ground import start
from tests.ray_jobs.jobs import job_mapping, parts_of, write_job
from tests.tiny import NAN_WORD, UNEMBEDDED_WORD, tiny_texts

DOCUMENTS, PER_UNIT = 1_000, 50
RAISING, DEADLY = "this-one-raises", "this-one-kills"
FAULTS = f"worker.computing:{RAISING}=raise;worker.computing:{DEADLY}=kill"
LONE_SURROGATE = chr(0xD800)

# what is wrong -> how often, the line that it makes of a row, what the row's error says
WAYS = {
    "broken line": (5, lambda row: '{"id": ' + f'"d{row}", "text": ', "JSON"),
    "no text": (5, lambda row: json.dumps({"id": f"d{row}", "text": None}), "the text in 'text' is null"),
    "text is a number": (5, lambda row: json.dumps({"id": f"d{row}", "text": 7}), "the text in 'text' is a number"),
    "text is no Unicode": (5, lambda row: json.dumps({"id": f"d{row}", "text": LONE_SURROGATE}), "lone surrogate"),
    "id is empty": (5, lambda row: json.dumps({"id": "", "text": "love"}), "the id in 'id' is empty"),
    "makes NaN": (4, lambda row: _line(row, f"love {NAN_WORD} hate"), "not finite"),
    "token without embedding": (4, lambda row: _line(row, f"music {UNEMBEDDED_WORD} train"), "embedding ends at"),
    "makes computing raise": (
        2,
        lambda row: _line(row, f"river {RAISING} stone"),
        "the worker failed on this document",
    ),
    "kills the worker": (2, lambda row: _line(row, f"garden {DEADLY} winter"), DIED),
}


def _line(row: int, text: str) -> str:
    return json.dumps({"id": f"d{row}", "text": text, "label": row % 3})


def poisoned_rows() -> dict[int, str]:
    """37 rows, spread over all units, and in which way each is poisoned; the worker's two ways meet in one unit."""
    ways = [way for way, (times, _, _) in WAYS.items() for _ in range(times)]
    rows = [27 * i + 13 for i in range(len(ways) - 2)]
    return dict(zip([*rows, 940, 955], ways, strict=True))


def write_poisoned(path: Path) -> Path:
    lines = [_line(row, text) for row, text in enumerate(tiny_texts(DOCUMENTS, seed=11, max_words=30))]
    for row, way in poisoned_rows().items():
        lines[row] = WAYS[way][1](row)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_thousand_documents_of_which_37_are_poisoned_in_nine_ways(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(models / "cache"))
    corpus = write_poisoned(tmp_path / "c.jsonl")
    settings = {"units": {"documents": PER_UNIT}, "workers": {"max": 2, "cpus": 1}}
    job = write_job(tmp_path / "job.yaml", job_mapping(models, corpus, tmp_path / "store", **settings))
    driver = start(job, "--json", env={VARIABLE: FAULTS})
    out, err = driver.communicate(timeout=1_800)  # each document that kills costs ten workers their lives
    assert driver.returncode == 0, err
    assert (json.loads(out)["documents"], json.loads(out)["errors"]) == (1000, 37)
    store = FeatureStore.open(str(tmp_path / "store"))
    assert store.verify().ok
    errors = store.documents().collect()["error"].to_list()
    poisoned = poisoned_rows()
    assert len(poisoned) == 37
    assert {row for row, error in enumerate(errors) if error} == poisoned.keys()
    for row, way in poisoned.items():
        assert WAYS[way][2] in errors[row], (row, way, errors[row])
    assert_neighbours_as_if_alone(load_job(job), store, poisoned)
    known = write_job(tmp_path / "known.yaml", job_mapping(models, corpus, tmp_path / "known", **settings))
    assert parts_of(tmp_path / "store") == parts_when_known(load_job(known), poisoned)


def parts_when_known(job: JobSpec, poisoned: dict[int, str]) -> dict[str, bytes]:
    """The parts as one worker makes them that is told of the documents which a search has to find."""
    reasons = {
        "kills the worker": DIED,
        "makes computing raise": "the worker failed on this document: ValueError: injected at worker.computing",
    }
    plan = make_plan(job)
    create_store(plan.job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    for unit in plan.units:
        found = {row: reasons[way] for row, way in poisoned.items() if way in reasons}
        worker.run(unit, {row - unit.start: why for row, why in found.items() if unit.start <= row < unit.stop})
    return parts_of(Path(plan.job.store))


def assert_neighbours_as_if_alone(job: JobSpec, store: FeatureStore, poisoned: dict[int, str]) -> None:
    """The others' features are those of the same units from which the poisoned were taken out beforehand."""
    plan = make_plan(job)
    extractor = Extractor(plan.bundle, ExtractSettings(**plan.settings))
    stored = {pool: store.matrix("tiny", pool=pool).X for pool in ("max", "sum", "count")}
    identical = compared = 0
    for unit in plan.units:
        documents = read_rows(unit.slices, plan.job.corpus, plan.scan.keep_types)
        known = ["absent" if unit.start + i in poisoned else error for i, error in enumerate(documents.error)]
        rows = extractor.extract([None if e else t for t, e in zip(documents.text, known, strict=True)], known)
        alone = rows.saes["tiny"]
        block = {pool: matrix[unit.start : unit.stop].tocsr() for pool, matrix in stored.items()}
        assert np.array_equal(block["count"].indptr, alone.indptr)
        assert np.array_equal(block["count"].indices, alone.indices)
        assert np.array_equal(block["count"].data, alone.values["count"])
        for pool in ("max", "sum"):  # stored with 8 significant bits: one step is 2**-8 of the value
            np.testing.assert_allclose(block[pool].data, alone.values[pool], rtol=2**-8 * 1.01)
            compared += len(alone.values[pool])
            identical += int((block[pool].data == round_values(alone.values[pool], store.schema.value_bits)).sum())
    assert identical > 0.99 * compared  # a float32 that lies where rounding turns may turn with its neighbours
