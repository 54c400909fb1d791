"""What the explanation says of a feature is true of the training documents."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.stores import Documents
from training.results import StudyResult


def test_frequencies_and_strongest_documents_are_those_of_the_training_documents(
    result: StudyResult, documents: Documents
) -> None:
    explanation = result.explanation
    assert explanation is not None
    assert explanation["method"] == result.selected["sae"].cells[0]
    where = {doc_id: i for i, doc_id in enumerate(documents.ids)}
    train = [where[i] for i in result.data.doc_id[result.splits[0].train]]
    assert len(explanation["features"]) == 5
    for feature in explanation["features"]:
        fires = {i: documents.features[i].get(feature["feature"], (0.0, 0)) for i in train}
        for name in ("ham", "spam"):
            mine = [fires[i][0] > 0 for i in train if documents.label[i] == name]
            assert feature["document_frequency"][name] == pytest.approx(np.mean(mine))
        pooled = {i: peak if explanation["pool"] == "max" else peak * count for i, (peak, count) in fires.items()}
        best = sorted(pooled.values(), reverse=True)[:3]
        assert [d["value"] for d in feature["documents"]] == pytest.approx(best, rel=2**-7)  # stored with 8 bits
        for shown in feature["documents"]:
            assert shown["label"] == documents.label[where[shown["doc_id"]]]
            assert shown["text"] == documents.text[where[shown["doc_id"]]]
            assert pooled[where[shown["doc_id"]]] == pytest.approx(shown["value"], rel=2**-7)


def test_features_come_heaviest_first(result: StudyResult) -> None:
    assert result.explanation is not None
    weights = [feature["weight"] for feature in result.explanation["features"]]
    assert weights == sorted(weights, reverse=True)
