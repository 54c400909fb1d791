"""Shares of documents (precision, recall, false-positive rate at a fixed threshold) with intervals.

Independent documents get Wilson's interval (1927), which at shares near 1 covers what it promises where the textbook's
does not. Documents that come in groups, in clusters of near-duplicates, or several times (held out by several seeds)
say less than their number: Wilson's interval is then that of the effective number, n divided by the design effect of
the linearised variance between units, with Student's quantile for their number (Korn and Graubard 1998; Dean and Pagano
2015). `benchmarks.operating_points` measures the coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.scores.bootstrap import LEVEL, Interval
from training.scores.wilson import wilson

# Units that hold the rarer outcome (misses, at a recall of .98) below which their spread cannot tell the design effect
# and it moves towards its largest possible value. Simulated at recalls of .8 and .98, 40 to 200 units of 3 or 6
# documents and any correlation within them: with 1 the coverage falls to 87 %, with 10 it rises to 99 %.
FEW = 6


@dataclass(frozen=True)
class Proportion:
    """A share of documents; `interval` holds it with its bounds, NaN where there is no document.

    Attributes:
        interval: The share and its bounds at `training.scores.bootstrap.LEVEL`.
        hits, n: Documents that count and documents in all, those of several seeds added up.
        units: Independent units among the latter.
        method: "Wilson", "Wilson, clustered", or "none" without documents.
    """

    interval: Interval
    hits: int
    n: int
    units: int
    method: str


def proportion(hit: np.ndarray, unit: np.ndarray) -> Proportion:
    """The share of documents that are hits, with its interval.

    Args:
        hit: bool [n], one for each document.
        unit: int64 [n], equal where documents are not independent: the same document, group or near-duplicates.
    """
    n, hits = len(hit), int(np.sum(hit))
    if not n:
        return Proportion(Interval(float("nan"), float("nan"), float("nan")), 0, 0, 0, "none")
    of = np.unique(unit, return_inverse=True)[1]
    size, inside = np.bincount(of), np.bincount(of, np.asarray(hit, dtype=np.float64))
    if len(size) == n:
        low, high = wilson(hits, n)
        return Proportion(Interval(hits / n, low, high), hits, n, n, "Wilson")
    effective = n / _design_effect(size, inside)
    low, high = wilson(hits / n * effective, effective, _student(len(size) - 1))
    return Proportion(Interval(hits / n, low, high), hits, n, len(size), "Wilson, clustered")


def _design_effect(size: np.ndarray, hits: np.ndarray) -> float:
    """How many times larger the variance of the share is than that of as many independent documents; at least 1."""
    n, units = float(size.sum()), len(size)
    share = hits.sum() / n
    largest = float((size.astype(np.float64) ** 2).sum() / n)  # when all documents of a unit are alike (Kish 1965)
    rarer = min(int((hits > 0).sum()), int((hits < size).sum()))
    if not rarer or units == 1:
        return largest
    variance = units / (units - 1) * float(((hits - share * size) ** 2).sum()) / n**2
    seen = max(1.0, variance * n / (share * (1 - share)))
    trust = min(1.0, rarer / FEW)
    return max(seen, trust * seen + (1 - trust) * largest)


def _student(freedom: int) -> float:
    """Student's quantile; of a single unit nothing can be said, which one degree of freedom comes close to."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1, freedom), (1 + LEVEL) / 2))
