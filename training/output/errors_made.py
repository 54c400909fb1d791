"""The worst errors of the model that is explained, on the documents held out from it, with the features that misled it.

An error is bad when the model was sure. What a feature added to a decision is its coefficient (that of the wrong class
less that of the true one) times its scaled value in the document; these add up to the decision itself, so the reasons
are those of the model and no approximation of it. A tree has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.documents.labels import StudyData
from training.documents.split import Split
from training.methods.matrices import MethodMatrix
from training.output.examples import snippet
from training.probes.fit import Final
from training.probes.outcome import SplitOutcome

ERRORS = 20  # a page of them
REASONS = 4  # on either side


def errors_made(
    data: StudyData, split: Split, found: SplitOutcome, matrix: MethodMatrix, final: Final
) -> list[dict[str, Any]]:
    """The worst errors on the test documents of one split.

    Args:
        data: The study's documents.
        split: The split of `found` and `final`.
        found: What the study scored: the answers on `split.test`.
        matrix, final: What `training.output.explain.fit_method` returned for the same split.

    Returns:
        Plain data, the surest error first: doc_id, label, predicted, probability (of the wrong answer; None for a
        margin), text, and reasons (name, feature's push toward the wrong answer: positive misled, negative spoke for
        the truth).
    """
    y = data.y[split.test]
    score = found.log_proba[np.arange(len(y)), found.y_pred]
    wrong = np.flatnonzero(found.y_pred != y)
    worst = wrong[np.argsort(-np.nan_to_num(score[wrong], nan=-np.inf), kind="stable")][:ERRORS]
    if not len(worst):
        return []
    pushes = _pushes(matrix, final, split.test[worst], found.y_pred[worst], y[worst], len(data.classes))
    assert matrix.names is not None and final.columns is not None
    names = matrix.names[final.columns.kept]
    return [
        {
            "doc_id": str(data.doc_id[split.test[i]]),
            "label": data.classes[y[i]],
            "predicted": data.classes[found.y_pred[i]],
            "probability": float(np.exp(score[i])) if np.isfinite(score[i]) else None,
            "text": snippet(data, int(split.test[i])),
            "reasons": [] if pushes is None else _reasons(pushes[k], names),
        }
        for k, i in enumerate(worst)
    ]


def _pushes(
    matrix: MethodMatrix, final: Final, rows: np.ndarray, wrong: np.ndarray, right: np.ndarray, n_classes: int
) -> np.ndarray | None:
    """[documents, K]: what each feature added to the wrong answer over the true one; None for a tree."""
    X = final.prepare.transform(matrix.X[rows].astype(np.float64)).toarray()
    coef = final.probe.coefficients()
    if coef is None:
        return None
    if n_classes == 2:
        return X * coef[0] * np.where(wrong == 1, 1.0, -1.0)[:, None]
    return np.asarray(X * (coef[wrong] - coef[right]))


def _reasons(push: np.ndarray, names: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-push, kind="stable")
    misled = [i for i in order[:REASONS] if push[i] > 0]
    against = [i for i in order[::-1][:REASONS] if push[i] < 0]
    return [{"name": str(names[i]), "push": float(push[i])} for i in [*misled, *against]]
