"""Where the truth is known, studies find it: chance for permuted labels at the rate that intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from tests.training.documents.test_split import data_of
from training.documents.split import make_splits
from training.methods.matrices import MethodMatrix
from training.methods.method import Method
from training.methods.tfidf import count_terms
from training.probes.fit import evaluate
from training.scores.bootstrap import bootstrap, interval
from training.scores.metrics import Prediction, auroc
from training.scores.significance import p_value
from training.spec import PROBES, SplitSpec

RUNS = 100
# Binomial: 100 runs at 95 % have a standard deviation of 2.2; three of them.
AT_LEAST = 88


def run_of(seed: int, name: str, kind: str = "sae") -> tuple[Prediction, int]:
    """One method on labels that say nothing: its answers for the test rows."""
    rng = np.random.default_rng([seed, 7])
    n, k = 200, 40
    y = rng.permutation(np.arange(n) % 2)
    X = rng.gamma(1.0, size=(n, k)) * (rng.random((n, k)) < 0.3)
    split = make_splits(data_of(y.tolist()), SplitSpec(seeds=1, folds=2, test=0.4))[0]
    if kind in ("tfidf", "char"):
        words = [f"{a}{b}" for a in "bdfgklmn" for b in ("an", "er", "io", "ut", "ol")]
        matrix = MethodMatrix(count_terms([" ".join(np.array(words)[row > 0]) or "nothing" for row in X], kind))
    else:
        matrix = MethodMatrix(X if kind == "dense" else csr_matrix(X))
    grid = {"logistic_l2": (0.1, 10.0), "logistic_l1": (0.1, 1.0), "tree": (3.0,), "k_sparse": (4.0, 16.0)}.get(name)
    found = evaluate(Method("m", kind, probe=name), matrix, y, 2, [split], grid=grid)[0]
    return Prediction(split.test, y[split.test], found.y_pred, found.log_proba), n


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((p, "sae") for p in PROBES), *(("logistic_l2", kind) for kind in ("dense", "tfidf", "char")), ("tree", "dense")],
)
def test_permuted_labels_give_chance_within_the_interval_at_its_nominal_rate(name: str, kind: str) -> None:
    covered = above = 0
    for seed in range(RUNS):
        answer, n = run_of(seed, name, kind)
        drawn = bootstrap([[answer]], 2, n, None, 300)[0]
        value = auroc(answer.y_true, answer.log_proba)[0]
        found = interval(value, drawn[2])
        # Labels are balanced by the split, so a row in training makes its class rarer in the test set: chance lies a
        # little below one half; half a standard error (.5 / sqrt(12 * 40) * ...) is far inside the interval.
        covered += found.low <= 0.5 <= found.high
        above += value > 0.5
    assert covered >= AT_LEAST
    assert 35 <= above <= 65  # three standard deviations of 100 fair coins are 15


@pytest.mark.slow
def test_two_methods_on_permuted_labels_differ_at_the_rate_of_chance() -> None:
    alarms = 0
    for seed in range(RUNS):
        one, n = run_of(seed, "logistic_l2")
        other, _ = run_of(seed, "k_sparse")
        drawn = bootstrap([[one], [other]], 2, n, None, 300)[:, 1]
        value = float((one.y_pred == one.y_true).mean() - (other.y_pred == other.y_true).mean())
        alarms += p_value(value, drawn[0] - drawn[1]) < 0.05
    assert alarms <= 12  # five expected, three standard deviations above
