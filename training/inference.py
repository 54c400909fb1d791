"""Which differences are more than chance: a paired test for each comparison, corrected for how many were made.

A comparison is between two families of methods, each represented in every split by the member that validation chose.
The two are scored on the same test documents; the bootstrap of `training.metrics` draws documents (whole groups)
for both at once, so its spread is that of the paired difference. The p-value is that of a normal with that standard
error; over all comparisons of a study, p-values are corrected by Holm's step-down method, which holds whatever their
dependence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.metrics import Interval, interval

ALPHA = 0.05  # of all comparisons of a study together


@dataclass(frozen=True)
class Comparison:
    """Two families of methods compared by macro F1.

    Attributes:
        question: What the comparison answers.
        a, b: The families' names; the difference is a - b.
        difference: With its interval (not corrected).
        p: Of no difference; NaN where the interval is undefined.
        p_adjusted: Corrected for all comparisons of the study.
    """

    question: str
    a: str
    b: str
    difference: Interval
    p: float
    p_adjusted: float = float("nan")

    @property
    def shown(self) -> bool:
        """Whether a difference is shown at ALPHA."""
        return self.p_adjusted < ALPHA


def compare(question: str, a: str, b: str, value: float, replicates: np.ndarray) -> Comparison:
    """Test a paired difference from its bootstrap replicates [B]."""
    return Comparison(question, a, b, interval(value, replicates), p_value(value, replicates))


def p_value(value: float, replicates: np.ndarray) -> float:
    """Two-sided p of no difference; 1 where both families predict the same."""
    from scipy.special import ndtr

    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value) or len(defined) < 2:
        return float("nan")
    spread = float(defined.std(ddof=1))
    if spread == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * ndtr(-abs(value) / spread))


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with `p_adjusted` set."""
    adjusted = holm([c.p for c in comparisons])
    return tuple(replace(c, p_adjusted=p) for c, p in zip(comparisons, adjusted, strict=True))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values; NaN stays NaN and does not count (Holm 1979)."""
    defined = [i for i, value in enumerate(p) if not np.isnan(value)]
    out, largest = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(sorted(defined, key=lambda i: (p[i], i))):
        largest = max(largest, min(1.0, (len(defined) - rank) * p[i]))
        out[i] = largest
    return out
