"""The table and the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import make_spec
from tests.training.stores import build_store, make_documents
from training.output.explained import format_explanation, top_of_a_study
from training.output.files import summary_json
from training.output.printed import format_study, sentence, verdict
from training.results.records import StudyResult
from training.scores.significance import compare, corrected
from training.study import run_study


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
    ("value", "others", "words"),
    [
        (0.10, 0, "do better than"),
        (-0.10, 0, "do worse than"),
        (0.01, 0, "No difference shown at n = 150"),
        (0.06, 0, "do better than"),
        (0.06, 9, "No difference shown at n = 150"),  # so many comparisons could find it by chance
    ],
)
def test_the_verdict_follows_the_rule_of_all_comparisons(
    result: StudyResult, value: float, others: int, words: str
) -> None:
    assert result.headline is not None
    replicates = np.random.default_rng(0).normal(value, 0.025, 1000)
    tests = [compare("q", "SAE features", "b", value, replicates)]
    tests += [compare("q", "SAE features", f"b{i}", 0.0, replicates) for i in range(others)]
    headline = corrected(tests)[0]
    said = verdict(replace(result, headline=replace(result.headline, comparison=headline)))
    assert words in said
    low, high = headline.difference.low, headline.difference.high
    assert f"[{low:+.3f}, {high:+.3f}]" in said
    assert (low > 0 or high < 0) == ("No difference" not in said)


def test_the_headline_is_one_of_the_lines_below_it(result: StudyResult) -> None:
    assert result.headline is not None
    assert result.headline.comparison in result.comparisons
    best = max((s for s in result.summary if s.kind != "sae"), key=lambda s: s.validation_macro_f1)
    assert best.method.startswith(result.headline.comparison.b.replace("TF-IDF words", "tfidf"))
    said = format_study(result)
    line = sentence(result.headline.comparison, len(result.data.y))
    numbers = line[line.index("(") + 1 : -1]
    assert " ".join(said.split()).count(numbers) >= 2


def test_what_intervals_cover_and_what_not_is_said_once(result: StudyResult) -> None:
    said = " ".join(format_study(result).split())
    assert said.count("they cover chance in what was tested, not in what was trained on") == 1


def test_one_comparison_is_no_plural_and_a_p_at_the_edge_says_on_which_side(result: StudyResult) -> None:
    assert result.headline is not None
    close = replace(result.headline.comparison, p_adjusted=0.0504)
    one = replace(result, headline=replace(result.headline, comparison=close), comparisons=(close,))
    said = format_study(one)
    assert "\n1 comparison of macro F1, corrected together" in said
    assert "corrected p = 0.0504" in verdict(one)


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
    said, few = summary_json(found)["split"]["warnings"]
    assert few.startswith("only ") and "clusters of near-duplicate texts are tested on" in few
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


@pytest.mark.parametrize(("classes", "shown"), [(2, 10), (4, 8), (9, 9), (20, 20)])
def test_a_studys_page_shows_fewer_features_of_each_of_many_classes(
    result: StudyResult, classes: int, shown: int
) -> None:
    assert result.explanation is not None
    first = result.explanation["features"][0]
    features = [{**first, "toward": f"class-{number % classes}"} for number in range(5 * classes)]
    many = {**result.explanation, "features": features}
    assert format_explanation(many, top=top_of_a_study(many)).count(f"  {first['name']}  -> ") == shown


def test_small_weights_keep_their_digits_and_an_explanation_may_be_empty(result: StudyResult) -> None:
    assert result.explanation is not None
    first = {**result.explanation["features"][0], "weight": 0.000012345}
    assert "weight 1.23e-05 " in format_explanation({**result.explanation, "features": [first]})
    assert "none: the model weighs no feature" in format_explanation({**result.explanation, "features": []})
