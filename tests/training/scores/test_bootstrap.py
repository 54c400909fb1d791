"""Intervals against an independent bootstrap and against their promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tests.training.scores.test_metrics import draw
from training.scores.bootstrap import bootstrap, interval
from training.scores.metrics import Prediction


def test_replicates_equal_scikit_learn_on_the_same_draws() -> None:
    """Recompute replicates the slow way: draw the very documents, repeat rows, call scikit-learn."""
    n_documents, seeds = 90, (np.arange(0, 60), np.arange(30, 90))
    predictions = []
    for rows in seeds:
        p = draw(len(rows), 2, int(rows[0]))
        predictions.append(Prediction(rows, p.y_true, p.y_pred, p.log_proba))
    ours = bootstrap([predictions], 2, n_documents, None, 100)[0]
    from training.scores.bootstrap import BOOTSTRAP_SEED

    rng = np.random.default_rng(BOOTSTRAP_SEED)
    for b in range(20):
        drawn = np.bincount(rng.integers(0, n_documents, n_documents), minlength=n_documents)
        expected = []
        for p in predictions:
            again = np.repeat(np.arange(len(p.rows)), drawn[p.rows])
            y, y_pred, score = p.y_true[again], p.y_pred[again], p.log_proba[again, 1]
            expected.append((f1_score(y, y_pred, average="macro"), accuracy_score(y, y_pred), roc_auc_score(y, score)))
        assert ours[:, b] == pytest.approx(np.mean(expected, axis=0))


def test_a_group_is_drawn_as_a_whole() -> None:
    """Twenty copies of each of six documents carry the information of six: the interval must be as wide."""
    right = np.array([1, 1, 1, 1, 0, 0])
    single = Prediction(np.arange(6), np.ones(6, int), right, np.zeros((6, 2)))
    copies = Prediction(np.arange(120), np.ones(120, int), np.repeat(right, 20), np.zeros((120, 2)))
    alone = bootstrap([[single]], 2, 6, None, 2000)[0, 1]
    grouped = bootstrap([[copies]], 2, 120, np.repeat(np.arange(6), 20), 2000)[0, 1]
    naive = bootstrap([[copies]], 2, 120, None, 2000)[0, 1]
    assert grouped.std() == pytest.approx(alone.std(), rel=0.05)
    assert naive.std() < 0.5 * grouped.std()


def test_a_document_held_out_by_every_seed_is_one_document_and_not_five() -> None:
    p = draw(80, 2, 1)
    once = bootstrap([[p]], 2, 80, None, 500)
    five = bootstrap([[p] * 5], 2, 80, None, 500)
    assert np.allclose(once, five)


def test_intervals_of_true_accuracy_cover_it_at_about_their_rate() -> None:
    rng, covered, truth = np.random.default_rng(0), 0, 0.8
    for _ in range(200):
        right = (rng.random(150) < truth).astype(int)
        p = Prediction(np.arange(150), np.ones(150, int), right, np.zeros((150, 2)))
        found = interval(float(right.mean()), bootstrap([[p]], 2, 150, None, 200)[0, 1])
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / 200 <= 0.985  # 95 % less the percentile method's small-sample loss, three sigma


def test_draws_do_not_depend_on_the_methods_or_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = draw(40, 2, 1), draw(40, 2, 2)
    alone = bootstrap([[p]], 2, 40, None, 120)
    monkeypatch.setattr("training.scores.bootstrap.CHUNK_WEIGHTS", 40 * 7)
    assert (bootstrap([[q], [p]], 2, 40, None, 120)[1] == alone[0]).all()


def test_an_undefined_value_has_no_interval() -> None:
    found = interval(float("nan"), np.array([0.1, 0.2]))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
