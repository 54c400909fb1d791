"""The baseline that looks at no feature: the commonest class of the training documents.

It is no probe, for it has no matrix: its probabilities are the classes' shares in the training documents.
"""

from __future__ import annotations

import numpy as np

from training.documents.split import Split
from training.probes.outcome import SplitOutcome
from training.scores.metrics import macro_f1


def majority(y: np.ndarray, n_classes: int, split: Split) -> SplitOutcome:
    """Predict the commonest class of the training rows, with the classes' shares as probabilities."""
    y_seen = split.labels(y)
    validation = np.empty((1, len(split.inner())))
    for k, (fit, validate) in enumerate(split.inner()):
        common = np.full(len(validate), np.argmax(np.bincount(y_seen[fit], minlength=n_classes)))
        validation[0, k] = macro_f1(y_seen[validate], common, n_classes)
    share = np.bincount(y_seen[split.train], minlength=n_classes) / len(split.train)
    y_pred = np.full(len(split.test), np.argmax(share), dtype=np.int64)
    log_share = np.tile(np.log(share), (len(split.test), 1))
    return SplitOutcome(None, validation, y_pred, log_share, 0, True, np.empty(0, dtype=np.int64))
