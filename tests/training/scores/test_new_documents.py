"""Scores on new labelled documents are scikit-learn's, and features that fire elsewhere than in training are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, roc_auc_score

from featurestore.errors import UsageError
from featurestore.models.model import Model
from featurestore.models.predict import CUT, Predicted
from featurestore.models.rule import Rule
from featurestore.models.scoring import decide
from featurestore.tables.same_value import class_texts
from tests.featurestore.models.handmade import linear_model
from training.scores.new_documents import KEPT, Evaluator, format_evaluation

N = 400


@pytest.fixture
def model() -> Model:
    """Four features, the last of weight 0; in training each fired in a tenth of 1,000 documents."""
    made = linear_model([0, 3, 4, 9], np.array([[2.0, -1.5, 1.0, 0.0]]), {"one": 10})
    header = {**made.header, "trained_on": {**made.header["trained_on"], "documents": 1_000}}
    return replace(made, header=header, tensors={**made.tensors, "document_frequency": np.full(4, 0.1)})


def predicted(model: Model, fires: tuple[float, ...], seed: int = 0) -> Predicted:
    """N documents whose features fire in such shares of them; the first has no features."""
    rng = np.random.default_rng(seed)
    X = csr_matrix(rng.random((N, 4)) * 4 * (rng.random((N, 4)) < np.array(fires)))
    scores = decide(model, X)
    nothing = np.arange(N) == 0
    y_pred = np.where(nothing, -1, scores.argmax(axis=1))
    return Predicted(
        doc_id=np.array([str(n) for n in range(N)], dtype=object),
        y_pred=y_pred,
        decided=y_pred,
        proba=np.where(nothing[:, None], np.nan, np.exp(scores)),
        in_training=None,
        problem=["failed", *[None] * (N - 1)],
        truncated=np.zeros(N, dtype=bool),
        X=X,
    )


def test_scores_are_those_of_scikit_learn_over_labelled_documents_with_features(model: Model) -> None:
    batch = predicted(model, (0.5, 0.5, 0.5, 0.5))
    rng = np.random.default_rng(1)
    truth = np.where(rng.random(N) < 0.8, np.maximum(batch.y_pred, 0), 1 - np.maximum(batch.y_pred, 0))
    labels: list[Any] = [["ham", "spam"][y] for y in truth]
    labels[5], labels[6], labels[7] = None, float("nan"), "eggs"
    evaluator = Evaluator(model, "label")
    evaluator.add(replace(batch), labels, Rule().decide(model.classes, batch), Rule().problems(batch))
    found = evaluator.result()
    kept = np.array([n for n in range(N) if n not in (0, 5, 6, 7)])
    y, p = truth[kept], batch.proba[kept]
    assert (found.documents, found.unlabelled, found.unknown, found.without_features) == (N - 4, 2, {"eggs": 1}, 1)
    assert found.macro_f1.value == pytest.approx(f1_score(y, batch.y_pred[kept], average="macro"))
    assert found.accuracy.value == pytest.approx(accuracy_score(y, batch.y_pred[kept]))
    assert found.auroc.value == pytest.approx(roc_auc_score(y, p[:, 1]))
    assert found.brier == pytest.approx(brier_score_loss(y, p[:, 1]))
    assert found.macro_f1.low < found.macro_f1.value < found.macro_f1.high
    assert found.decided == (N - 4, pytest.approx(found.accuracy.value))
    page = format_evaluation(found, "label")
    assert "left out: 4 (2 without label, 1 without features, labels that are no class: eggs)" in page


def test_features_that_fire_in_another_share_of_documents_are_named_and_others_are_not(model: Model) -> None:
    batch = predicted(model, (0.1, 0.3, 0.1, 0.9))  # the last is not used, so it is not looked at
    evaluator = Evaluator(model, "label")
    evaluator.add(batch, ["ham"] * N, Rule().decide(model.classes, batch), Rule().problems(batch))
    found = evaluator.result()
    assert (found.drifted, found.tested) == (1, 3)
    assert found.drift is not None
    (moved,) = found.drift
    assert (moved.sae, moved.feature, moved.training) == ("one", 3, 0.1)
    assert moved.here == pytest.approx(0.3, abs=0.06) and moved.z > 5


def test_alarms_without_drift_are_rare(model: Model) -> None:
    alarms = 0
    for seed in range(60):
        batch = predicted(model, (0.1, 0.1, 0.1, 0.1), seed)
        evaluator = Evaluator(model, "label")
        evaluator.add(batch, ["ham"] * N, Rule().decide(model.classes, batch), Rule().problems(batch))
        shifts = evaluator.meter.result()
        alarms += shifts is not None and shifts.moved > 0
    assert alarms <= 8  # 3 are expected at a level of 5 %


def test_a_model_that_does_not_know_how_often_features_fired_says_so(model: Model) -> None:
    old = replace(model, tensors={name: t for name, t in model.tensors.items() if name != "document_frequency"})
    batch = predicted(old, (0.5, 0.5, 0.5, 0.5))
    evaluator = Evaluator(old, "label")
    evaluator.add(batch, ["ham"] * N, Rule().decide(old.classes, batch), Rule().problems(batch))
    assert "drift: not known" in format_evaluation(evaluator.result(), "label")


def test_labels_that_are_no_class_of_the_model_are_one_sentence(model: Model) -> None:
    batch = predicted(model, (0.5, 0.5, 0.5, 0.5))
    evaluator = Evaluator(model, "verdict")
    evaluator.add(batch, ["Ham"] * N, Rule().decide(model.classes, batch), Rule().problems(batch))
    with pytest.raises(UsageError, match=r"--evaluate verdict: no document has a label .* \(ham, spam\).*'Ham'"):
        evaluator.result()
    with pytest.raises(UsageError, match="its values are lists"):
        evaluator.add(batch, [["ham"]] * N, ["ham"] * N, batch.problem)


def test_what_an_operating_point_decides_is_counted_by_hand_and_told_apart_from_the_likeliest_class(
    model: Model,
) -> None:
    header = {**model.header, "operating_point": {"class": "spam", "low": 0.0, "high": 1.0, "aim": {"precision": 0.9}}}
    made = replace(model, header=header)
    batch = predicted(made, (0.5, 0.5, 0.5, 0.5))
    rows = [  # labelled, decided: 24 flagged with 18 right; of 36 found 18, handed on 2
        *[("spam", "spam")] * 18, *[("ham", "spam")] * 6, *[("spam", "undecided")] * 2, *[("spam", "ham")] * 16,
        *[("ham", "undecided")] * 2, *[("ham", "ham")] * 36,
    ]  # fmt: skip
    labels: list[Any] = [None] * N
    decisions = ["undecided"] * N
    for i, (label, decision) in enumerate(rows, start=1):  # the first document has no features
        labels[i], decisions[i] = label, decision
    evaluator = Evaluator(made, "label")
    evaluator.add(batch, labels, decisions, batch.problem)
    found = evaluator.result()
    point = found.operating_point
    assert point is not None and point["class"] == "spam"
    assert (point["precision"]["hits"], point["precision"]["documents"]) == (18, 24)
    assert (point["recall"]["value"], point["caught"]["value"]) == (18 / 36, 20 / 36)
    assert point["false_positive_rate"]["value"] == 6 / 44
    assert (point["undecided"]["hits"], point["undecided"]["documents"]) == (4, 80)
    assert found.decided == (76, pytest.approx((18 + 36) / 76))
    page = format_evaluation(found, "label")
    assert page.startswith("Scores of the likeliest class against 'label' on 80 documents (95% bootstrap intervals)")
    assert (  # Wilson by hand
        "Decisions by the operating point of 'spam' on the same 80 documents (Wilson's intervals)\n"
        "  flagged as spam: 24, of which 18 right: precision 0.750 [0.551, 0.880]\n"
        "  of 36 spam documents 18 found: recall 0.500 [0.345, 0.655]\n"
        "  undecided: 4; if people are right on these, recall 0.556 [0.396, 0.705]\n"
    ) in page


def test_one_document_has_no_interval_and_no_plural(model: Model) -> None:
    header = {**model.header, "operating_point": {"class": "spam", "low": 0.0, "high": 1.0}}
    made = replace(model, header=header)
    evaluator = Evaluator(made, "label")
    labels = [None, "spam", *[None] * (N - 2)]
    batch = predicted(made, (0.5, 0.5, 0.5, 0.5))
    evaluator.add(batch, labels, ["ham"] * N, batch.problem)
    found = evaluator.result()
    assert np.isnan([found.macro_f1.low, found.macro_f1.high]).all()
    page = format_evaluation(found, "label")
    assert "on 1 document (fewer than 30: no bootstrap intervals)" in page
    assert " to " not in page.split("Decisions")[0]
    assert (
        "flagged as spam: 0: its precision is not known\n  of 1 spam document 0 found: recall 0.000 [0.000, 0.793]"
        in page
    )


def test_errors_of_an_operating_point_cost_what_its_model_file_says(model: Model) -> None:
    point = {"class": "spam", "low": 0.0, "high": 1.0, "aim": {"cost": {"false_positive": 1.0, "false_negative": 20.0}}}
    made = replace(model, header={**model.header, "operating_point": point})
    evaluator = Evaluator(made, "label")
    labels, decisions = [None, "spam", "spam", "ham", "ham"], ["ham", "spam", "ham", "spam", "ham"]
    batch = predicted(made, (0.5, 0.5, 0.5, 0.5))
    evaluator.add(batch, [*labels, *[None] * (N - 5)], [*decisions, *["ham"] * (N - 5)], batch.problem)
    found = evaluator.result().operating_point
    assert found is not None and found["cost"] == (20 + 1) / 4


def test_what_people_decide_is_no_class_even_where_one_is_called_so(model: Model) -> None:
    made = replace(model, header={**model.header, "classes": ["favor", "undecided"]})
    batch = predicted(made, (0.5, 0.5, 0.5, 0.5))
    cut = np.arange(N) < 5
    batch = replace(batch, truncated=cut, problem=["failed", *[CUT] * 4, *[None] * (N - 5)])
    rule = Rule()
    evaluator = Evaluator(made, "label")
    evaluator.add(batch, ["undecided"] * N, rule.decide(made.classes, batch), rule.problems(batch))
    found = evaluator.result()
    right = float((batch.y_pred[5:] == 1).mean())
    assert found.decided == (N - 5, pytest.approx(right))


def test_every_document_left_out_is_counted_and_labels_are_kept_of_some(model: Model) -> None:
    batch = predicted(model, (0.5, 0.5, 0.5, 0.5))
    evaluator = Evaluator(model, "body")
    labels: list[Any] = [None, "", float("nan"), *["spam"] * 7, *["eggs"] * 3, *(f"text {n}" for n in range(N - 13))]
    for turn in range(4):
        texts = [f"{label} {turn}" if label and str(label).startswith("text") else label for label in labels]
        evaluator.add(batch, texts, Rule().decide(model.classes, batch), Rule().problems(batch))
    found = evaluator.result()
    assert (found.documents, found.unlabelled, found.without_features) == (28, 12, 0)
    assert found.unknown_documents == 4 * (N - 10) and found.unknown["eggs"] == 12 and len(found.unknown) == 10
    assert found.documents + found.unlabelled + found.unknown_documents == 4 * N
    assert len(evaluator._unknown) == KEPT
    page = format_evaluation(found, "body")
    assert f"left out: {4 * N - 28:,} (12 without label, 0 without features, labels that are no class: eggs, " in page
    assert ", ...)" in page


def test_what_is_no_label_is_what_it_is_in_a_study(model: Model) -> None:
    made = replace(model, header={**model.header, "classes": ["0", "1"]})
    evaluator = Evaluator(made, "label")
    batch = predicted(made, (0.5, 0.5, 0.5, 0.5))
    values = [*["1"] * (N - 3), "NaN", "", "none"]
    evaluator.add(batch, values, Rule().decide(made.classes, batch), Rule().problems(batch))
    found = evaluator.result()
    assert class_texts(["1", "NaN", ""], from_csv=True) == ["1", None, None]
    assert (found.unlabelled, found.unknown) == (2, {"none": 1})


def test_names_of_classes_columns_and_labels_cannot_move_the_cursor(model: Model) -> None:
    strange = "spam\x1b[2J"
    header = {**model.header, "classes": ["ham", strange], "saes": ["one\x1b[2J"]}
    trained = {**header["trained_on"], "d_sae": {"one\x1b[2J": 10}}
    made = replace(model, header={**header, "trained_on": trained})
    batch = predicted(made, (0.9, 0.9, 0.9, 0.9))
    evaluator = Evaluator(made, "label\x1b[2J")
    labels = [*["ham", strange] * 100, *["eggs\x1b[2J"] * (N - 200)]
    evaluator.add(batch, labels, Rule().decide(made.classes, batch), Rule().problems(batch))
    page = format_evaluation(evaluator.result(), "label\x1b[2J")
    assert "\x1b" not in page and page.count(r"\x1b[2J") >= 4
