"""The probe `tree`: a decision tree of scikit-learn's, its depth chosen from 3 to 9 as in the paper.

The search fits the deepest tree of a fold once and cuts it at each depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.probes.folds import Folds, one_fold
from training.probes.probe import FittedProbe, Probe, fit_quietly


class Tree(Probe):
    """Decision tree (CART, Gini impurity)."""

    name = "tree"
    parameter = "max_depth"
    grid = tuple(float(depth) for depth in range(3, 10))

    def estimator(self, value: float) -> Any:
        """`DecisionTreeClassifier` of that depth."""
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(max_depth=int(value), random_state=0)

    def fit(self, folds: Folds, value: float, n_jobs: int = 1) -> FittedProbe:  # noqa: ARG002
        """See `Probe.fit`."""
        model = self.estimator(value)
        converged = fit_quietly(model, folds)
        tree = model.tree_
        tensors = {
            "left": tree.children_left.astype(np.int64),
            "right": tree.children_right.astype(np.int64),
            "feature": tree.feature.astype(np.int64),
            "threshold": tree.threshold.astype(np.float64),
            "value": np.asarray(tree.value[:, 0, :]),  # shares of the classes
        }
        return FittedProbe("tree", tensors, model.feature_importances_, model.get_depth(), converged)

    def search(self, folds: Folds, grid: Sequence[float], n_jobs: int = 1) -> list[np.ndarray]:  # noqa: ARG002
        """The deepest tree is fitted and cut at each depth: trees of less depth begin with the same splits.

        Except for the choice among splits that are equally good, which scikit-learn draws in the order of its nodes.
        """
        answers = []
        for p, (fit, validate) in enumerate(zip(folds.fit, folds.validate, strict=True)):
            here = one_fold(folds.scaled(p, fit), folds.of.y[fit], folds.n_classes, folds.weights_of(p, fit))
            tree = self.fit(here, max(grid)).tensors
            majority = np.argmax(tree["value"], axis=1)
            used, place = np.unique(np.maximum(tree["feature"], 0), return_inverse=True)
            values = folds.scaled(p, validate)[:, used]
            values = (values.toarray() if hasattr(values, "toarray") else values).astype(np.float32)
            node, rows, at_depth = np.zeros(len(validate), dtype=np.int64), np.arange(len(validate)), []
            for _ in range(int(max(grid)) + 1):
                at_depth.append(majority[node])
                left = values[rows, place[node]] <= tree["threshold"][node]
                child = np.where(left, tree["left"][node], tree["right"][node])
                node = np.where(child >= 0, child, node)
            answers.append(np.stack([at_depth[int(depth)] for depth in grid]))
        return answers
