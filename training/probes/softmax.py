"""The probe `softmax`: the linear probe of the paper's code, without penalty, stopped after 100 steps.

The paper's takes 100 steps of gradient descent down a class-weighted cross-entropy; here they are steps of L-BFGS.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.probes.folds import Folds
from training.probes.probe import FittedProbe, Probe, fit_quietly, linear

STEPS = 100


class Softmax(Probe):
    """Softmax regression without penalty or hyper-parameter, classes weighted to count alike."""

    name = "softmax"
    stops_on_purpose = True

    def estimator(self, value: float = 0.0) -> Any:  # noqa: ARG002  (there is nothing to choose)
        """`LogisticRegression` without penalty."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=np.inf, class_weight="balanced", max_iter=STEPS)

    def fit(self, folds: Folds, value: float = 0.0, n_jobs: int = 1) -> FittedProbe:  # noqa: ARG002
        """See `Probe.fit`."""
        model = self.estimator()
        converged = fit_quietly(model, folds)
        return linear(model.coef_, model.intercept_, "softmax", int(np.max(model.n_iter_)), converged)
