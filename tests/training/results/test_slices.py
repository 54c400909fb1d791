"""Slices have the intervals of a bootstrap of their own, at the price of their own documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.documents.test_split import data_of
from training.documents.labels import StudyData
from training.documents.slices import Slices
from training.results import slices as module
from training.results.slices import summarise_slices
from training.scores.bootstrap import TOO_FEW, bootstrap, interval
from training.scores.metrics import METRICS, Prediction

N, RESAMPLES = 300, 200
SIZES = (150, 100, TOO_FEW, TOO_FEW - 1)
CODE = np.concatenate([np.repeat(np.arange(len(SIZES)), SIZES), [0] * (N - sum(SIZES))])[:N]


def data(groups: bool) -> StudyData:
    made = replace(data_of((np.arange(N) % 3).tolist()), slices={"lang": Slices(("a", "b", "c", "d"), CODE)})
    return replace(made, group=np.arange(N) // 2) if groups else made


def answers(seeds: int = 2) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    rng = np.random.default_rng(0)
    for method in ("one", "other"):
        for seed in range(seeds):
            rows = np.arange(N)[np.arange(N) % 5 != seed]
            log_proba = np.log(rng.dirichlet(np.ones(3), len(rows)))
            found.setdefault(method, []).append(Prediction(rows, rows % 3, log_proba.argmax(axis=1), log_proba))
    return found


@pytest.mark.parametrize("groups", [False, True])
def test_intervals_are_those_of_a_bootstrap_of_each_slice_alone(groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    of, given = data(groups), answers()
    found = summarise_slices(given, of, RESAMPLES, ())
    assert [(one.slice, one.method) for one in found] == [(s, m) for s in "abcd" for m in ("one", "other")]
    for one in found:
        mine = []
        for p in given[one.method]:
            here = CODE[p.rows] == "abcd".index(one.slice)
            mine.append(Prediction(p.rows[here], p.y_true[here], p.y_pred[here], p.log_proba[here]))
        (drawn,) = bootstrap([mine], 3, N, of.unit, RESAMPLES)
        for name, replicates in zip(METRICS, drawn, strict=True):
            got = getattr(one, name)
            if one.units >= TOO_FEW:
                assert got == interval(got.value, replicates)
            else:
                assert one.too_small and np.isnan([got.low, got.high]).all() and got.value > 0
    assert {one.slice for one in found if one.too_small} == ({"c", "d"} if groups else {"d"})
    monkeypatch.setattr(module, "REPLICATE_BYTES", 3 * 8 * RESAMPLES * len(METRICS))  # three at once
    assert repr(summarise_slices(given, of, RESAMPLES, ())) == repr(found)


def test_slices_share_their_draws_and_small_ones_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counted(predictions: list[list[Prediction]], *rest: int) -> np.ndarray:
        drawn.append(len(predictions))
        return bootstrap(predictions, *rest)

    monkeypatch.setattr(module, "bootstrap", counted)
    summarise_slices(answers(), data(groups=False), RESAMPLES, ())
    each = replace(data(groups=False), slices={"author": Slices(tuple(map(str, range(N))), np.arange(N))})
    summarise_slices(answers(), each, RESAMPLES, ())
    assert drawn == [6]
