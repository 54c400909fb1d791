"""Which features decide: the heaviest ones of the selected SAE cell, whom they speak for, and where they fire most.

A feature weighs |coefficient x difference of class means|: how far it moves the decision between a typical document of
the class and a typical other one. Everything is computed from the training documents of one split; held-out documents
appear neither in the fit nor among the examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.features import Method, load_matrix
from training.labels import StudyData
from training.probes import fit_final
from training.split import Split

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore

FEATURES = 5
DOCUMENTS = 3
SNIPPET = 160  # characters: two terminal lines


def explain(store: FeatureStore, method: Method, data: StudyData, split: Split, C: float) -> dict[str, Any]:
    """Explain one SAE cell on the training rows of one split.

    Args:
        store: The store.
        method: A method of kind "sae".
        data: The study's documents.
        split: Its training rows are used, its test rows are not.
        C: The inverse regularisation chosen for the cell on this split.

    Returns:
        Plain data: the cell, and `features`, heaviest first, each with feature, name, toward (class), coefficient,
        weight, document_frequency (class -> share of its training documents with the feature), and documents
        (the strongest: doc_id, label, value, text).
    """
    from threadpoolctl import threadpool_limits

    assert method.sae is not None and method.pool is not None
    matrix = load_matrix(store, method, data)
    assert matrix.column is not None
    features = matrix.X.astype(np.float64)
    with threadpool_limits(1):
        scale, model, _ = fit_final("sae", features, data.y, split.train, C)
        X = scale.transform(features[split.train]).tocsc()
    y = data.y[split.train]
    weight, toward, coefficient = _weights(X, y, model.coef_, len(data.classes))
    # Equal weights are ordered by feature, so that the list is the same on every machine.
    heaviest = np.lexsort((matrix.column, -weight))[:FEATURES]
    pooled = store.matrix(method.sae, pool=method.pool)
    strength = pooled.X[data.position[split.train]][:, matrix.column[heaviest]].tocsc()
    fires = X[:, heaviest] != 0
    features = []
    for k, j in enumerate(heaviest):
        here = fires[:, [k]].toarray().ravel()
        feature = {
            "feature": int(matrix.column[j]),
            "name": f"{method.sae}:{int(matrix.column[j])}",
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
        "C": C,
        "seed": split.seed,
        "documents": len(split.train),
        "weight": "|coefficient x difference of class means| of the scaled feature",
        "features": features,
    }


def _weights(X: Any, y: np.ndarray, coef: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight [K], the class each feature points to [K], and its coefficient for that class [K]."""
    in_class = np.stack([np.asarray(X[y == c].sum(axis=0)).ravel() for c in range(n_classes)])  # [classes, K]
    size = np.bincount(y, minlength=n_classes)[:, None]
    gap = in_class / size - (in_class.sum(axis=0) - in_class) / (len(y) - size)  # mean in the class - mean elsewhere
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
