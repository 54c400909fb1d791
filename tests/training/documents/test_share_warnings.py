"""Warnings of test sets that are not what was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.documents.test_split import data_of
from training.documents.share_warnings import share_warnings
from training.documents.split import make_splits
from training.spec import SplitSpec


def test_shares_that_units_keep_from_what_was_asked_are_said_with_the_reason() -> None:
    data = replace(data_of([i % 2 for i in range(160)]), text_cluster=np.maximum(np.arange(160) - 129, 0))
    spec = SplitSpec(seeds=1)
    splits = make_splits(data, spec)
    held = len(splits[0].test)
    (said,) = share_warnings(data, spec, splits)
    assert said.startswith(f"split.test: 0.2 holds out {held} of 160 documents instead of 32, ")
    assert "of class 'c0' instead of 16" in said
    assert said.endswith("; clusters of near-duplicate texts stay whole, and the largest has 130 documents")


def test_shares_of_outer_folds_are_those_asked_for() -> None:
    data = data_of([i % 2 for i in range(100)], [0] * 40 + list(range(1, 61)))
    spec = SplitSpec(seeds=1, folds=2, outer=5)
    (said,) = share_warnings(data, spec, make_splits(data, spec))
    assert said.startswith("split.outer: 5 holds out 15 to 40 of 100 documents instead of 20")
    assert said.endswith("; groups stay whole, and the largest has 40 documents")


def test_what_rounding_explains_is_no_warning() -> None:
    data = data_of([0] * 60 + [1] * 7)  # 1.4 of class 1 are asked for
    for spec in (SplitSpec(seeds=5), SplitSpec(seeds=2, outer=5)):
        assert share_warnings(data, spec, make_splits(data, spec)) == []


def test_seeds_that_cannot_differ_are_said() -> None:
    data = data_of([0] * 12 + [1] * 12, [0, *[1] * 4, *[2] * 7, 3, *[4] * 4, *[5] * 7])
    spec = SplitSpec(test=0.1, folds=2, seeds=3)
    said = share_warnings(data, spec, make_splits(data, spec))
    assert said[-1] == "of 3 seeds only 1 hold out different documents: groups are too few"


@pytest.mark.parametrize("outer", [2, 10])
def test_outer_folds_need_a_unit_of_each_class_each(outer: int) -> None:
    data = data_of([0] * 60 + [1] * 3)
    need = {2: 4, 10: 10}[outer]
    with pytest.raises(
        Exception, match=f"class 'c1' has 3 .*, but {outer} outer folds of 2 inner ones each need {need}"
    ):
        make_splits(data, SplitSpec(folds=2, outer=outer))
