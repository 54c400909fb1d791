"""The probe `linear_svm`: scikit-learn's linear support vector machine, whose margins are no probabilities.

Its scores are the log-softmax of margins: they rank documents, and calibration means nothing for them.
"""

from __future__ import annotations

from typing import Any

from training.probes.folds import Folds
from training.probes.probe import C_GRID, FittedProbe, Probe, fit_quietly, linear

ITERATIONS = 5000  # of liblinear; scikit-learn's 1000 stop some fits at C = 10


class LinearSvm(Probe):
    """Linear SVM; of more than two classes, one against the others."""

    name = "linear_svm"
    parameter = "C"
    # Its loss counts only rows near the boundary: fits at C >= 10 take minutes and gain none.
    grid = C_GRID[1:6]
    has_probabilities = False

    def estimator(self, value: float) -> Any:
        """`LinearSVC`."""
        from sklearn.svm import LinearSVC

        return LinearSVC(C=value, max_iter=ITERATIONS, random_state=0)

    def fit(self, folds: Folds, value: float, n_jobs: int = 1) -> FittedProbe:  # noqa: ARG002
        """See `Probe.fit`."""
        model = self.estimator(value)
        converged = fit_quietly(model, folds)
        return linear(model.coef_, model.intercept_, "margin", int(model.n_iter_), converged)
