"""What the report draws of how a classifier decides is what the scores beside it say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from training.report.behaviour import precision_recall
from training.scores.metrics import class_scores


def test_documents_that_a_tree_rules_out_stay_in_its_curve() -> None:
    rng = np.random.default_rng(0)
    share = rng.choice([0.0, 0.0, 0.25, 0.5, 1.0], 200)  # leaves, most of them sure
    positive = rng.random(200) < 0.2 + share / 2
    with np.errstate(divide="ignore"):
        value = np.log(share)
        both = np.column_stack([np.log(1 - share), value])
    precision, recall, average = precision_recall(positive, value)
    theirs, reached, _ = precision_recall_curve(positive, share)
    assert recall[-1] == 1.0 and precision[-1] == pytest.approx(positive.mean())
    assert precision == pytest.approx(theirs[-2::-1]) and recall == pytest.approx(reached[-2::-1])
    assert average == pytest.approx(average_precision_score(positive, share))
    assert average == pytest.approx(class_scores(positive.astype(int), (share > 0.5).astype(int), both)[1].auprc)


def test_documents_without_a_score_are_in_no_curve() -> None:
    positive, value = np.array([True, False, True]), np.array([-1.0, -2.0, np.nan])
    assert [part.tolist() for part in precision_recall(positive, value)[:2]] == [[1.0, 0.5], [1.0, 1.0]]
