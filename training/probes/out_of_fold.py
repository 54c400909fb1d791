"""Scores of training documents by models that have not seen them: each inner fold scored by a fit on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from training.documents.split import Split
from training.methods.method import Method
from training.probes.fit import fit_final
from training.probes.folds import Labelled
from training.probes.grid_search import in_float64
from training.probes.threads import run_all


def out_of_fold(
    method: Method, of: Labelled, splits: Sequence[Split], values: Sequence[float | None], n_jobs: int = 1
) -> list[np.ndarray]:
    """Log-probabilities of the training documents of each split, all inner folds pooled.

    Every fold is fitted as the final model is, at the value that was chosen for the split.

    Args:
        method: The method, which has a probe.
        of: Its matrix.
        splits: The splits; their test rows have no part in it.
        values: The hyper-parameter chosen in each.
        n_jobs: Threads; they change no bit.

    Returns:
        float64 [training documents, classes] for each split, in the order of `Split.train`.
    """
    folds = [(s, fit, validate) for s, split in enumerate(splits) for fit, validate in split.inner()]
    seen = [replace(of, y=split.labels(of.y)) for split in splits]
    scored = run_all([partial(_scores, method, seen[s], fit, held, values[s]) for s, fit, held in folds], n_jobs)
    found = [np.full((len(split.train), of.n_classes), np.nan) for split in splits]
    for (s, _, validate), scores in zip(folds, scored, strict=True):
        found[s][np.searchsorted(splits[s].train, validate)] = scores
    return found


def _scores(method: Method, of: Labelled, fit: np.ndarray, validate: np.ndarray, value: float | None) -> np.ndarray:
    final = fit_final(method, of, fit, value)
    return final.probe.log_proba(final.prepare.transform(in_float64(of.X[validate])))
