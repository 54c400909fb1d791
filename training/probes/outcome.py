"""What comes of one method on one split: chosen hyper-parameter, validation scores, answers for the test rows.

It is what a study keeps of a fit (`training.evaluation.OutcomeCache`), and all that scores and comparisons see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SplitOutcome:
    """One method on one split.

    Attributes:
        value: Chosen hyper-parameter, None where the probe has none.
        validation: float64 [len(grid), folds], macro F1 of each value on each inner fold of `Split.folds`.
        y_pred: int64 [n_test], predicted classes of the test rows, in the order of `Split.test`.
        log_proba: float64 [n_test, classes], log-probabilities of the same rows (linear_svm: log-softmax of margins).
        iterations: Solver iterations of the final fit (tree: its depth).
        converged: Whether the final fit met its tolerance.
        top: int64 [<= TOP], columns of the matrix that weigh most, heaviest first; empty for kinds without features.
    """

    value: float | None
    validation: np.ndarray
    y_pred: np.ndarray
    log_proba: np.ndarray
    iterations: int
    converged: bool
    top: np.ndarray

    @property
    def validation_macro_f1(self) -> float:
        """Mean macro F1 of the chosen value over the inner folds."""
        return float(self.validation.mean(axis=1).max())
