"""The files of a study say what was done."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import StudyError
from tests.training.conftest import make_spec
from training.results.records import MethodRow, StudyResult
from training.study import run_study


def test_results_have_one_row_for_each_method_and_seed_with_the_documented_fields(result: StudyResult) -> None:
    rows = pq.read_table(result.paths["results"])
    assert rows.column_names == [field.name for field in fields(MethodRow)]
    keys = list(zip(rows["method"].to_pylist(), rows["seed"].to_pylist(), strict=True))
    assert len(keys) == len(set(keys)) == 7 * 2
    for name in MethodRow.__annotations__:
        assert name in (MethodRow.__doc__ or "")


def test_the_summary_names_store_split_versions_and_documents(result: StudyResult) -> None:
    written = json.loads(Path(result.paths["summary"]).read_text())
    assert written["store"]["fingerprint"] == FeatureStore.open(result.spec.store).fingerprint
    assert written["split"]["sha256"] == result.split_sha256
    assert written["documents"]["used"] == 150
    assert written["documents"]["classes"] == {"ham": 75, "spam": 75}
    assert written["spec"]["features"][0]["binarize"] == [None, 0.0]
    assert {"numpy", "scipy", "scikit-learn"} <= set(written["versions"])
    assert [m["method"] for m in written["methods"]] == [m.method for m in result.summary]


def test_every_path_is_there(result: StudyResult) -> None:
    names = {"split", "predictions", "results", "folds", "regimes", "slices", "explanation", "summary", "model_sae"}
    assert names <= set(result.paths) <= {*names, "model_baseline"}
    assert all(Path(path).is_file() for path in result.paths.values())


def test_results_are_never_written_into_a_store(tmp_path: Path, store: str) -> None:
    with pytest.raises(StudyError, match="is a feature store; choose another directory"):
        run_study(
            make_spec(store, tmp_path / "out", features=[], baselines=["majority"]).model_copy(update={"out": store})
        )


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, store: str) -> None:
    (tmp_path / "file").write_text("in the way")
    spec = make_spec(store, tmp_path / "file" / "out", features=[], baselines=["majority"])
    with pytest.raises(StudyError, match="cannot be written"):
        run_study(spec)
