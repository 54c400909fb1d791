"""TF-IDF over words and word pairs, fitted on training rows only and cheap to fit many times.

Counting words is the slow part and learns nothing from labels or splits, so it is done once; what a fold learns (the
vocabulary and the document frequencies) is learnt from its training rows. The result equals scikit-learn's
`TfidfVectorizer` fitted on those rows. No stop words: corpora come in many languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.utils.validation import check_is_fitted, validate_data

from featurestore.errors import StudyError

NGRAMS = (1, 2)  # words and pairs, as in the paper
MAX_TERMS = 20_000  # as in the paper


def count_terms(texts: Sequence[str]) -> Any:
    """Count words and word pairs in each text.

    Returns:
        CSR float64 [N, terms], terms in alphabetical order.

    Raises:
        StudyError: No text holds a word (two or more word characters).
    """
    try:
        return CountVectorizer(ngram_range=NGRAMS, dtype=np.float64).fit_transform(texts)
    except ValueError:
        raise StudyError("baselines: tfidf finds no word in any text; check the 'text' column or drop tfidf") from None


class CountsToTfidf(TransformerMixin, BaseEstimator):
    """Term counts to sublinear, L2-normalised TF-IDF over the most frequent terms of the rows it is fitted on.

    Args:
        max_terms: How many terms to keep, by count over the fitted rows.
    """

    def __init__(self, max_terms: int = MAX_TERMS) -> None:
        self.max_terms = max_terms

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        return tags

    def fit(self, X: Any, y: Any = None) -> CountsToTfidf:  # noqa: ARG002  (scikit-learn passes y)
        """Choose the vocabulary and the document frequencies; X: CSR [rows, terms]."""
        X = validate_data(self, X, accept_sparse="csr", ensure_non_negative=True)
        totals = np.asarray(X.sum(axis=0)).ravel()
        seen = np.flatnonzero(totals)
        if len(seen) > self.max_terms:
            # The very call of CountVectorizer, whose order among equal counts is thereby ours.
            seen = seen[np.sort((-totals[seen]).argsort()[: self.max_terms])]
        self.terms_ = seen
        self.tfidf_ = TfidfTransformer(sublinear_tf=True).fit(X[:, seen])
        return self

    def transform(self, X: Any) -> Any:
        """CSR float64 [rows, kept terms]."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        return self.tfidf_.transform(X[:, self.terms_])
