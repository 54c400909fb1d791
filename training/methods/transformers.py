"""scikit-learn transformers for SAE features: thresholds, scaling and selection that keep a sparse matrix sparse.

Each learns from the rows that it is fitted on and nothing else, takes CSR or dense input of values >= 0, and returns
the kind it was given. `SaeFeatures` reads a store; its names, "l12_16k:1234", are handed on by the others.
Zero stays zero everywhere: nothing is centred, because a centred matrix of SAE features is dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from featurestore.errors import StudyError
from featurestore.storage.files import shown
from featurestore.tables.keyed import id_texts
from featurestore.tables.same_value import match_ids

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore

L1_SELECT_C = 0.1  # of the logistic regression behind select by l1: keeps some hundred features of several thousand
RANDOM_SEED = 0  # of select by random, so that a control can be repeated


class _Sparse(TransformerMixin, BaseEstimator):
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        return tags

    def _checked(self, X: Any, reset: bool) -> Any:
        return validate_data(
            self, X, accept_sparse="csr", reset=reset, ensure_non_negative=True, dtype=(float, np.float32)
        )


class SaeFeatures(TransformerMixin, BaseEstimator):
    """Document ids to the pooled features of one or more SAEs of a store, side by side.

    Args:
        store: An open feature store.
        saes: Names of SAEs.
        pool: A pooling that the store holds for all of them, or "mean".
        binarize: A threshold >= 0, or None for the pooled values.
    """

    def __init__(self, store: FeatureStore, saes: Sequence[str], pool: str, binarize: float | None = None) -> None:
        self.store = store
        self.saes = saes
        self.pool = pool
        self.binarize = binarize

    def fit(self, X: Any = None, y: Any = None) -> SaeFeatures:  # noqa: ARG002  (scikit-learn passes both)
        """Nothing is learnt; the widths of the SAEs are looked up."""
        self.widths_ = [self.store.sae(name).d_sae for name in self.saes]
        return self

    def transform(self, X: Any) -> Any:
        """CSR float32 [len(X), sum of d_sae] for documents X, a sequence of doc_ids.

        Raises:
            StudyError: A document is not in the store.
        """
        import polars as pl
        from scipy.sparse import hstack

        check_is_fitted(self, "widths_")
        found = [self.store.matrix(name, pool=self.pool, binarize=self.binarize) for name in self.saes]
        try:
            wanted = id_texts(X)
        except TypeError as exc:
            raise StudyError(f"ids are text or numbers, not {exc}") from None
        rows = match_ids(pl.Series(found[0].doc_id, dtype=pl.String), wanted).row
        if (rows < 0).any():
            missing = wanted[int((rows < 0).argmax())]
            raise StudyError(f"{shown(self.store.uri)} has no document '{missing}'; give ids of its documents")
        blocks = [matrix.X[rows] for matrix in found]
        return blocks[0] if len(blocks) == 1 else hstack(blocks, format="csr")

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Names such as "l12_16k:1234"."""
        check_is_fitted(self, "widths_")
        names = [f"{sae}:{f}" for sae, width in zip(self.saes, self.widths_, strict=True) for f in range(width)]
        return np.array(names, dtype=object)


class LearntThresholds(OneToOneFeatureMixin, _Sparse):
    """1 where a feature exceeds the median of its non-zero values over the fitted rows, else 0.

    The median asks of a feature "strongly, for its own scale?" where one threshold for all features asks "at all?" of
    loud ones and "never" of quiet ones; it needs no labels, so it cannot fit them.
    """

    def fit(self, X: Any, y: Any = None) -> LearntThresholds:  # noqa: ARG002
        """Learn `threshold_` [K], infinite for a feature that never fires."""
        from scipy.sparse import csc_array

        X = csc_array(self._checked(X, reset=True))
        X.eliminate_zeros()
        self.threshold_ = np.full(X.shape[1], np.inf)
        for j in np.flatnonzero(np.diff(X.indptr)):
            # The lower of two middle values, so that a feature with one value everywhere fires nowhere only if alone.
            values = np.sort(X.data[X.indptr[j] : X.indptr[j + 1]])
            self.threshold_[j] = values[(len(values) - 1) // 2] if values[0] < values[-1] else 0.0
        return self

    def transform(self, X: Any) -> Any:
        """Zeros and ones in the kind of matrix that X is."""
        from scipy.sparse import issparse

        check_is_fitted(self)
        X = self._checked(X, reset=False)
        if not issparse(X):
            return (self.threshold_ < X).astype(np.float64)
        out = X.copy()
        out.data = (out.data > self.threshold_[out.indices]).astype(np.float64)
        out.eliminate_zeros()
        return out


class MaxScaler(OneToOneFeatureMixin, _Sparse):
    """Divide every feature by its largest value over the fitted rows: scikit-learn's MaxAbsScaler, for values >= 0.

    It finds the largest values of some rows of a large sparse matrix without copying them (`fit_rows`).
    """

    def fit(self, X: Any, y: Any = None) -> MaxScaler:  # noqa: ARG002
        """Learn `scale_` [K], 1 for a feature that never fires."""
        X = self._checked(X, reset=True)
        return self.fit_rows(X, np.arange(X.shape[0]))

    def fit_rows(self, X: Any, rows: np.ndarray) -> MaxScaler:
        """Learn the same from some rows (int64) of a CSR or dense matrix [N, K], which is taken as it is."""
        self.n_features_in_ = X.shape[1]
        self.scale_ = column_max(X, rows)
        return self

    def transform(self, X: Any) -> Any:
        """Values from 0 to 1 on the fitted rows, zeros kept."""
        from scipy.sparse import issparse

        check_is_fitted(self)
        X = self._checked(X, reset=False)
        if not issparse(X):
            return X * (1.0 / self.scale_)
        out = X.copy()
        out.data *= (1.0 / self.scale_)[out.indices]
        return out


def column_max(X: Any, rows: np.ndarray) -> np.ndarray:
    """Largest value [K] of each column over some rows of a matrix of values >= 0; 1 where a column is zero."""
    from scipy.sparse import issparse

    if issparse(X):
        from training.solvers.kernels import csr_parts, largest

        out = np.zeros(X.shape[1])
        largest(*csr_parts(X), rows, out)
    else:
        out = np.asarray(X[rows].max(axis=0), dtype=np.float64)
    return np.where(out > 0, out, 1.0)


class SquareRoot(OneToOneFeatureMixin, _Sparse):
    """The square root of every value: tames the few features that fire on every token of long documents."""

    def fit(self, X: Any, y: Any = None) -> SquareRoot:  # noqa: ARG002
        """Nothing is learnt."""
        self._checked(X, reset=True)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def transform(self, X: Any) -> Any:
        """Square roots, zeros kept."""
        from scipy.sparse import issparse

        check_is_fitted(self)
        X = self._checked(X, reset=False)
        if not issparse(X):
            return np.sqrt(X)
        out = X.copy()
        out.data = np.sqrt(out.data)
        return out


class MinDocuments(SelectorMixin, _Sparse):
    """Keep features that fire in at least `n` fitted documents.

    Args:
        n: How many.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def fit(self, X: Any, y: Any = None) -> MinDocuments:  # noqa: ARG002
        """Count documents for each feature.

        Raises:
            StudyError: No feature fires in so many.
        """
        X = self._checked(X, reset=True)
        self.documents_ = np.asarray((X != 0).sum(axis=0)).ravel()
        if (most := int(self.documents_.max())) < self.n:
            raise StudyError(
                f"min_documents: no feature fires in {self.n:,} of the {X.shape[0]:,} documents of a fit "
                f"(the commonest in {most:,}); lower min_documents"
            )
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(self.documents_ >= self.n)


class SelectTop(SelectorMixin, _Sparse):
    """Keep the k features with the highest score on the fitted rows (all of them if there are fewer).

    Args:
        k: How many.
        by: "class_means", "anova", "l1" or "random"; see `feature_scores`.
    """

    def __init__(self, k: int = 128, by: str = "class_means") -> None:
        self.k = k
        self.by = by

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.positive_only = False  # it is put on hidden states too
        return tags

    def fit(self, X: Any, y: Any) -> SelectTop:
        """Score every feature against the classes y [rows]."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=(float, np.float32))
        self.scores_ = feature_scores(X, np.unique(y, return_inverse=True)[1], self.by)
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return top_mask(self.scores_, self.k)


def top_mask(scores: np.ndarray, k: int) -> np.ndarray:
    """bool [K], the k highest scores; among equals the lower column, so that the choice is the same everywhere."""
    mask = np.zeros(len(scores), bool)
    mask[np.lexsort((np.arange(len(scores)), -scores))[:k]] = True
    return mask


def feature_scores(X: Any, y: np.ndarray, by: str) -> np.ndarray:
    """How well each column tells the classes apart.

    Args:
        X: CSR or dense [rows, K], scaled (class_means compares columns by their size).
        y: int64 [rows], class codes 0 .. C-1, each of which occurs.
        by: class_means: the largest |mean in a class - mean elsewhere|. anova: the F statistic (columns that are
            constant score 0). l1: the largest |coefficient| of an L1 logistic regression, one class against the others.
            random: an order that depends on the column's number alone.

    Returns:
        float64 [K].
    """
    if by == "random":
        return np.random.default_rng(RANDOM_SEED).permutation(X.shape[1]).astype(np.float64)
    if by == "l1":
        from training.solvers.l1_path import l1_coefficients

        return np.abs(l1_coefficients(X, y, L1_SELECT_C)).max(axis=0)
    if by == "anova":
        import warnings

        from sklearn.feature_selection import f_classif

        if len(np.unique(y)) < 2:
            return np.zeros(X.shape[1])
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of constant columns
            return np.nan_to_num(f_classif(X, y)[0], nan=0.0, posinf=np.finfo(float).max)
    if by != "class_means":
        raise StudyError(f"select: unknown score '{by}'; use class_means, anova, l1 or random")
    n_classes = int(y.max()) + 1
    member = np.zeros((n_classes, len(y)))
    member[y, np.arange(len(y))] = 1.0
    in_class = np.asarray(member @ X)
    return class_gap(in_class, np.bincount(y, minlength=n_classes))


def class_gap(in_class: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Largest |mean in a class - mean elsewhere| [K] from the sums of each class [C, K] and their sizes [C]."""
    if len(size) < 2:
        return np.zeros(in_class.shape[1])
    inside = in_class / size[:, None]
    outside = (in_class.sum(axis=0) - in_class) / (size.sum() - size)[:, None]
    return np.asarray(np.abs(inside - outside).max(axis=0))
