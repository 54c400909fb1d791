"""Whether documents are like those that a model was trained on: features that fire in another share of them.

Feature by feature, the share of documents that it fires in is compared with that among the training documents
(two-sided z-test of two proportions, Bonferroni over the features that are used); no label is needed. Few documents can
only show large shifts, so how large is said too. What is kept of the documents is a row of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurestore.base.hostile_text import visible
from featurestore.base.number_words import counted
from featurestore.models.scoring import scaled

if TYPE_CHECKING:
    from featurestore.models.model import Model
    from featurestore.models.predict import Predicted

DRIFT_LEVEL = 0.05  # of a false alarm over all features together
SHOWN = 10  # features that moved most


@dataclass(frozen=True)
class Drift:
    """A used feature whose share of documents is not that of training.

    Attributes:
        sae, feature: Which.
        training, here: Share of the documents in which it fires.
        z: By how many standard errors they differ.
    """

    sae: str
    feature: int
    training: float
    here: float
    z: float


@dataclass(frozen=True)
class Shifts:
    """What is known of drift.

    Attributes:
        documents: That were looked at: those with features.
        tested: Features that are used.
        moved: How many of them fire in another share of documents.
        shows: The smallest shift of a share that so many documents show, median over these features; None where half of
            them could show none.
        features: Those that moved most, at most SHOWN.
    """

    documents: int
    tested: int
    moved: int
    shows: float | None
    features: tuple[Drift, ...]


class DriftMeter:
    """Counts in how many documents each feature fires, batch after batch."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._fires: np.ndarray | None = None
        self._seen = 0

    def add(self, batch: Predicted) -> None:
        """Some more documents; those without features do not count."""
        if self._model.header["kind"] == "dense" or batch.X is None:
            return
        there = batch.X[batch.y_pred >= 0]
        counts = np.asarray((scaled(self._model, there) != 0).sum(axis=0)).ravel()
        self._fires = counts if self._fires is None else self._fires + counts
        self._seen += there.shape[0]

    def result(self) -> Shifts | None:
        """The features that moved; None where features are not there, or shares in training are not known."""
        from scipy.special import ndtri

        before = self._model.tensors.get("document_frequency")
        trained = self._model.header["trained_on"].get("documents")
        if before is None or self._fires is None or not isinstance(trained, int) or not self._seen:
            return None
        names, sae, feature = self._model.places()
        used = self._model.used()
        tested = np.flatnonzero([f in used[names[s]] for s, f in zip(sae, feature, strict=True)])
        here = self._fires / self._seen
        z = _z(here, before, self._seen, trained)
        limit = -ndtri(DRIFT_LEVEL / max(1, len(tested)) / 2)
        moved = tested[np.abs(z[tested]) > limit]
        most = moved[np.lexsort((moved, -np.abs(z[moved])))][:SHOWN]
        found = [Drift(names[sae[k]], int(feature[k]), float(before[k]), float(here[k]), float(z[k])) for k in most]
        least = np.median(smallest_shift(before[tested], self._seen, trained, limit)) if len(tested) else np.inf
        shows = float(least) if np.isfinite(least) else None
        return Shifts(self._seen, len(tested), len(moved), shows, tuple(found))


def smallest_shift(before: np.ndarray, n: int, trained: int, limit: float) -> np.ndarray:
    """The smallest change of a share, up or down, that n documents show; infinite where they show none.

    Args:
        before: float64 [features], share in training.
        n: Documents here.
        trained: Documents of training.
        limit: Standard errors from which a shift counts.
    """
    return np.minimum(_rise(before, n, trained, limit), _rise(1 - before, n, trained, limit))


def _rise(before: np.ndarray, n: int, trained: int, limit: float) -> np.ndarray:
    """The smallest rise: by bisection over counts, as z rises with them."""
    low, high = np.ceil(before * n), np.full(len(before), n + 1.0)
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        seen = _z(middle / n, before, n, trained) > limit
        high, low = np.where(seen, middle, high), np.where(seen, low, middle)
    return np.where(high > n, np.inf, high / n - before)


def _z(here: np.ndarray, before: np.ndarray, n: int, trained: int) -> np.ndarray:
    pooled = (before * trained + here * n) / (trained + n)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled), 0) * (1 / trained + 1 / n))
    return np.divide(here - before, spread, out=np.zeros(len(here)), where=spread > 0)


def drift_lines(shifts: Shifts | None) -> list[str]:
    """What is known of drift, for people."""
    if shifts is None:
        return [
            "drift: not known, as the features of these documents or their shares in training are not kept;",
            "  of a directory of parts they never are: --out with an ending (day.parquet) measures it",
        ]
    first = f"; the first {SHOWN} of {shifts.moved:,}" if shifts.moved > len(shifts.features) else ""
    lines = [f"drift: {shifts.moved:,} of {shifts.tested:,} used features fire in another share of documents{first}"]
    lines += [
        f"  {visible(d.sae)}:{d.feature}  {d.here:.1%} of these documents, {d.training:.1%} of the training documents"
        for d in shifts.features
    ]
    few = f"  {counted(shifts.documents, 'document')} can show "
    if shifts.shows is None:
        return [*lines, f"{few}no shift in half of the features or more, however large"]
    return [*lines, f"{few}a shift from about {100 * shifts.shows:.2g} percentage points up (median over features)"]
