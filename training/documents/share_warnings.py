"""Warn where test sets do not hold the shares that were asked for, because sampling units are too large for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.documents.labels import StudyData
from training.documents.placing import far_off
from training.documents.split import Split
from training.documents.too_few_units import quoted, units_called
from training.spec import SplitSpec

NAMED = 3  # classes that a warning lists before it counts the others


def share_warnings(data: StudyData, spec: SplitSpec, splits: Sequence[Split]) -> list[str]:
    """What somebody who reads the scores must know of the test sets: shares far off what was asked, and repeats.

    Args:
        data: The documents.
        spec: What was asked.
        splits: What was drawn.

    Returns:
        Sentences; none where the column of a given split decides.
    """
    if spec.column is not None:
        return []
    said, share = [], spec.test if spec.outer is None else 1 / spec.outer
    held = np.array([np.bincount(data.y[split.test], minlength=len(data.classes)) for split in splits])
    if off := _off(data, held, share):
        asked = f"split.test: {share:g}" if spec.outer is None else f"split.outer: {spec.outer}"
        more = f", and {len(off) - NAMED:,} more shares are off" if len(off) > NAMED else ""
        reason = ""
        if data.unit is not None:
            largest = int(np.bincount(data.unit).max())
            reason = f"; {units_called(data, 2)} stay whole, and the largest has {largest:,} documents"
        said.append(f"{asked} holds out {', '.join(off[:NAMED])}{more}{reason}")
    different = len({split.test.tobytes() for split in splits})
    if spec.outer is None and different < len(splits):
        said.append(
            f"of {len(splits)} seeds only {different} hold out different documents: {units_called(data, 2)} are too few"
        )
    return said


def _off(data: StudyData, held: np.ndarray, share: float) -> list[str]:
    """Which shares are far off: of all documents first, then of classes; `held` int64 [splits, C] is held out."""
    everywhere = np.bincount(data.y, minlength=len(data.classes))
    classes = [
        (held[:, c], everywhere[c], f"of class {quoted(data.classes[c])}")
        for c in np.flatnonzero(far_off(held, share * everywhere).any(axis=0))
    ]
    whole = (held.sum(axis=1), everywhere.sum(), "documents")
    found = [whole, *classes] if far_off(whole[0], share * whole[1]).any() else classes
    return [f"{_range(have)} of {n:,} {what} instead of {share * n:,.0f}" for have, n, what in found]


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
