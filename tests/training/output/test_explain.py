"""What the explanation says of a feature is true of the training documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore.models.model import load_model
from tests.training.conftest import make_spec
from tests.training.stores import SAE, Documents, build_store, make_documents
from training.output.printed import verdict
from training.results.records import StudyResult
from training.results.selection import representative
from training.study import run_study


def test_frequencies_and_strongest_documents_are_those_of_the_training_documents(
    result: StudyResult, documents: Documents
) -> None:
    explanation = result.explanation
    assert explanation is not None
    assert explanation["method"] == result.selected["sae"].members[0]
    where = {doc_id: i for i, doc_id in enumerate(documents.ids)}
    train = [where[i] for i in result.data.doc_id[result.splits[0].train]]
    for name in ("ham", "spam"):
        assert sum(feature["toward"] == name for feature in explanation["features"]) == 10
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


def test_the_explained_method_is_the_one_that_the_headline_names(tmp_path: Path) -> None:
    """Not the one that the first seed happened to select."""
    features = [{"sae": SAE, "pool": ["max", "sum"]}]
    changes = {"features": features, "baselines": ["hidden_mean"], "split": {"seeds": 3, "folds": 2}, "bootstrap": 100}
    for seed in range(20):
        store = build_store(tmp_path / f"s{seed}", make_documents(n=60, strength=0.7, seed=seed))
        found = run_study(make_spec(store, tmp_path / f"out{seed}", **changes))
        assert found.headline is not None
        named = max(set(found.headline.sae), key=found.headline.sae.count)
        if found.headline.sae[0] != named:
            break
    else:
        pytest.fail("every first seed selected what most seeds did, so nothing was tested")
    assert found.explanation is not None
    assert found.explanation["method"] == named
    assert f"SAE features (selected by validation: {named} in 2 of 3 splits, " in " ".join(verdict(found).split())
    assert load_model(found.paths["model_sae"]).header["method"] == named
    assert load_model(found.paths["model_baseline"]).header["method"] == representative(found.headline.baseline)


def test_a_feature_that_weighs_nothing_decides_nothing(tmp_path: Path) -> None:
    store = build_store(tmp_path / "s", make_documents(n=90, strength=1.0))
    spec = make_spec(store, tmp_path / "out", features=[{"sae": SAE}], baselines=[], probes=["tree"])
    explanation = run_study(spec).explanation
    assert explanation is not None
    assert [feature["weight"] for feature in explanation["features"]] == [1.0]  # one question tells the classes apart
