"""What STUDY.yaml may name is what there is."""

from __future__ import annotations

import numpy as np
import pytest

from training.probes.catalogue import PROBES, grid_of, parameter_of
from training.probes.folds import one_fold
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
