"""A corpus scored on Ray: whatever dies, the same command finishes, and every document is scored once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from featurestore import FeatureStore
from tests.crash.ground import PATIENCE, computing, descendants, eventually, working, write_model
from tests.ray_jobs.jobs import parts_of, write_corpus

DOCUMENTS = 12_000  # 32 units: some tenths of a second each


@pytest.fixture
def ground(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command without --out."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(models / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    corpus = write_corpus(tmp_path / "c.jsonl", DOCUMENTS, max_words=40, faults=True)
    model = write_model(models, corpus)
    options = ["--input", str(corpus), "--id-column", "id", "--workers", "2", "--json"]
    return [sys.executable, "-m", "sparsemill", "predict", str(model), *options]


def start(command: list[str], out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_kills_leave_whole_parts_and_every_document_is_scored_once(ground: list[str], tmp_path: Path) -> None:
    undisturbed = start(ground, tmp_path / "undisturbed")
    said, err = undisturbed.communicate(timeout=PATIENCE)
    assert undisturbed.returncode == 0, err
    expected = parts_of(tmp_path / "undisturbed")
    assert len(expected) == 32

    out = tmp_path / "killed"
    driver = start(ground, out)
    victims = eventually(lambda: parts_of(out) and computing(driver), driver)
    os.kill(victims[0], signal.SIGKILL)  # a worker
    eventually(lambda: len(parts_of(out)) > 4, driver)
    family = set(descendants(driver.pid))
    os.kill(driver.pid, signal.SIGKILL)  # and then the driver
    driver.communicate()
    eventually(lambda: not working(family))
    survived = parts_of(out)
    assert 0 < len(survived) < len(expected), "the driver was killed too late to prove anything"
    assert all(expected[name] == data for name, data in survived.items())

    again = start(ground, out)
    answer, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert parts_of(out) == expected
    found = json.loads(answer)
    assert found["documents"] == DOCUMENTS and found["decisions"] == json.loads(said)["decisions"]
    store = FeatureStore.open(str(out))
    assert store.verify().ok
    ids = store.documents().select("doc_id", "decision", "p_spam").collect()
    assert ids["doc_id"].n_unique() == len(ids) == DOCUMENTS
    assert ids.filter(pl.col("p_spam").is_null())["decision"].unique().to_list() == ["undecided"]
