"""The probes as plain scikit-learn estimators, so that anyone can repeat a final model in one line; and their scores.

logistic_l2   C           softmax over classes
logistic_l1   C           one class against the others
tree          max_depth   3 to 9, as in the paper
k_sparse      k           the k largest class-mean differences, then logistic L2 at C = 1 (after sae-probes)
linear_svm    C           one class against the others; its scores rank and are no probabilities
softmax       -           the reference code's linear probe: class-weighted cross-entropy without penalty, stopped
                          after 100 steps (of L-BFGS here, of gradient descent there)
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from featurestore.models.links import log_proba, log_proba_ovr
from training.methods.transformers import SelectTop
from training.solvers.l1_path import l1_probe

# From "the classes' shares and little else" to "as good as unregularised" for features scaled to about [0, 1]; a
# factor of ten a step is finer than what validation on a few hundred documents can tell apart.
C_GRID = tuple(float(c) for c in 10.0 ** np.linspace(-4, 3, 8))
GRIDS: dict[str | None, tuple[float, ...]] = {
    "logistic_l2": C_GRID,
    "logistic_l1": C_GRID[2:7],  # below 0.01 no feature is left, above 100 L1 does nothing that costs little
    "tree": tuple(float(depth) for depth in range(3, 10)),
    "k_sparse": (1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0),
    "linear_svm": C_GRID[
        1:6
    ],  # its loss counts only rows near the boundary: fits at C >= 10 take minutes and gain none
    "softmax": (0.0,),
    None: (0.0,),
}
PARAMETER = {
    "logistic_l2": "C",
    "logistic_l1": "C",
    "tree": "max_depth",
    "k_sparse": "k",
    "linear_svm": "C",
}
# The largest entry of the gradient at which final L2 fits stop, see `l2_tolerance`: scikit-learn's default of 1e-4
# leaves C >= 10 far from the optimum (one label in ten differs).
FINAL_TOLERANCE = 1e-6
MAX_ITERATIONS = 2000  # the hardest fits measured take about 100
SVM_ITERATIONS = 5000  # of liblinear; scikit-learn's 1000 stop some fits at C = 10
SOFTMAX_STEPS = 100


def probe(value: float | None, name: str = "logistic_l2", n_classes: int = 2) -> Any:
    """The unfitted scikit-learn classifier; `probe(C).fit(X_scaled, y)` is the final model of a logistic_l2 method."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    if name == "tree":
        assert value is not None
        return DecisionTreeClassifier(max_depth=int(value), random_state=0)
    if name == "softmax":
        return LogisticRegression(C=np.inf, class_weight="balanced", max_iter=SOFTMAX_STEPS)
    assert value is not None
    if name == "logistic_l1":
        return l1_probe(value) if n_classes == 2 else OneVsRestClassifier(l1_probe(value))
    if name == "k_sparse":
        return make_pipeline(SelectTop(int(value)), probe(1.0))
    if name == "linear_svm":
        return LinearSVC(C=value, max_iter=SVM_ITERATIONS, random_state=0)
    return LogisticRegression(
        C=value, solver="lbfgs", tol=l2_tolerance(FINAL_TOLERANCE, value), max_iter=MAX_ITERATIONS
    )


def l2_tolerance(base: float, C: float) -> float:
    """What an L2 fit at C stops at: small C leave small weights, which a fixed tolerance would drown."""
    return base * min(1.0, C**0.5)


def scores_of(model: Any, X: Any) -> np.ndarray:
    """Log-probabilities [n, classes] of any fitted probe; from the decision function where there is one, for they do
    not round to 1 and tie far from the boundary."""
    from sklearn.multiclass import OneVsRestClassifier

    if isinstance(model, OneVsRestClassifier):
        return log_proba_ovr(np.asarray(model.decision_function(X)))
    if hasattr(model, "decision_function"):
        return log_proba(np.asarray(model.decision_function(X)))
    with np.errstate(divide="ignore"):
        return np.log(model.predict_proba(X))


def importance(model: Any, n_columns: int) -> np.ndarray:
    """How much a fitted probe goes by each of its columns: largest |coefficient|, or a tree's impurity decrease."""
    from sklearn.multiclass import OneVsRestClassifier

    if hasattr(model, "steps"):  # k_sparse
        out = np.zeros(n_columns)
        out[model.steps[0][1].get_support()] = importance(model.steps[1][1], 0)
        return out
    if isinstance(model, OneVsRestClassifier):
        return np.asarray(np.abs(np.vstack([m.coef_ for m in model.estimators_])).max(axis=0))
    if hasattr(model, "feature_importances_"):
        return np.asarray(model.feature_importances_)
    return np.asarray(np.abs(model.coef_).max(axis=0))


def as_pipeline(prepare: Any) -> Any:
    """A single transformer as a pipeline of one step."""
    from sklearn.pipeline import Pipeline

    return prepare if isinstance(prepare, Pipeline) else Pipeline([("scale", prepare)])


def fit_quietly(model: Any, X: Any, y: np.ndarray) -> bool:
    """Fit and say whether the solver converged; the caller reports it, so its warning is not printed."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    steps = model.steps[-1][1] if hasattr(model, "steps") else model
    parts = getattr(steps, "estimators_", [steps])
    return all(int(np.max(getattr(part, "n_iter_", 0))) < getattr(part, "max_iter", np.inf) for part in parts)
