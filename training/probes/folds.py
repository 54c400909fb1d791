"""The rows that a probe is fitted on and scored on: folds of one matrix, each with its own scale of the columns.

A fold stands for a problem, not for a copy: its rows have weight in its fit, all others have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.solvers.l1_path import ByColumn, by_column


@dataclass(frozen=True)
class Labelled:
    """A matrix and the classes of its rows.

    Attributes:
        X: CSR or dense [N, K].
        y: int64 [N], class indices.
        n_classes: How many classes there are; of each there are rows in every fold.
        columns: X by columns, where a probe reads it so and folds share it; else None.
    """

    X: Any
    y: np.ndarray
    n_classes: int
    columns: ByColumn | None = None

    def by_column(self) -> ByColumn:
        """X by columns, made now if nobody has made it."""
        return by_column(self.X) if self.columns is None else self.columns


@dataclass(frozen=True)
class Folds:
    """Folds of one matrix.

    Attributes:
        of: The matrix.
        fit: For each fold, the rows fitted (int64).
        validate: For each fold, the rows scored (int64).
        scale: float64 [K, folds], what each fold divides columns by; infinite for a column that it drops.
        shift: float64 [K, folds], what it subtracts before, or None.
        weights: float64 [N, folds], how much a row counts in a fit; None for 1 everywhere.
    """

    of: Labelled
    fit: Sequence[np.ndarray]
    validate: Sequence[np.ndarray]
    scale: np.ndarray
    shift: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return self.of.n_classes

    def scaled(self, p: int, rows: np.ndarray) -> Any:
        """Rows of fold p as its probe sees them, in float64; not to be changed in place."""
        from scipy.sparse import issparse

        scale = self.scale[:, p]
        if self.shift is None and (scale == 1.0).all():  # prepared already: nothing is copied that need not be
            X = self.of.X if np.array_equal(rows, np.arange(len(self.of.y))) else self.of.X[rows]
            return X.astype(np.float64, copy=False)
        kept = np.flatnonzero(np.isfinite(scale))
        X = self.of.X[rows] if len(kept) == len(scale) else self.of.X[rows][:, kept]
        if not issparse(X):
            shift = 0.0 if self.shift is None else self.shift[kept, p]
            return (X - shift) / scale[kept]
        X.data = X.data.astype(np.float64) / scale[kept][X.indices]
        return X

    def weights_of(self, p: int, rows: np.ndarray) -> np.ndarray | None:
        """How much rows of fold p count in its fit."""
        return None if self.weights is None else self.weights[rows, p]


def balanced(y: np.ndarray, fit: Sequence[np.ndarray], n_classes: int) -> np.ndarray:
    """Weights with which every class counts alike in each fold's fit, as scikit-learn's "balanced"; float64 [N, folds].

    Args:
        y: int64 [N], class indices.
        fit: For each fold, the rows fitted; those of others weigh 0.
        n_classes: How many classes there are.
    """
    weights = np.zeros((len(y), len(fit)))
    for p, rows in enumerate(fit):
        counts = np.bincount(y[rows], minlength=n_classes)
        weights[rows, p] = len(rows) / (n_classes * np.maximum(counts, 1))[y[rows]]
    return weights


def one_fold(X: Any, y: np.ndarray, n_classes: int, weights: np.ndarray | None = None) -> Folds:
    """A matrix that is prepared already, all of whose rows are fitted: CSR or dense float64 [n, K]."""
    everything = np.arange(X.shape[0])
    of_rows = None if weights is None else weights[:, None]
    ones = np.ones((X.shape[1], 1))
    return Folds(Labelled(X, y, n_classes), [everything], [everything[:0]], ones, weights=of_rows)
