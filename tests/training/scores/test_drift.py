"""How large a shift so many documents show is what the test itself would say, and lists say how many they leave out."""

from __future__ import annotations

import numpy as np
import pytest

from training.scores.drift import Drift, Shifts, drift_lines, smallest_shift


@pytest.mark.parametrize("n", [1, 15, 40, 400])
def test_the_smallest_shift_is_the_first_count_that_the_test_calls_a_shift(n: int) -> None:
    before, trained, limit = np.array([0.0, 0.01, 0.1, 0.5, 0.93, 1.0]), 160, 4.26
    for share, found in zip(before, smallest_shift(before, n, trained, limit), strict=True):
        shown = []
        for k in range(n + 1):
            pooled = (share * trained + k) / (trained + n)
            spread = (pooled * (1 - pooled) * (1 / trained + 1 / n)) ** 0.5
            if spread and abs(k / n - share) / spread > limit:
                shown.append(abs(k / n - share))
        assert found == pytest.approx(min(shown, default=np.inf))


def test_of_a_hundred_documents_ten_points_show_at_a_half() -> None:
    # 1.96 standard errors of .05 are 9.8 points, and 60 of 100 is the first count beyond
    assert smallest_shift(np.array([0.5]), 100, 10**9, 1.96) == pytest.approx([0.1])


def test_a_list_says_of_how_many_it_shows_the_first_and_what_could_be_seen() -> None:
    moved = tuple(Drift("one", f, 0.1, 0.9, 9.0) for f in range(10))
    lines = drift_lines(Shifts(15, 2513, 229, 0.3849, moved))
    assert lines[0] == "drift: 229 of 2,513 used features fire in another share of documents; the first 10 of 229"
    assert lines[-1] == "  15 documents can show a shift from about 38 percentage points up (median over features)"
    assert "first" not in drift_lines(Shifts(15, 2513, 10, 0.3849, moved))[0]
    none = drift_lines(Shifts(1, 2513, 0, None, ()))
    assert none[-1] == "  1 document can show no shift in half of the features or more, however large"
