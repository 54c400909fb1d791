"""What is learnt from training rows before the classifier (thresholds, scales, selections), as one pipeline.

The pipeline is scikit-learn's and unfitted (`preparation`); it is fitted on the rows that a probe is fitted on, never
on others. Once fitted it is also plain arrays (`Columns`), which is what model files hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.methods.method import Method
from training.methods.tfidf import CountsToTfidf
from training.methods.transformers import LearntThresholds, MaxScaler, MinDocuments, SelectTop


def scaler(kind: str) -> Any:
    """The unfitted scikit-learn transformer of a kind of method; fit it on training rows only.

    SAE features are divided by their largest value (keeps zeros, no centring), dense vectors are standardised, term
    counts become sublinear TF-IDF.
    """
    from sklearn.preprocessing import StandardScaler

    by_kind = {"dense": StandardScaler, "numbers": StandardScaler, "tfidf": CountsToTfidf, "char": CountsToTfidf}
    return by_kind.get(kind, MaxScaler)()


def preparation(method: Method) -> Any:
    """Everything learnt before the probe as one unfitted scikit-learn pipeline; fit it on training rows and classes.

    In the order: learnt thresholds, document frequency, scale, screen, selection. `derive` takes square roots.
    """
    from sklearn.pipeline import make_pipeline

    steps: list[Any] = []
    if method.binarize == "learnt":
        steps.append(LearntThresholds())
    if method.min_documents > 1:
        steps.append(MinDocuments(method.min_documents))
    steps.append(scaler(method.kind))
    if method.screen is not None:
        steps.append(SelectTop(method.screen, "class_means"))
    if method.select is not None and method.k is not None:
        steps.append(SelectTop(method.k, method.select))
    return make_pipeline(*steps)


@dataclass(frozen=True)
class Columns:
    """A fitted `preparation` of SAE or dense columns as plain arrays (K' of K columns are kept).

    Attributes:
        kept: int64 [K'], which columns.
        scale: float64 [K'], what they are divided by, after
        shift: float64 [K'], what is subtracted, or None; and after
        threshold: float64 [K'], learnt thresholds that make them 0 or 1, or None.
    """

    kept: np.ndarray
    scale: np.ndarray
    shift: np.ndarray | None = None
    threshold: np.ndarray | None = None


def columns_of(pipeline: Any, n_columns: int) -> Columns:
    """What a fitted `preparation` does, for kinds whose columns it keeps or drops one by one."""
    kept, scale = np.arange(n_columns), np.ones(n_columns)
    shift = threshold = None
    for _, step in pipeline.steps:
        if hasattr(step, "threshold_"):
            threshold = step.threshold_
        elif hasattr(step, "get_support"):
            mask = step.get_support()
            kept, scale = kept[mask], scale[mask]
            threshold = threshold if threshold is None else threshold[mask]
        else:
            scale, shift = step.scale_, getattr(step, "mean_", None)
    return Columns(kept, np.asarray(scale), shift, threshold)
