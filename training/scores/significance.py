"""Test differences between methods: a paired test for each comparison, p-values corrected for their number (Holm).

A comparison is between two families of methods, each represented in every split by the member that validation chose.
The two are scored on the same test documents; `training.scores.bootstrap` draws documents (whole groups)
for both at once, so its spread is that of the paired difference. The p-value is that of a normal with that standard
error; over all comparisons of a study, p-values are corrected by Holm's step-down method, which holds whatever their
dependence. The interval of a difference is widened by the same factor, so that it leaves out 0 exactly where a
difference is shown: one rule, whether the interval is read or the p-value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.scores.bootstrap import Interval

ALPHA = 0.05  # of all comparisons of a study together


@dataclass(frozen=True)
class Comparison:
    """Two families of methods compared by macro F1.

    Attributes:
        question: What the comparison answers.
        a, b: The families' names; the difference is a - b.
        difference: With its interval, which is corrected as `p_adjusted` is.
        p: Of no difference; NaN where the interval is undefined.
        spread: Standard error of the difference.
        p_adjusted: Corrected for all comparisons of the study.
        a_macro_f1, b_macro_f1: What the difference is of, each with the member that validation chose in each split.
    """

    question: str
    a: str
    b: str
    difference: Interval
    p: float
    spread: float
    p_adjusted: float = float("nan")
    a_macro_f1: float = float("nan")
    b_macro_f1: float = float("nan")

    @property
    def shown(self) -> bool:
        """Whether a difference is shown at ALPHA."""
        return self.p_adjusted < ALPHA


def compare(question: str, a: str, b: str, value: float, replicates: np.ndarray) -> Comparison:
    """Test a paired difference from its bootstrap replicates [B]; as if it were the only one, until `corrected`."""
    spread, p = _spread(replicates), p_value(value, replicates)
    return Comparison(question, a, b, _interval(value, spread, 1.0), p, spread, p)


def p_value(value: float, replicates: np.ndarray) -> float:
    """Two-sided p of no difference; 1 where both families predict the same."""
    from scipy.special import ndtr

    spread = _spread(replicates)
    if np.isnan(value) or np.isnan(spread):
        return float("nan")
    if spread == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * ndtr(-abs(value) / spread))


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with `p_adjusted` and their intervals corrected for their number."""
    found = []
    for c, p in zip(comparisons, holm([c.p for c in comparisons]), strict=True):
        factor = p / c.p if c.p > 0 else float(len(comparisons))  # what Holm's method multiplied p by
        found.append(replace(c, p_adjusted=p, difference=_interval(c.difference.value, c.spread, factor)))
    return tuple(found)


def _spread(replicates: np.ndarray) -> float:
    """Their standard deviation, NaN for fewer than two that are defined."""
    defined = replicates[~np.isnan(replicates)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")


def _interval(value: float, spread: float, factor: float) -> Interval:
    """Of a normal, at the level that is left when p is multiplied by `factor`."""
    from scipy.special import ndtri

    half = -float(ndtri(ALPHA / (2 * factor))) * spread
    return Interval(value, value - half, value + half)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values; NaN stays NaN and does not count (Holm 1979)."""
    defined = [i for i, value in enumerate(p) if not np.isnan(value)]
    out, largest = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(sorted(defined, key=lambda i: (p[i], i))):
        largest = max(largest, min(1.0, (len(defined) - rank) * p[i]))
        out[i] = largest
    return out
