"""The methods of a study and the matrix of each: SAE cells stay sparse from the store to the solver.

A `Method` names what a classifier sees; `load_matrix` reads it for the documents of the study. Columns that are zero
for all of them are dropped (an L2 probe gives such a column the weight zero anyway). Scaling belongs to the fold, not
to the matrix: `scaler` returns a scikit-learn transformer that is fitted on training rows only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StudyError
from featurestore.files import shown
from training.baselines import CountsToTfidf, count_terms
from training.labels import StudyData
from training.spec import StudySpec

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class Method:
    """What one classifier of the study sees.

    Attributes:
        name: Unique in a study, e.g. "l12_16k:max>1", "hidden_mean", "tfidf", "majority".
        kind: "sae", "dense", "tfidf" or "majority".
        sae, pool, binarize: The cell, for kind "sae".
        column: The dense column, for kind "dense".
    """

    name: str
    kind: str
    sae: str | None = None
    pool: str | None = None
    binarize: float | None = None
    column: str | None = None


@dataclass(frozen=True)
class MethodMatrix:
    """The matrix of one method for the N documents of a study.

    Attributes:
        X: CSR float32 [N, K] (sae, float32; tfidf: term counts, float64), dense float64 [N, K], or None (majority).
        column: int64 [K], the feature of the SAE that each column is; None for other kinds.
    """

    X: Any
    column: np.ndarray | None = None


def plan_methods(store: FeatureStore, spec: StudySpec) -> tuple[Method, ...]:
    """Every method of a study: baselines, then SAE cells in the order of the spec.

    Raises:
        StudyError: The store has no such SAE, pooling or dense column.
    """
    methods = [Method("majority", "majority")]
    for name in ("tfidf", "hidden_mean", "hidden_last"):
        if name == "tfidf" and name in spec.baselines:
            methods.append(Method("tfidf", "tfidf"))
        elif name in spec.baselines:
            methods += _dense_methods(store, name)
    pools = {sae.name: sae.pools for sae in store.schema.saes}
    for feature in spec.features:
        if feature.sae not in pools:
            there = ", ".join(pools) or "none"
            raise StudyError(f"features: {shown(store.uri)} has no SAE '{feature.sae}'; it has: {there}")
        for pool in feature.pool:
            stored = "sum" if pool == "mean" else pool
            if stored not in pools[feature.sae]:
                there = ", ".join(pools[feature.sae])
                raise StudyError(
                    f"features: {shown(store.uri)} has no pooling '{stored}' of SAE '{feature.sae}'; it has: {there}; "
                    "choose one of these or extract again with it"
                )
            for threshold in feature.binarize:
                tail = "" if threshold is None else f">{threshold:g}"
                methods.append(Method(f"{feature.sae}:{pool}{tail}", "sae", feature.sae, pool, threshold))
    return tuple(methods)


def _dense_methods(store: FeatureStore, name: str) -> list[Method]:
    columns = [dense.name for dense in store.schema.dense if dense.name.endswith(f"__{name}")]
    if not columns:
        there = ", ".join(dense.name for dense in store.schema.dense) or "none"
        raise StudyError(
            f"baselines: {shown(store.uri)} has no {name} column (dense columns: {there}); "
            f"extract again with 'hidden: [{name.removeprefix('hidden_')}]' or drop the baseline"
        )
    if len(columns) == 1:
        return [Method(name, "dense", column=columns[0])]
    return [Method(f"{name}:{column.removesuffix(f'__{name}')}", "dense", column=column) for column in columns]


def load_matrix(store: FeatureStore, method: Method, data: StudyData) -> MethodMatrix:
    """Read one method's matrix for the documents of a study, in their order.

    Raises:
        StudyError: No feature of the cell fires for any document, a dense vector is missing, or the texts hold no word.
    """
    if method.kind == "majority":
        return MethodMatrix(None)
    if method.kind == "tfidf":
        assert data.text is not None
        return MethodMatrix(count_terms(data.text))
    if method.kind == "dense":
        assert method.column is not None
        dense = np.asarray(store.dense(method.column))[data.position].astype(np.float64)
        if not np.isfinite(dense).all():
            bad = data.doc_id[~np.isfinite(dense).all(axis=1)][0]
            raise StudyError(
                f"{shown(store.uri)}: column '{method.column}' has no value for document '{bad}'; verify the store"
            )
        return MethodMatrix(dense)
    assert method.sae is not None and method.pool is not None
    matrix = store.matrix(method.sae, pool=method.pool, binarize=method.binarize)
    if list(matrix.doc_id[data.position]) != list(data.doc_id):
        raise StudyError(f"{shown(store.uri)}: features and documents are in different orders; run verify on the store")
    X = matrix.X[data.position]
    X.sort_indices()
    column = np.flatnonzero(np.bincount(X.indices, minlength=X.shape[1]))
    if not len(column):
        raise StudyError(f"{method.name}: no feature fires for any document; lower the threshold or choose another SAE")
    return MethodMatrix(X[:, column], column)


def scaler(kind: str) -> Any:
    """The unfitted scikit-learn transformer of a kind of method; fit it on training rows only.

    SAE features are divided by their largest value (keeps zeros, no centring), dense vectors are standardised, term
    counts become sublinear TF-IDF.
    """
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    return {"sae": MaxAbsScaler, "dense": StandardScaler, "tfidf": CountsToTfidf}[kind]()
