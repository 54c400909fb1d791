"""Numbers as a page writes them."""

from __future__ import annotations

import pytest

from training.report.elements.figures import bounds, percent, score, signed, significant, ticks


def test_undefined_numbers_are_said() -> None:
    assert score(None) == score(float("nan")) == percent(None) == significant(float("inf")) == "n/a"
    assert bounds({"value": 0.5, "low": None, "high": None}) == ""


def test_a_share_is_none_or_all_only_where_it_is() -> None:
    assert [percent(x) for x in (0, 1e-5, 0.034, 0.5, 0.99999, 1)] == [
        "0%",
        "under 0.1%",
        "3.4%",
        "50%",
        "over 99.9%",
        "100%",
    ]


def test_a_minus_is_as_wide_as_a_plus() -> None:
    assert signed(-0.0213) == "−0.021"
    assert signed(0.5) == "+0.500"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.31, 0.34), (-0.2, 0.5), (12, 9000), (0.5, 0.5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
