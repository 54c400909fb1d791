"""What STUDY.yaml may name is what there is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.probes.catalogue import PROBES, grid_of, parameter_of
from training.probes.folds import Folds, Labelled, one_fold
from training.spec import PROBES as NAMES


def test_a_study_may_name_each_probe() -> None:
    assert set(PROBES) == set(NAMES)
    assert (grid_of(None), parameter_of(None)) == ((0.0,), None)


# To softmax, whose weights are balanced, repeated rows are a larger share of all, and weighted ones are not.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "softmax"])
def test_a_row_of_weight_three_is_three_rows(name: str) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.gamma(1.0, size=(90, 6)) + 2 * np.eye(6)[y]
    times = 1 + 2 * (y == 1)  # whole classes, as class weights are
    repeated = np.repeat(np.arange(90), times)
    probe = PROBES[name]
    value = {"C": 1.0, "max_depth": 3.0, "k": 4.0}.get(probe.parameter or "", 0.0)
    weighted = probe.fit(one_fold(X, y, 3, times.astype(float)), value)
    whole = probe.fit(one_fold(X[repeated], y[repeated], 3), value)
    assert weighted.log_proba(X) == pytest.approx(whole.log_proba(X), abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_search_does_not_depend_on_where_in_the_matrix_a_folds_rows_lie(name: str) -> None:
    """Binarised features are divided by one, so that nothing has to be scaled, and rows come in a fold's own order."""
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    X = csr_matrix((rng.random((120, 30)) < np.where(y[:, None] == 1, 0.6, 0.3)).astype(np.float64))
    rows = rng.permutation(120)
    fit, validate = rows[:90], rows[90:]
    probe, ones = PROBES[name], np.ones((30, 1))
    there = probe.search(Folds(Labelled(X, y, 2), [fit], [validate], ones), probe.grid)[0]
    alone = Folds(Labelled(X[rows], y[rows], 2), [np.arange(90)], [np.arange(90, 120)], ones)
    assert (there == probe.search(alone, probe.grid)[0]).mean() > 0.98
