"""Thresholds for a stated aim, chosen on out-of-fold scores, and what they are worth on documents held out from that.

A threshold is chosen among the cuts between out-of-fold scores of training documents (each scored by a model that was
fitted on the other folds): the one that finds most of the class among those that meet the aim. It is then fixed, and
its precision, recall and false-positive rate are measured on test documents, with intervals
(`training.scores.proportions`); no test label has any part in the choice. A second threshold hands a share of the
documents on to people, on the side on which the aim lets errors pass: below the first where the aim limits false
alarms, above it where it limits misses, and where errors have a cost, on the side that saves more.

An aim can be reached by chance where few documents show it. It counts as reached on few where the interval of the
out-of-fold share does not exclude twice the errors that the aim allows, or errors half-way to all where that is less
(for a precision of .9 that is .8, for one of .5 it is .25). The interval does not know that the threshold was chosen
on the same documents: it is the least doubt that there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featurestore.base.number_words import counted
from featurestore.errors import StudyError
from featurestore.models.thresholds import CLAIMED, REJECTED, UNDECIDED
from training.scores.proportions import Proportion, proportion

NO_ERROR = 0.01  # what must be excluded where an aim allows no error: no number of documents excludes all


@dataclass(frozen=True)
class Aim:
    """What a threshold is for.

    Attributes:
        kind: One of `training.spec.AIMS`.
        value: The precision or recall to reach, or the false-positive rate to stay below; NaN for cost.
        false_positive, false_negative: What one error of either kind costs, for kind "cost".
        undecided: Share of the documents to hand on.
    """

    kind: str
    value: float = float("nan")
    false_positive: float = 1.0
    false_negative: float = 1.0
    undecided: float = 0.0


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds on the log-odds of a class, and what they come to out of fold.

    Attributes:
        low, high: Scores of at least `high` are of the class, scores below `low` are not; between, people decide. Equal
            where nothing is handed on.
        reached: Whether the aim is met out of fold; if not, the thresholds are those that come nearest.
        out_of_fold: precision, recall, false_positive_rate and cost (a document; NaN for other aims) of the first
            threshold alone, documents that it claims and those of the class among them (hits), undecided (share),
            documents and positives, on the scores that chose it.
        note: What has to be said about it, in a sentence; "" if nothing.
        few: Why the aim was reached on too few documents to rely on it, in a sentence; "" if it was not.
    """

    low: float
    high: float
    reached: bool
    out_of_fold: Mapping[str, float]
    note: str = ""
    few: str = ""


@dataclass(frozen=True)
class Measured:
    """What fixed thresholds come to on documents that had no part in choosing them.

    Attributes:
        precision: Of the documents claimed for the class, those of it.
        recall: Of the documents of the class, those claimed.
        caught: Of the documents of the class, those claimed or handed on: recall, if people are right.
        false_positive_rate: Of the other documents, those claimed.
        undecided: Of all documents, those handed on.
        cost: A document, errors of people not counted; NaN where the aim is another.
    """

    precision: Proportion
    recall: Proportion
    caught: Proportion
    false_positive_rate: Proportion
    undecided: Proportion
    cost: float


@dataclass(frozen=True)
class _Curve:
    """Every cut between distinct scores, from the strictest: what lies at or above it (arrays [cuts])."""

    threshold: np.ndarray
    claimed: np.ndarray
    hits: np.ndarray
    n: int
    positives: int

    @property
    def precision(self) -> np.ndarray:
        return self.hits / self.claimed

    @property
    def recall(self) -> np.ndarray:
        return self.hits / self.positives

    @property
    def false_positive_rate(self) -> np.ndarray:
        return (self.claimed - self.hits) / (self.n - self.positives)

    def cost(self, aim: Aim) -> np.ndarray:
        """Of all documents together."""
        false = self.claimed - self.hits
        return aim.false_positive * false + aim.false_negative * (self.positives - self.hits)


def choose_point(
    score: np.ndarray, positive: np.ndarray, aim: Aim, name: str, unit: np.ndarray | None = None
) -> OperatingPoint:
    """Choose thresholds on out-of-fold scores.

    Args:
        score: float64 [n], log-odds of the class.
        positive: bool [n], whether a document is of the class.
        aim: What for.
        name: Of the class, for messages.
        unit: int64 [n], equal where documents are not independent; None if all are.

    Raises:
        StudyError: A score is no number, or the documents are all of the class or all not.
    """
    curve = _curve(score, positive, name)
    at, reached = _first(curve, aim)
    other = _second(curve, aim, at)
    notes = [] if reached else [_not_reached(curve, aim, at, name)]
    if aim.undecided and other == at:
        notes.append(f"no documents are handed on: ties, or too few documents, leave no share of {aim.undecided:g}")
    low, high = curve.threshold[max(at, other)], curve.threshold[min(at, other)]
    found = {
        "precision": float(curve.precision[at]),
        "recall": float(curve.recall[at]),
        "false_positive_rate": float(curve.false_positive_rate[at]),
        "cost": float(curve.cost(aim)[at]) / curve.n if aim.kind == "cost" else float("nan"),
        "claimed": float(curve.claimed[at]),
        "hits": float(curve.hits[at]),
        "undecided": abs(int(curve.claimed[at] - curve.claimed[other])) / curve.n,
        "documents": float(curve.n),
        "positives": float(curve.positives),
    }
    of = np.arange(curve.n) if unit is None else unit
    few = _few(score >= curve.threshold[at], positive, of, aim, name) if reached else ""
    return OperatingPoint(float(low), float(high), reached, found, "; ".join(notes), few)


def measure(side: np.ndarray, positive: np.ndarray, unit: np.ndarray, aim: Aim) -> Measured:
    """Measure fixed thresholds on test documents.

    Args:
        side: int64 [n], CLAIMED, UNDECIDED or REJECTED; documents of several seeds one after the other, each by the
            thresholds of its own split.
        positive: bool [n].
        unit: int64 [n], equal where documents are not independent.
        aim: For the costs.
    """
    claimed, handed = side == CLAIMED, side == UNDECIDED
    cost = float("nan")
    if aim.kind == "cost" and len(side):
        false, missed = (claimed & ~positive).sum(), ((side == REJECTED) & positive).sum()
        cost = float(aim.false_positive * false + aim.false_negative * missed) / len(side)
    return Measured(
        precision=proportion(positive[claimed], unit[claimed]),
        recall=proportion(claimed[positive], unit[positive]),
        caught=proportion((claimed | handed)[positive], unit[positive]),
        false_positive_rate=proportion(claimed[~positive], unit[~positive]),
        undecided=proportion(handed, unit),
        cost=cost,
    )


def _curve(score: np.ndarray, positive: np.ndarray, name: str) -> _Curve:
    n, positives = len(score), int(positive.sum())
    if np.isnan(score).any():
        raise StudyError(
            f"operating_point: {int(np.isnan(score).sum()):,} of {n:,} out-of-fold scores of '{name}' are no numbers; "
            "no threshold can be chosen, check the features of the study"
        )
    if positives in (0, n):
        what = "none" if not positives else "all"
        raise StudyError(
            f"operating_point: {what} of {n:,} training documents {'is' if n == 1 else 'are'} of class '{name}', and a "
            "threshold needs documents of the class and others; label more of them"
        )
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # ties are claimed together
    # Half-way to the next score: neither side of the cut is nearer to it than the other.
    threshold = ordered[last].astype(np.float64)
    threshold[:-1] = threshold[:-1] + (threshold[1:] - threshold[:-1]) / 2
    return _Curve(threshold, last + 1, np.cumsum(positive[order])[last], n, positives)


def _first(curve: _Curve, aim: Aim) -> tuple[int, bool]:
    """The cut that finds most among those that meet the aim, or comes nearest to it; and whether it meets it."""
    if aim.kind == "cost":
        cost = curve.cost(aim)
        return int(np.argmin(cost)), bool(cost.min() <= aim.false_negative * curve.positives)
    if aim.kind == "recall":
        return int(np.argmax(curve.recall >= aim.value)), True  # to claim everything finds everything
    rate, least = (curve.precision, aim.value) if aim.kind == "precision" else (-curve.false_positive_rate, -aim.value)
    finds = curve.hits > 0  # a threshold above all of the class meets any limit on false alarms, and is of no use
    meets = finds & (rate >= least)
    if meets.any():
        return int(np.lexsort((rate, np.where(meets, curve.hits, -1)))[-1]), True
    return int(np.lexsort((curve.hits, np.where(finds, rate, -np.inf)))[-1]), False


def _second(curve: _Curve, aim: Aim, at: int) -> int:
    """The cut up to which documents are handed on; the first one's own where none are."""
    most = int(aim.undecided * curve.n)
    below = int(np.searchsorted(curve.claimed, curve.claimed[at] + most, side="right")) - 1
    above = min(at, int(np.searchsorted(curve.claimed, curve.claimed[at] - most, side="left")))
    if aim.kind in ("precision", "false_positive_rate"):
        return below
    if aim.kind == "recall":
        return above
    missed = aim.false_negative * (curve.hits[below] - curve.hits[at])
    alarms = aim.false_positive * ((curve.claimed - curve.hits)[at] - (curve.claimed - curve.hits)[above])
    return below if missed >= alarms else above


def _few(claimed: np.ndarray, positive: np.ndarray, unit: np.ndarray, aim: Aim, name: str) -> str:
    """Why the documents that an aim was reached on are few; "" if they are not, or the aim is a cost."""
    if aim.kind == "cost":
        return ""
    if aim.kind == "precision":
        shown = proportion(positive[claimed], unit[claimed])
        where = f"{counted(shown.n, 'claimed document')}, {shown.hits:,} of {'it' if shown.n == 1 else 'them'} right"
    elif aim.kind == "recall":
        shown = proportion(claimed[positive], unit[positive])
        where = f"{counted(shown.n, 'document')} of the class, {shown.hits:,} claimed"
    else:
        shown = proportion(claimed[~positive], unit[~positive])
        where = f"{counted(shown.n, 'document')} of other classes, {shown.hits:,} claimed"
    rising = aim.kind == "false_positive_rate"
    allowed = aim.value if rising else 1 - aim.value
    most = min(2 * allowed, (1 + allowed) / 2) if allowed else NO_ERROR
    limit = most if rising else 1 - most
    if (shown.interval.high < limit) if rising else (shown.interval.low > limit):
        return ""
    half = "half-way to all of them" if rising else "half of the aim"
    than = "twice the errors that the aim allows" if 2 * allowed <= (1 + allowed) / 2 else half
    than = than if allowed else "and the aim allows no error"
    return (
        f"{_said(aim)} {aim.value:g} of '{name}' is reached out of fold on few documents ({where}): the interval "
        f"[{shown.interval.low:.3f}, {shown.interval.high:.3f}] does not exclude {limit:.3g}, {than}"
    )


def _said(aim: Aim) -> str:
    return aim.kind.replace("_", "-").replace("false-positive-rate", "false-positive rate")


def _not_reached(curve: _Curve, aim: Aim, at: int, name: str) -> str:
    if aim.kind == "cost":
        return (
            f"out of fold it would cost least to claim no document for '{name}'; the threshold is the cheapest that "
            "claims one"
        )
    value = (curve.precision if aim.kind == "precision" else curve.false_positive_rate)[at]
    return (
        f"{_said(aim)} {aim.value:g} of '{name}' is not reached out of fold by any threshold that finds a document; "
        f"the nearest is {value:.3g}, at recall {curve.recall[at]:.3g}, and its threshold is used"
    )
