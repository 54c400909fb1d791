"""Count and average every feature in one pass over a store, in memory that does not grow with it.

Enough to choose among a million features before any matrix is made: how often a feature fires, how strongly, how that
varies, and how its mean differs between classes. Sums are accumulated in float64; a document in which a feature does
not fire counts as 0. What is chosen, and by which rule, is left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import StoreError
from featurestore.reading.metadata import exact_columns
from featurestore.storage.files import shown
from featurestore.tables.keyed import kept_series
from featurestore.tables.same_value import class_texts

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_matrix

    from featurestore.reading.open_store import OpenStore

MOST_FEATURES = 1 << 26  # 2 GB of sums; no SAE is a tenth as wide
_MOST_CLASSES = 10_000  # more is a column of ids or measurements, and a sum for each would fill the memory


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of F features over N documents, of which class c has n_c.

    Attributes:
        n_documents: N.
        document_frequency: int64 [F], documents in which the feature fires (its pooled value is > 0).
        total: float64 [F], sum of its pooled values.
        squares: float64 [F], sum of their squares.
        maximum: float32 [F], the largest; 0 where it never fires.
        classes: The C class names, sorted; empty without labels.
        class_documents: int64 [C], n_c; documents without a label belong to no class.
        class_frequency: int64 [C, F], documents of the class in which the feature fires.
        class_total: float64 [C, F], sum of its pooled values over the class.
    """

    n_documents: int
    document_frequency: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    maximum: np.ndarray
    classes: tuple[str, ...]
    class_documents: np.ndarray
    class_frequency: np.ndarray
    class_total: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float64 [F], over all N documents; NaN if there are none."""
        return _by(self.total, self.n_documents)

    @property
    def second_moment(self) -> np.ndarray:
        """float64 [F], mean of the squares over all N documents."""
        return _by(self.squares, self.n_documents)

    @property
    def variance(self) -> np.ndarray:
        """float64 [F], over all N documents (the population's, not the sample's)."""
        return np.maximum(self.second_moment - self.mean**2, 0.0)

    @property
    def class_mean(self) -> np.ndarray:
        """float64 [C, F], over the documents of each class."""
        return _by(self.class_total, self.class_documents[:, None])


class Accumulator:
    """Statistics of the rows seen so far: add batches, then take the result. Memory: 28 F + 16 C F bytes."""

    def __init__(self, n_features: int, classes: tuple[str, ...] = ()) -> None:
        """Nothing seen yet."""
        self._n = 0
        self._frequency = np.zeros(n_features, dtype=np.int64)
        self._total, self._squares = np.zeros(n_features), np.zeros(n_features)
        self._maximum = np.zeros(n_features, dtype=np.float32)
        self._classes = classes
        self._class_documents = np.zeros(len(classes), dtype=np.int64)
        self._class_frequency = np.zeros((len(classes), n_features), dtype=np.int64)
        self._class_total = np.zeros((len(classes), n_features))

    def add(self, X: csr_matrix, codes: np.ndarray | None = None) -> None:
        """Count rows in.

        Args:
            X: float32 [n, F] with positive values.
            codes: int64 [n], the class of each row, -1 for none.
        """
        from scipy.sparse import csr_matrix

        n, n_features = X.shape
        self._n += n
        self._frequency += np.bincount(X.indices, minlength=n_features)
        values, every = X.data.astype(np.float64), np.ones(n)
        wide = csr_matrix((values, X.indices, X.indptr), shape=X.shape)
        self._total += every @ wide
        np.multiply(values, values, out=values)
        self._squares += every @ wide
        # few entries are above the largest so far, and only these take the slow way
        higher = np.flatnonzero(X.data > self._maximum[X.indices])
        np.maximum.at(self._maximum, X.indices[higher], X.data[higher])
        if codes is not None:
            self._add_classes(X, codes)

    def _add_classes(self, X: csr_matrix, codes: np.ndarray) -> None:
        from scipy.sparse import csr_matrix

        labelled = np.flatnonzero(codes >= 0)
        shape = (len(self._classes), X.shape[0])
        members = csr_matrix((np.ones(len(labelled)), (codes[labelled], labelled)), shape=shape)
        self._class_documents += np.bincount(codes[labelled], minlength=len(self._classes))
        for target, values in ((self._class_total, X.data), (self._class_frequency, np.ones_like(X.data))):
            # X shares its structure; only the class' touched features come back, so wide SAEs stay cheap
            part = (members @ csr_matrix((values, X.indices, X.indptr), shape=X.shape)).tocoo()
            target[part.row, part.col] += part.data.astype(target.dtype)

    def result(self) -> FeatureStatistics:
        """Statistics of all rows added."""
        return FeatureStatistics(
            self._n, self._frequency, self._total, self._squares, self._maximum,
            self._classes, self._class_documents, self._class_frequency, self._class_total,
        )  # fmt: skip


def feature_statistics(
    store: OpenStore,
    sae: str | None = None,
    pool: str = "max",
    *,
    rows: pl.Expr | np.ndarray | None = None,
    labels: str | np.ndarray | None = None,
) -> FeatureStatistics:
    """Statistics of every feature of an SAE.

    Args:
        store: An open store.
        sae, pool, rows: As for `FeatureStore.matrix`.
        labels: Classes for sums by class: the name of a column of `documents()` (kept or joined), or an array
            [len(store)] of them. Null, None and NaN are no class.

    Returns:
        F = d_sae features over the selected documents. One batch is in memory at a time.

    Raises:
        StoreError: As `matrix`; or no such column, too many classes, or labels that are not one for each document.
    """
    columns = store.sae(sae)
    if columns.d_sae > MOST_FEATURES:
        raise StoreError(
            f"statistics of the {columns.d_sae:,} features of SAE '{columns.name}' would not fit in memory; "
            f"at most {MOST_FEATURES:,} do"
        )
    mask = None if rows is None else store.mask(rows)
    classes, codes = ((), None) if labels is None else _classes(store, labels, mask)
    seen = Accumulator(columns.d_sae, classes)
    first = 0
    for X, doc_id in store.batches(columns.name, pool, rows=mask):
        seen.add(X, None if codes is None else codes[first : first + len(doc_id)])
        first += len(doc_id)
    return seen.result()


def _classes(store: OpenStore, labels: str | np.ndarray, mask: np.ndarray | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, and the class of each selected document (-1 for none)."""
    import polars as pl

    if isinstance(labels, str):
        names = store.documents().collect_schema().names()
        if labels not in names:
            hint = did_you_mean(labels, names)
            raise StoreError(f"labels: {shown(store.uri)} has no column '{labels}'; it has: {', '.join(names)}{hint}")
        values = exact_columns(store.documents(), [labels])[labels]
    else:
        values = _given(labels)
    if len(values) != len(store) or values.dtype.is_nested():
        raise StoreError(f"labels must be {len(store):,} classes, one for each document of {shown(store.uri)}")
    values = values.alias("")  # its methods take a name such as `^a.*$` for a pattern
    values = values if mask is None else values.filter(pl.Series(mask))
    values = values.fill_nan(None) if values.dtype.is_float() else values
    distinct = values.drop_nulls().unique().sort()
    if len(distinct) > _MOST_CLASSES:
        raise StoreError(f"labels: {len(distinct):,} different values are no classes; at most {_MOST_CLASSES:,} are")
    try:
        names = [text or "" for text in class_texts(distinct.to_list())]
    except ValueError as exc:
        raise StoreError(f"labels hold {exc}") from None
    code = pl.DataFrame({"value": distinct, "code": np.arange(len(distinct))})
    codes = pl.DataFrame({"value": values}).join(code, on="value", how="left", maintain_order="left")["code"]
    return tuple(names), codes.fill_null(-1).to_numpy()


def _given(labels: Any) -> pl.Series:
    """Classes in an array, a list or a series of whichever library."""
    import polars as pl

    if isinstance(labels, np.ndarray) and labels.dtype.kind in "biufU":
        return pl.Series("labels", labels)
    if not isinstance(labels, Iterable):
        raise StoreError(f"labels must be a column's name or a list of classes, not {type(labels).__name__}")
    unkept: list[str] = []
    values = kept_series("labels", labels, unkept)
    if unkept:
        raise StoreError(f"labels: {unkept[0]}; give text, whole numbers or truth values")
    return values


def _by(total: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total / count)
