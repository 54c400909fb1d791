"""Which features decide: the heaviest ones of the selected SAE method, whom they speak for, and where they fire most.

A feature weighs |coefficient x difference of class means|: how far it moves the decision between a typical document of
the class and a typical other one; in a tree, it weighs what its splits gain. Everything is computed from the training
documents of one split; held-out documents appear neither in the fit nor among the examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.documents.labels import StudyData
from training.documents.split import Split
from training.methods.matrices import MethodMatrix, derive, load_pooled
from training.methods.method import Method
from training.probes.catalogue import parameter_of
from training.probes.fit import Final, fit_final
from training.probes.folds import Labelled
from training.probes.probe import FittedProbe

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore

FEATURES = 5
DOCUMENTS = 3
PIECE = 50_000  # rows: some hundred megabytes
SNIPPET = 160  # characters: two terminal lines


def fit_method(
    store: FeatureStore,
    method: Method,
    data: StudyData,
    split: Split,
    value: float | None,
    pooled: MethodMatrix | None = None,
    n_jobs: int = 1,
) -> tuple[MethodMatrix, MethodMatrix, Final]:
    """The final model of a method on the training rows of one split, with what it was made of.

    Args:
        pooled: What was read before, where it was screened.
        n_jobs: Threads; they change no bit.

    Returns:
        (what was read, the method's matrix, the fitted model); the last is what the study scored.
    """
    from threadpoolctl import threadpool_limits

    if pooled is None:
        pooled = load_pooled(store, method, data)
    matrix = derive(pooled, method)
    with threadpool_limits(1):
        of = Labelled(matrix.X, data.y, len(data.classes))
        return pooled, matrix, fit_final(method, of, split.train, value, n_jobs)


def explain(
    method: Method,
    data: StudyData,
    split: Split,
    value: float | None,
    pooled: MethodMatrix,
    matrix: MethodMatrix,
    final: Final,
) -> dict[str, Any]:
    """Explain one SAE cell on the training rows of one split.

    Args:
        method: A method of SAE features.
        data: The study's documents.
        split: Its training rows are used, its test rows are not.
        value: The hyper-parameter chosen for the cell on this split.
        pooled, matrix, final: What `fit_method` returned.

    Returns:
        Plain data: the cell, and `features`, heaviest first, each with feature, name, toward (class), coefficient,
        weight, document_frequency (class -> share of its training documents with the feature), and documents
        (the strongest: doc_id, label, value, text).
    """
    from scipy.sparse import vstack

    assert matrix.column is not None and matrix.names is not None and final.columns is not None
    kept = final.columns.kept
    y, n_classes = data.y[split.train], len(data.classes)
    in_class = np.zeros((n_classes, len(kept)))
    for rows in _pieces(split.train):
        X = final.prepare.transform(matrix.X[rows].astype(np.float64)).tocsc()
        in_class += np.stack([np.asarray(X[data.y[rows] == c].sum(axis=0)).ravel() for c in range(n_classes)])
    weight, toward, coefficient = _weights(in_class, y, final.probe)
    column, names = matrix.column[kept], matrix.names[kept]
    # Equal weights are ordered by feature, so that the list is the same on every machine.
    heaviest = np.lexsort((column, -weight))[:FEATURES]
    heaviest = heaviest[weight[heaviest] > 0]  # a feature that weighs nothing decides nothing
    assert pooled.column is not None
    there = np.searchsorted(pooled.column, column[heaviest])
    strength = vstack([pooled.X[rows][:, there] for rows in _pieces(split.train)], format="csc")
    fires = vstack(
        [
            final.prepare.transform(matrix.X[rows].astype(np.float64)).tocsc()[:, heaviest] != 0
            for rows in _pieces(split.train)
        ],
        format="csc",
    )
    features = []
    for k, j in enumerate(heaviest):
        here = fires[:, [k]].toarray().ravel()
        feature = {
            "feature": int(str(names[j]).rsplit(":", 1)[1]),
            "name": str(names[j]),
            "toward": data.classes[toward[j]],
            "coefficient": float(coefficient[j]),
            "weight": float(weight[j]),
            "document_frequency": {name: float(here[y == c].mean()) for c, name in enumerate(data.classes)},
            "documents": _strongest(strength[:, [k]].toarray().ravel(), data, split.train),
        }
        features.append(feature)
    return {
        "method": method.name,
        "sae": method.sae,
        "pool": method.pool,
        "binarize": method.binarize,
        "probe": method.probe,
        "parameter": parameter_of(method.probe),
        "value": value,
        "C": value if parameter_of(method.probe) == "C" else None,
        "seed": split.seed,
        "documents": len(split.train),
        "weight": "share of the tree's gain"
        if method.probe == "tree"
        else "|coefficient x difference of class means| of the scaled feature",
        "features": features,
    }


def _pieces(rows: np.ndarray) -> list[np.ndarray]:
    """The rows some at a time, so that a large matrix is never copied as a whole."""
    return [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]


def _weights(in_class: np.ndarray, y: np.ndarray, probe: FittedProbe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight [K], the class each feature points to [K], and its coefficient for that class [K].

    `in_class` [classes, K] holds the sums of the scaled features over the rows of each class.
    """
    n_classes = len(in_class)
    size = np.bincount(y, minlength=n_classes)[:, None]
    gap = in_class / size - (in_class.sum(axis=0) - in_class) / (len(y) - size)  # mean in the class - mean elsewhere
    coef = probe.coefficients()
    if coef is None:
        gain = probe.importance
        return gain, np.argmax(gap, axis=0), gain
    if n_classes == 2:  # one row of coefficients, for the second class
        toward = (coef[0] > 0).astype(np.int64)
        return np.abs(coef[0] * gap[1]), toward, np.abs(coef[0])
    # A class' own evidence: only positive coefficients speak for it.
    evidence = np.where(coef > 0, np.abs(coef * gap), 0.0)
    toward = np.argmax(evidence, axis=0)
    columns = np.arange(coef.shape[1])
    return evidence[toward, columns], toward, coef[toward, columns]


def _strongest(value: np.ndarray, data: StudyData, train: np.ndarray) -> list[dict[str, Any]]:
    """The training documents with the largest pooled value; equal values in the order of the study's documents."""
    order = np.argsort(-value, kind="stable")[:DOCUMENTS]
    documents = []
    for i in order[value[order] > 0]:
        row = train[i]
        text = None if data.text is None else " ".join(data.text[row].split())
        documents.append(
            {
                "doc_id": str(data.doc_id[row]),
                "label": data.classes[data.y[row]],
                "value": float(value[i]),
                "text": text if text is None or len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…",
            }
        )
    return documents
