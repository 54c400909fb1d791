"""Which solver has reached the optimum of an L1 logistic regression: the objective that each of them ends at.

    python -m benchmarks.study_optimum --store DIR/benchmark [--documents 1000]

One fold of the study benchmark's matrices (`study.py`), columns divided by their largest value, at a small, a middling
and a large C: scikit-learn's saga as `GridSearchCV` users run it (100 iterations), with 3,000; its liblinear, to 1e-6;
ours as it ranks values of C, and as final models are fitted. The objective is |w|_1 + C * sum of log-losses, lower is
better; saga and ours leave the intercept free, liblinear's penalty of it is a hundredth of the others'.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import aligned
from benchmarks.study import FOLDS, INTERCEPT_SCALING

GRID = (0.01, 1.668, 100.0)
ITERATIONS = 3_000


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study_optimum", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--store", required=True, help="made by `python -m benchmarks.study_stores benchmark`")
    parser.add_argument("--documents", type=int, default=1_000, help="evenly spaced")
    args = parser.parse_args(argv)
    from featurestore import FeatureStore

    store = FeatureStore.open(args.store)
    label = store.documents().select("label").collect()["label"].to_numpy()
    rows = np.linspace(0, len(label) - 1, min(args.documents, len(label))).astype(int)
    y = (label[rows] == "hateful").astype(np.int64)
    fold = np.random.default_rng(0).permutation(np.arange(len(rows)) % FOLDS)
    fit, test = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    lines: list[tuple[str, ...]] = [("max", "C", "solver", "objective", "macro F1", "features")]
    for binarize in (None, 1.0):
        taken = np.isin(np.arange(len(label)), rows)
        X = store.matrix(None, pool="max", binarize=binarize, rows=taken).X.astype(np.float64)
        for C in GRID:
            for name, row in solved(X, y, fit, test, C):
                lines.append(("values" if binarize is None else f"> {binarize:g}", f"{C:g}", name, *row))
    print(aligned(lines))
    return 0


def solved(X: Any, y: np.ndarray, fit: np.ndarray, test: np.ndarray, C: float) -> list[tuple[str, tuple[str, ...]]]:
    """Objective, macro F1 of the fold and coefficients that are not zero, by solver."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    from training.solvers.l1_path import EXACT, RANKING, l1_path

    largest = np.abs(X[fit]).max(axis=0).toarray().ravel()
    scale = np.where(largest > 0, largest, np.inf)
    S = X.multiply(1 / scale).tocsr()

    def row(w: np.ndarray, b: float) -> tuple[str, ...]:
        margin = (S @ w + b) * (2 * y - 1)
        objective = np.abs(w).sum() + C * np.logaddexp(0, -margin[fit]).sum()
        f1 = f1_score(y[test], (S[test] @ w + b > 0).astype(int), average="macro")
        return f"{objective:.3f}", f"{f1:.3f}", f"{np.count_nonzero(w):,}"

    saga = {"l1_ratio": 1, "solver": "saga", "C": C}
    models = {
        "saga, 100 iterations": LogisticRegression(**saga),
        f"saga, {ITERATIONS:,} iterations": LogisticRegression(**saga, max_iter=ITERATIONS, tol=1e-6),
        "liblinear": LogisticRegression(
            l1_ratio=1, solver="liblinear", C=C, intercept_scaling=INTERCEPT_SCALING, tol=1e-6, max_iter=5_000
        ),
    }
    found = []
    for name, model in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(S[fit], y[fit])
        found.append((name, row(model.coef_[0], float(model.intercept_[0]))))
    for name, accuracy in (("ours, ranking", RANKING), ("ours, final", EXACT)):
        ours = l1_path(X.astype(np.float32), y == 1, fit.astype(np.int64), scale, [C], accuracy)[0]
        w = np.where(np.isfinite(scale), ours.coef * np.where(np.isfinite(scale), scale, 0), 0.0)
        found.append((name, row(w, ours.intercept)))
    return found


if __name__ == "__main__":
    sys.exit(main())
