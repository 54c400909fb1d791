"""Compute the interval of a score: draw the documents anew many times, and see between what the score then lies.

The draws are the same for every method, so that methods can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from training.scores.metrics import METRICS, Prediction, Ranking, rankings_of, weighted_auroc, weighted_f1_and_accuracy

LEVEL = 0.95  # coverage of every interval
BOOTSTRAP_SEED = 20_250_217  # fixed: an interval must not change on a rerun
CHUNK_WEIGHTS = 4_000_000  # bootstrap weights held at once: 32 MB of float64
TOO_FEW = 30  # independent units below which a percentile bootstrap is too narrow to be believed


@dataclass(frozen=True)
class Interval:
    """A value and its percentile interval; NaN where undefined."""

    value: float
    low: float
    high: float


def bootstrap(
    predictions: Sequence[Sequence[Prediction]], n_classes: int, n_documents: int, group: np.ndarray | None, n: int
) -> np.ndarray:
    """Replicates of every metric of every method, each averaged over seeds.

    A replicate draws documents (whole groups, if given) with replacement and applies that one draw to the test set of
    every seed and of every method. So a document held out by three seeds counts as one source of chance, not as three,
    and methods can be compared in pairs.

    Args:
        predictions: [methods][seeds].
        n_classes: Number of classes.
        n_documents: N; `Prediction.rows` lie below it.
        group: int64 [N], or None.
        n: Number of replicates B.

    Returns:
        float64 [methods, metrics, B], metrics in the order of METRICS; NaN where a replicate is undefined.
    """
    out = np.full((len(predictions), len(METRICS), n), np.nan)
    done = 0
    rankings = [
        [rankings_of(p.y_true, p.log_proba) for p in seeds] for seeds in predictions
    ]  # sorting is what draws have in common
    for weights in _draws(n_documents, group, n):
        here = slice(done, done + len(weights))
        done += len(weights)
        for m, seeds in enumerate(predictions):
            values = np.stack(
                [
                    _replicates(p, ranked, n_classes, weights[:, p.rows])
                    for p, ranked in zip(seeds, rankings[m], strict=True)
                ]
            )  # [seeds, metrics, b]
            defined = ~np.isnan(values)
            total = np.where(defined, values, 0.0).sum(axis=0)
            count = defined.sum(axis=0)
            out[m][:, here] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return out


def interval(value: float, replicates: np.ndarray) -> Interval:
    """Percentile interval at LEVEL from replicates [B], leaving undefined ones out."""
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value) or not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _draws(n_documents: int, group: np.ndarray | None, n: int) -> Iterator[np.ndarray]:
    """Bootstrap counts of every document, float64 [b, N], n rows in all."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    units = n_documents if group is None else int(group.max()) + 1
    size = max(1, CHUNK_WEIGHTS // n_documents)
    for start in range(0, n, size):
        b = min(size, n - start)
        counts = np.stack([np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(b)])
        yield (counts if group is None else counts[:, group]).astype(np.float64)


def _replicates(prediction: Prediction, rankings: Sequence[Ranking], n_classes: int, weights: np.ndarray) -> np.ndarray:
    """All metrics [metrics, b] for row weights [b, n]."""
    f1, right = weighted_f1_and_accuracy(prediction.y_true, prediction.y_pred, n_classes, weights)
    return np.stack([f1, right, weighted_auroc(rankings, weights)])
