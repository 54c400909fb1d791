"""Names of features from end to end: a tiny job's store, its evidence and its keywords, by the front door alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sparsemill
from tests.ray_jobs.evidence.stores import extracted
from tests.ray_jobs.jobs import write_corpus, write_models


def test_keywords_of_a_real_store_are_words_that_the_feature_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    corpus = write_corpus(tmp_path / "c.jsonl", 40)
    store = extracted(write_models(tmp_path), corpus, tmp_path / "store", corpus={"keep": ["text", "label"]})
    often = np.argsort(-store.statistics("tiny", "max").document_frequency, kind="stable")[:12].tolist()
    capsys.readouterr()
    keywords = ["names", "keywords", store.uri, *(f"--feature={feature}" for feature in often), "--json"]
    assert sparsemill.main(keywords) == 0
    said = json.loads(capsys.readouterr().out)
    texts = " ".join(store.documents().collect()["text"].to_list()).lower()
    words = [word["word"] for feature in said["features"] for word in feature["keywords"]]
    assert words and all(word in texts for word in words)
    assert sparsemill.main(keywords) == 0 and json.loads(capsys.readouterr().out) == said  # the same again
    listed = ["names", "list", store.uri, "--json"]
    assert sparsemill.main(listed) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["feature"] for row in rows} == {one["feature"] for one in said["features"] if one["name"]}
    assert {(row["source"], row["explainer"]) for row in rows} == {("evidence", "keywords")}
