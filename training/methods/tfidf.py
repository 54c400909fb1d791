"""The baselines of words and characters: TF-IDF, fitted on training rows only and cheap to fit many times.

Counting words is the slow part and learns nothing from labels or splits, so it is done once; what a fold learns (the
vocabulary and the document frequencies) is learnt from its training rows. The result equals scikit-learn's
`TfidfVectorizer` fitted on those rows. No stop words: corpora come in many languages. A word is what is set apart by
spaces or punctuation; where a language sets nothing apart (Chinese, Japanese, Thai and their neighbours), each
character is one, and pairs of them stand for words.
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
CHARACTERS = (2, 4)  # of character n-grams: from endings to short words
# Scripts without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. Otherwise scikit-learn's own pattern of a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = rf"(?u)[{UNSPACED}]|(?:(?<!\w)|(?<=[{UNSPACED}]))(?:(?![{UNSPACED}])\w){{2,}}"
MAX_TERMS = 20_000  # as in the paper


def count_terms(texts: Sequence[str], kind: str = "tfidf") -> Any:
    """Count words and word pairs (kind "tfidf") or character n-grams inside words (kind "char") in each text.

    Returns:
        CSR float64 [N, terms], terms in alphabetical order.

    Raises:
        StudyError: No text holds a word (two or more word characters).
    """
    if kind == "char":
        counter = CountVectorizer(analyzer="char_wb", ngram_range=CHARACTERS, dtype=np.float64)
    else:
        counter = CountVectorizer(token_pattern=WORD, ngram_range=NGRAMS, dtype=np.float64)
    try:
        return counter.fit_transform(texts)
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
