"""One store and one study of it, shared by the tests that only look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.stores import SAE, Documents, build_store, make_documents
from training.results.records import StudyResult
from training.spec import StudySpec, study_from_mapping
from training.study import run_study


def make_spec(store: str, out: Path, **changes: Any) -> StudySpec:
    """A small study of a test store; its model files keep the evaluated models, which most tests are about."""
    mapping: dict[str, Any] = {
        "store": store,
        "label": "label",
        "features": [{"sae": SAE, "pool": ["max", "sum"], "binarize": [None, 0.0]}],
        "baselines": ["tfidf", "hidden_mean"],
        "split": {"seeds": 2, "folds": 3},
        "bootstrap": 200,
        "refit": False,
        "out": str(out),
        **changes,
    }
    return study_from_mapping(mapping, out.parent)


@pytest.fixture(scope="session")
def documents() -> Documents:
    return make_documents(n=150)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, documents: Documents) -> str:
    return build_store(tmp_path_factory.mktemp("shared") / "store", documents)


@pytest.fixture(scope="session")
def result(store: str, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run_study(make_spec(store, tmp_path_factory.mktemp("shared") / "study"))
