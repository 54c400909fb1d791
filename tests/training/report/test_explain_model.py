"""The explanation in a model file, narrowed, with tokens from beside the study; and names that say who gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import StudyError
from featurestore.evidence.cache import EvidenceCache, text_sha256
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token
from training.output.explained import format_explanation
from training.report.explain_model import marked_texts, narrowed
from training.report.kept_evidence import KeptEvidence
from training.report.naming import feature_names, missing_evidence, wanted_evidence
from training.report.study_files import StudyFiles

NAMES = ("a", "b")


def example(doc_id: str, value: float) -> dict[str, Any]:
    return {"doc_id": doc_id, "label": "a", "value": value, "text": "some text"}


def feature(index: int, toward: str, **more: Any) -> dict[str, Any]:
    return {"feature": index, "name": f"s:{index}", "toward": toward, "coefficient": 1.0, "weight": 0.0123456,
            "share": 0.25, "document_frequency": {"a": 0.5, "b": 0.25}, "flags": ["fires on 99% of the documents"],
            "copies": [{"name": "s:9", "correlation": 0.95}], "documents": [example("d1", 3.0), example("d2", 2.0)],
            "random": [], "counter": [], **more}  # fmt: skip


EXPLANATION = {
    "method": "s:max", "seed": 0, "parameter": "C", "value": 1.0, "classes": ["a", "b"], "pool": "max",
    "majority": {"answer": "a", "difference": {"value": 0.01}, "beaten": False},
    "features": [feature(0, "a"), feature(1, "b"), feature(2, "a"), feature(3, "b")],
    "errors": [{**example("d3", 0.0), "predicted": "b", "reasons": [{"name": "s:5", "push": 1.0}]}],
}  # fmt: skip


def study(tmp_path: Path, explanation: Mapping[str, Any] = EXPLANATION, private: bool = False) -> StudyFiles:
    cache = EvidenceCache(tmp_path / "evidence")
    tokens = (Token("<bos>", 0, 0, False), Token("alpha", 0, 5, True), Token(" beta", 5, 10, True))
    for doc_id, values in {"d1": (0.0, 1.0, 2.0), "d2": (0.0, 4.0, 4.0)}.items():
        one = FeatureEvidence("s", 0, values, max(values), sum(values))
        cache.write(DocumentEvidence(doc_id, tokens, (one,)), text_sha256("alpha beta"), "0" * 64)
    return StudyFiles(str(tmp_path), {}, (), explanation, {}, {}, KeptEvidence(cache), private)


def test_evidence_of_another_store_whose_sae_has_the_same_name_is_not_shown(tmp_path: Path) -> None:
    study(tmp_path)
    header = {"trained_on": {"identity": {"bundle": "another"}}}
    assert KeptEvidence.beside(str(tmp_path), None).find("d1", "s", 0) is not None
    assert KeptEvidence.beside(str(tmp_path), header).find("d1", "s", 0) is None


def test_features_of_each_class_or_of_one_class(tmp_path: Path) -> None:
    found = narrowed(study(tmp_path), 1, None, None)
    assert [f["name"] for f in found["features"]] == ["s:0", "s:1"]
    assert [f["name"] for f in narrowed(study(tmp_path), 5, "b", None)["features"]] == ["s:1", "s:3"]


def test_a_class_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"there is no class 'c'; there are: a, b"):
        narrowed(study(tmp_path), 5, "c", None)


POOLED = {
    "sum": ("d2", [8.0, 3.0]),
    "count": ("d1", [2.0, 2.0]),
    "mean": ("d2", [4.0, 1.5]),
    "last": ("d2", [4.0, 2.0]),
}


@pytest.mark.parametrize(("pool", "first", "values"), [(pool, *expected) for pool, expected in POOLED.items()])
def test_examples_are_ordered_by_another_pooling_of_their_tokens(
    tmp_path: Path, pool: str, first: str, values: list[float]
) -> None:
    shown = narrowed(study(tmp_path), 1, "a", pool)["features"][0]["documents"]
    assert shown[0]["doc_id"] == first and [d["value"] for d in shown] == values


def test_without_tokens_another_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"--pool: the tokens of document 'd1' are not kept"):
        narrowed(study(tmp_path), 5, "b", "sum")


def test_a_screen_says_first_that_the_majority_is_not_beaten_and_marks_tokens(tmp_path: Path) -> None:
    one = study(tmp_path)
    said = format_explanation(
        EXPLANATION, {"s:0": {"text": "greek", "source": "keywords", "by": ""}}, marked_texts(one, EXPLANATION)
    )
    assert said.startswith("The model is not shown to be better than always answering 'a'")
    assert "weight 0.0123 (25.0% of the decision)" in said
    assert "greek [keywords]" in said and "caution: fires on 99%" in said and "near-copies: s:9 (0.95)" in said
    assert "«alpha» «beta»" in said


def test_documents_are_wanted_for_the_features_that_they_are_shown_for() -> None:
    wanted = wanted_evidence(EXPLANATION)
    assert wanted["d1"] == [("s", 0), ("s", 1), ("s", 2), ("s", 3)]
    assert wanted["d3"] == [("s", 5)]


def test_a_private_study_wants_no_evidence_and_has_no_keywords(tmp_path: Path) -> None:
    (tmp_path / "explanation.json").write_text(json.dumps(EXPLANATION))
    keys = ("documents", "store", "split", "selected", "test_set")
    summary = {"spec": {"text": "private", "store": "s"}, "methods": [], **{key: {} for key in keys}}
    (tmp_path / "results.json").write_text(json.dumps(summary))
    assert missing_evidence(str(tmp_path))[1] == {}
    assert feature_names(study(tmp_path, private=True)) == {}


def test_names_from_evidence_are_marked_as_keywords(tmp_path: Path) -> None:
    one = study(tmp_path)
    tokens = tuple(Token(w, i * 6, i * 6 + len(w), True) for i, w in enumerate(["dog", " cat", " dog", " sun", " sky"]))
    for n in range(12):
        values = (2.0, 0.0, 3.0, 0.0, 0.0)
        found = DocumentEvidence(f"x{n}", tokens, (FeatureEvidence("s", 0, values, 3.0, 5.0),))
        one.evidence.cache.write(found, text_sha256("x"), "0" * 64)
    shown = {**EXPLANATION, "features": [feature(0, "a", documents=[example(f"x{n}", 3.0) for n in range(12)])]}
    names = feature_names(study(tmp_path, shown))
    assert names["s:0"]["source"] == "keywords" and "dog" in names["s:0"]["text"]
