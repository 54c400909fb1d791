"""The interval of recall at a fixed threshold contains the true one as often as it says."""

from __future__ import annotations

import pytest

from benchmarks.operating_points import DESIGNS, RECALLS, coverage


@pytest.mark.slow
@pytest.mark.parametrize("recall", RECALLS)
@pytest.mark.parametrize("design", DESIGNS)
def test_of_400_simulated_data_sets_92_to_98_percent_of_the_intervals_contain_the_true_recall(
    recall: float, design: str
) -> None:
    assert 0.92 <= coverage(400, recall, design)["coverage"] <= 0.98


def test_the_simulation_aims_where_it_says() -> None:
    found = coverage(20, 0.8, "grouped")
    assert found["true_recall"] == pytest.approx(0.8, abs=0.03)
    assert 0.05 < found["width"] < 0.3
