"""The matrix of a method for the documents of a study, from its store or from another one, matched by id.

SAE features stay sparse from the store to the solver. `load_pooled` reads once what several methods are made of,
`derive` makes each method's matrix of it. Columns that are zero for all documents of the study are dropped (an L2 probe
gives such a column the weight zero anyway). Nothing is learnt here: what is belongs to a fold, see
`training.methods.preparation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import StudyError
from featurestore.storage.files import shown
from featurestore.tables.same_value import match_ids
from training.documents.labels import StudyData
from training.methods.method import SPARSE, TEXTUAL, Method
from training.methods.tfidf import count_terms

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class MethodMatrix:
    """The matrix of one method for the N documents of a study.

    Attributes:
        X: CSR float32 [N, K] (sae, float32; tfidf: term counts, float64), dense float64 [N, K], or None (majority).
        column: int64 [K], the feature of the SAE (of SAEs side by side: of all of them, counted on) that each column
            is; None for other kinds.
        names: object [K], "l12_16k:1234" for each column; None for other kinds.
        beside: float64 [N, M], numbers that `derive` puts behind the features; their `column` is -1, -2, ...
    """

    X: Any
    column: np.ndarray | None = None
    names: np.ndarray | None = None
    beside: np.ndarray | None = None


def load_pooled(store: FeatureStore, method: Method, data: StudyData) -> MethodMatrix:
    """Read what all methods of one `source` are made of, for the documents of a study, in their order.

    Args:
        store: The store that the method names (the study's, if it names none).
        method: Any method of the source.
        data: The study's documents.

    Raises:
        StudyError: A dense vector is missing, a document is not in the store, or the texts hold no word.
    """
    if method.kind == "majority":
        return MethodMatrix(None)
    if method.kind in TEXTUAL:
        assert data.text is not None
        return MethodMatrix(count_terms(data.text, method.kind))
    if method.kind == "numbers":
        return MethodMatrix(data.numbers[str(method.column)])
    if method.kind == "dense":
        assert method.column is not None
        at = data.position
        if method.store is not None:
            at = positions(store.documents().select("doc_id").collect()["doc_id"], data.doc_id)
        dense = np.asarray(store.dense(method.column))[at].astype(np.float64)
        if not np.isfinite(dense).all():
            bad = data.doc_id[~np.isfinite(dense).all(axis=1)][0]
            raise StudyError(
                f"{shown(store.uri)}: column '{method.column}' has no value for document '{bad}'; verify the store"
            )
        return MethodMatrix(dense)
    assert method.pool is not None
    blocks, names = [], []
    for sae in method.saes:
        matrix = store.matrix(sae, pool=method.pool)
        rows: Any = data.position if method.store is None else positions(matrix.doc_id, data.doc_id)
        if len(matrix.doc_id) == len(rows) and (rows == np.arange(len(rows))).all():
            rows = slice(None)
        if method.store is None and list(matrix.doc_id[rows]) != list(data.doc_id):
            raise StudyError(
                f"{shown(store.uri)}: features and documents are in different orders; run verify on the store"
            )
        blocks.append(matrix.X if isinstance(rows, slice) else matrix.X[rows])
        names += [f"{sae}:{f}" for f in range(matrix.X.shape[1])]
    X = blocks[0] if len(blocks) == 1 else _beside(blocks)
    X.sort_indices()
    X, fires = _without_empty_columns(X)
    beside = data.numbers[str(method.column)] if method.kind == "beside" else None
    return MethodMatrix(X, fires, np.array(names, dtype=object)[fires], beside)


def derive(pooled: MethodMatrix, method: Method, in_place: bool = False) -> MethodMatrix:
    """The matrix of one method from what `load_pooled` read: threshold, square root, columns that fire.

    Args:
        pooled: What was read; never changed, unless
        in_place: it may be, because nobody needs it any more.
        method: The method.

    Raises:
        StudyError: No feature of the method fires for any document.
    """
    if method.kind not in SPARSE:
        return pooled
    X, column, names = pooled.X, pooled.column, pooled.names
    assert column is not None and names is not None
    if isinstance(method.binarize, float):
        X = X if in_place else X.copy()
        X.data = (X.data > method.binarize).astype(np.float32)
        X.eliminate_zeros()
    X, fires = _without_empty_columns(X)
    if not len(fires):
        raise StudyError(f"{method.name}: no feature fires for any document; lower the threshold or choose another SAE")
    if method.scale == "sqrt":
        X = X.copy() if X is pooled.X and not in_place else X
        X.data = np.sqrt(X.data)
    if pooled.beside is None:
        return MethodMatrix(X, column[fires], names[fires])
    beside = _signs_apart(pooled.beside)
    more = np.arange(beside.shape[1])
    numbers = np.array([f"{method.column}:{m}" for m in more], dtype=object)
    return MethodMatrix(
        _beside([X, beside]),
        np.concatenate([column[fires], -1 - more]),
        np.concatenate([names[fires], numbers]),
    )


def load_matrix(store: FeatureStore, method: Method, data: StudyData) -> MethodMatrix:
    """`load_pooled` and `derive` in one, for a single method."""
    return derive(load_pooled(store, method, data), method)


def positions(there: Iterable[str], wanted: Sequence[str] | np.ndarray) -> np.ndarray:
    """Rows of `wanted` ids among the ids `there`, int64.

    Raises:
        StudyError: One of them is not there.
    """
    import polars as pl

    ours, theirs = (pl.Series(list(ids), dtype=pl.String) for ids in (there, wanted))
    row = match_ids(ours, theirs).row
    if (row < 0).any():
        missing = theirs[int((row < 0).argmax())]
        raise StudyError(f"features: document '{missing}' is missing from a store of the study; align the stores by id")
    return row


def _without_empty_columns(X: Any) -> tuple[Any, np.ndarray]:
    """(X without columns that hold nothing, which columns are left); values are shared, not copied."""
    from scipy.sparse import csr_matrix

    there = np.bincount(X.indices, minlength=X.shape[1]) > 0
    fires = np.flatnonzero(there)
    if len(fires) == len(there):
        return X, fires
    place = (np.cumsum(there) - 1).astype(X.indices.dtype)
    return csr_matrix((X.data, place[X.indices], X.indptr), shape=(X.shape[0], len(fires))), fires


def _signs_apart(numbers: np.ndarray) -> Any:
    """Numbers as columns of CSR that are >= 0 like features: of each what is above zero, and what is below."""
    from scipy.sparse import csr_matrix

    both = np.concatenate([np.maximum(numbers, 0), np.maximum(-numbers, 0)], axis=1)
    return csr_matrix(both[:, both.any(axis=0)].astype(np.float32))


def _beside(blocks: Sequence[Any]) -> Any:
    from scipy.sparse import hstack

    return hstack(blocks, format="csr")
