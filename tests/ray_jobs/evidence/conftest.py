"""Tiny models, a corpus with everything that can be wrong with a document, and stores of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.ray_jobs.evidence.stores import extracted
from tests.ray_jobs.jobs import write_corpus, write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        write_corpus(directory / "c.jsonl", 60, faults=True, max_words=40)
        yield write_models(directory)


@pytest.fixture(scope="session")
def store(models: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Keeps its text, in float32 with all bits."""
    place = tmp_path_factory.mktemp("stores") / "with-text"
    return extracted(models, models / "c.jsonl", place, corpus={"keep": ["text", "label"]}, value_bits=24)


@pytest.fixture(scope="session")
def textless(models: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Does not keep its text, and rounds to 8 bits."""
    return extracted(models, models / "c.jsonl", tmp_path_factory.mktemp("stores") / "without-text")
