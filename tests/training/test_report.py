"""The table and the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.metrics import Interval
from training.report import format_explanation, format_study, verdict
from training.results import StudyResult
from training.study import run_study
from training.writing import summary_json


def test_columns_are_aligned_and_all_methods_are_shown_with_their_interval(result: StudyResult) -> None:
    lines = format_study(result).splitlines()
    head = next(i for i, line in enumerate(lines) if "macro F1" in line)
    body = lines[head + 2 : head + 2 + len(result.summary)]
    assert [line[3:].split()[0] for line in body] == [m.method for m in result.summary]
    end = lines[head].index("macro F1") + len("macro F1")
    for line, method in zip(body, result.summary, strict=True):
        assert line[:end].endswith(f"{method.macro_f1.value:.3f}")
        assert f"[{method.macro_f1.low:.3f}, {method.macro_f1.high:.3f}]" in line
        assert line.startswith("*") == (method.kind == "sae" and method.chosen > 0)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.05, "do better than"), (-0.05, -0.01, "do worse than"), (-0.02, 0.05, "No difference shown at n = 150")],
)
def test_the_verdict_follows_the_paired_interval(result: StudyResult, low: float, high: float, words: str) -> None:
    said = verdict(replace(result, difference=Interval((low + high) / 2, low, high)))
    assert words in said
    assert f"[{low:+.3f}, {high:+.3f}]" in said


def test_what_was_left_out_and_what_is_undefined_is_said(tmp_path: Path) -> None:
    documents = make_documents(n=60)
    documents.label[:12] = ["rare"] * 12
    documents.label[12] = None
    documents.group = [f"g{0 if label == 'rare' else i}" for i, label in enumerate(documents.label)]
    documents.group[:12] = [f"r{i // 3}" for i in range(12)]
    store = build_store(tmp_path / "s", documents)
    split = {"seeds": 3, "folds": 2, "group": "group"}
    found = run_study(make_spec(store, tmp_path / "out", baselines=["hidden_mean"], split=split))
    said = format_study(found)
    assert "left out of 60 documents: 1 because they have no label" in said
    undefined = [row for row in found.rows if row.auroc_undefined]
    assert ("AUROC undefined in" in said) == bool(undefined)


def test_a_share_that_near_duplicates_keep_from_its_size_is_warned_of_in_report_and_json(tmp_path: Path) -> None:
    documents = make_documents(n=120)
    documents.text = [f"one text for all{'!' * i}" if i < 105 else text for i, text in enumerate(documents.text)]
    store = build_store(tmp_path / "s", documents)
    found = run_study(make_spec(store, tmp_path / "out", features=[], baselines=["hidden_mean"]))
    (said,) = summary_json(found)["split"]["warnings"]
    assert "of 120 documents instead of 24" in said
    assert said in " ".join(format_study(found).split()).replace("warning: ", "")


def test_a_study_without_sae_features_has_no_comparison(tmp_path: Path, store: str) -> None:
    found = run_study(make_spec(store, tmp_path / "out", features=[], baselines=["tfidf"]))
    assert "Nothing to compare: the study has only baselines" in format_study(found)
    assert found.explanation is None


def test_the_explanation_shows_features_classes_and_documents(result: StudyResult) -> None:
    assert result.explanation is not None
    said = format_explanation(result.explanation)
    for feature in result.explanation["features"]:
        assert f"{feature['name']}  -> {feature['toward']}" in said
        assert feature["documents"][0]["doc_id"] in said
